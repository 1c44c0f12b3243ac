// Metal's scalar types, bfloat and type traits. Nothing of the C++ library is included anywhere in the shim: it compiles
// quickly, and no name of the library (y1, index, …) can collide with a kernel's.
#pragma once
#include "scalars.h"

#define METAL_CONST
// Code of the shim that is not part of the kernel's memory traffic.
#define MSL_UNCHECKED __attribute__((no_sanitize("thread")))
// Code that is checked or not as its caller is.
#define MSL_INLINED inline __attribute__((always_inline))
#define MSL_UNROLL

struct bfloat;
#include "traits.h"

// bfloat16: the upper half of a float, rounded to nearest even after every operation.
struct bfloat {
  uint16_t bits;
  static constexpr MSL_INLINED uint16_t rounded(float f) {
    const uint32_t u = __builtin_bit_cast(uint32_t, f);
    if ((u & 0x7fffffff) > 0x7f800000) return uint16_t(u >> 16 | 0x40);  // NaN stays NaN
    return uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
  bfloat() = default;
  template <class S, metal::enable_if_t<metal::is_integral_v<S> || metal::is_same_v<S, float> || metal::is_same_v<S, half>, int> = 0>
  constexpr MSL_INLINED bfloat(S s) : bits(rounded(float(s))) {}
  constexpr MSL_INLINED operator float() const { return __builtin_bit_cast(float, uint32_t(bits) << 16); }
  MSL_INLINED bfloat& operator+=(float f) { return *this = bfloat(float(*this) + f); }
  MSL_INLINED bfloat& operator-=(float f) { return *this = bfloat(float(*this) - f); }
  MSL_INLINED bfloat& operator*=(float f) { return *this = bfloat(float(*this) * f); }
  MSL_INLINED bfloat& operator/=(float f) { return *this = bfloat(float(*this) / f); }
};
typedef bfloat bfloat16_t;

constexpr MSL_INLINED bfloat operator-(bfloat a) {
  a.bits ^= 0x8000;
  return a;
}
// bfloat with bfloat or an integer gives bfloat, with float gives float, as in Metal.
#define MSL_BFLOAT_OPERATOR(op)                                                                   \
  constexpr MSL_INLINED bfloat operator op(bfloat a, bfloat b) { return bfloat(float(a) op float(b)); }          \
  constexpr MSL_INLINED float operator op(bfloat a, float b) { return float(a) op b; }                           \
  constexpr MSL_INLINED float operator op(float a, bfloat b) { return a op float(b); }                           \
  template <class S, metal::enable_if_t<metal::is_integral_v<S>, int> = 0>                        \
  constexpr MSL_INLINED bfloat operator op(bfloat a, S b) { return bfloat(float(a) op float(b)); }               \
  template <class S, metal::enable_if_t<metal::is_integral_v<S>, int> = 0>                        \
  constexpr MSL_INLINED bfloat operator op(S a, bfloat b) { return bfloat(float(a) op float(b)); }
MSL_BFLOAT_OPERATOR(+)
MSL_BFLOAT_OPERATOR(-)
MSL_BFLOAT_OPERATOR(*)
MSL_BFLOAT_OPERATOR(/)
#undef MSL_BFLOAT_OPERATOR

namespace metal {
using ::bfloat;
using ::half;

template <class T> struct numeric_limits {
  static constexpr int digits = int(8 * sizeof(T)) - (is_unsigned_v<T> ? 0 : 1);
  static constexpr T max() { return is_unsigned_v<T> ? T(~T(0)) : T(~(ulong(1) << (8 * sizeof(T) - 1))); }
  static constexpr T min() { return is_unsigned_v<T> ? T(0) : T(-max() - 1); }
  static constexpr T lowest() { return min(); }
};
template <> struct numeric_limits<bool> {
  static constexpr bool max() { return true; }
  static constexpr bool min() { return false; }
};
#define MSL_FLOAT_LIMITS(T, n, largest, smallest, eps)                        \
  template <> struct numeric_limits<T> {                                      \
    static constexpr int digits = n;                                          \
    static constexpr T max() { return T(largest); }                                     \
    static constexpr T min() { return T(smallest); }                                    \
    static constexpr T lowest() { return T(-largest); }                                 \
    static constexpr T infinity() { return T(INFINITY); }                               \
    static constexpr T quiet_NaN() { return T(NAN); }                                   \
    static constexpr T epsilon() { return T(eps); }                                     \
  };
MSL_FLOAT_LIMITS(float, 24, FLT_MAX, FLT_MIN, FLT_EPSILON)
MSL_FLOAT_LIMITS(half, 11, 65504.0f, 6.103515625e-05f, 9.765625e-04f)
MSL_FLOAT_LIMITS(bfloat, 8, 3.38953139e38f, 1.175494351e-38f, 7.8125e-03f)
#undef MSL_FLOAT_LIMITS

template <class D, class S> inline D as_type(const S& s) {
  static_assert(sizeof(D) == sizeof(S), "as_type: the sizes differ");
  D d;
  __builtin_memcpy(static_cast<void*>(&d), static_cast<const void*>(&s), sizeof d);
  return d;
}
}  // namespace metal
using metal::as_type;
