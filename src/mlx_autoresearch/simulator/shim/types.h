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

namespace metal {
// The few type traits of <metal_type_traits> that kernels use.
template <class T, T v> struct integral_constant { static constexpr T value = v; };
struct true_type : integral_constant<bool, true> {};
struct false_type : integral_constant<bool, false> {};
template <class A, class B> struct is_same : false_type {};
template <class A> struct is_same<A, A> : true_type {};
template <class A, class B> inline constexpr bool is_same_v = is_same<A, B>::value;
template <bool B, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <bool B, class T = void> using enable_if_t = typename enable_if<B, T>::type;
template <bool B, class T, class F> struct conditional { typedef T type; };
template <class T, class F> struct conditional<false, T, F> { typedef F type; };
template <bool B, class T, class F> using conditional_t = typename conditional<B, T, F>::type;
template <class T> struct remove_cv { typedef T type; };
template <class T> struct remove_cv<const T> { typedef T type; };
template <class T> struct remove_cv<volatile T> { typedef T type; };
template <class T> struct remove_cv<const volatile T> { typedef T type; };
template <class T> using remove_cv_t = typename remove_cv<T>::type;
template <class T> inline constexpr bool is_integral_v =
    is_same_v<T, bool> || is_same_v<T, char> || is_same_v<T, signed char> || is_same_v<T, uchar> || is_same_v<T, short> ||
    is_same_v<T, ushort> || is_same_v<T, int> || is_same_v<T, uint> || is_same_v<T, long> || is_same_v<T, ulong>;
template <class T> struct is_integral : integral_constant<bool, is_integral_v<T>> {};
}  // namespace metal

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

MSL_INLINED bfloat operator-(bfloat a) {
  a.bits ^= 0x8000;
  return a;
}
// bfloat with bfloat or an integer gives bfloat, with float gives float, as in Metal.
#define MSL_BFLOAT_OPERATOR(op)                                                                   \
  MSL_INLINED bfloat operator op(bfloat a, bfloat b) { return bfloat(float(a) op float(b)); }          \
  MSL_INLINED float operator op(bfloat a, float b) { return float(a) op b; }                           \
  MSL_INLINED float operator op(float a, bfloat b) { return a op float(b); }                           \
  template <class S, metal::enable_if_t<metal::is_integral_v<S>, int> = 0>                        \
  MSL_INLINED bfloat operator op(bfloat a, S b) { return bfloat(float(a) op float(b)); }               \
  template <class S, metal::enable_if_t<metal::is_integral_v<S>, int> = 0>                        \
  MSL_INLINED bfloat operator op(S a, bfloat b) { return bfloat(float(a) op float(b)); }
MSL_BFLOAT_OPERATOR(+)
MSL_BFLOAT_OPERATOR(-)
MSL_BFLOAT_OPERATOR(*)
MSL_BFLOAT_OPERATOR(/)
#undef MSL_BFLOAT_OPERATOR

// Metal's own literal suffixes lack the underscore that C++ asks of users.
#pragma GCC diagnostic push
#if defined(__clang__)
#pragma GCC diagnostic ignored "-Wuser-defined-literals"
#pragma GCC diagnostic ignored "-Wreserved-user-defined-literal"
#else
#pragma GCC diagnostic ignored "-Wliteral-suffix"
#endif
inline half operator""h(long double x) { return half(x); }
inline bfloat operator""bf(long double x) { return bfloat(float(x)); }
#pragma GCC diagnostic pop

namespace metal {
using ::bfloat;
using ::half;

template <class T> inline constexpr bool is_floating_point_v = is_same_v<T, float> || is_same_v<T, half> || is_same_v<T, bfloat>;
template <class T> struct is_floating_point : integral_constant<bool, is_floating_point_v<T>> {};
template <class T> inline constexpr bool is_scalar_number = is_integral_v<T> || is_floating_point_v<T>;
template <class T> inline constexpr bool is_unsigned_v = is_integral_v<T> && T(-1) > T(0);
template <class T> inline constexpr bool is_signed_v = is_scalar_number<T> && !is_unsigned_v<T>;

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
