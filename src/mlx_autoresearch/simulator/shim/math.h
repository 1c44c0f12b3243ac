// Metal's math for a CPU: math_functions.h on the compiler's builtins. The simulator does not model fast-math error.
#pragma once
#include "vector.h"

#define MSL_C(name) __builtin_##name##f
#define MSL_EXP10(x) __builtin_powf(10.0f, x)
#define MSL_RSQRT(x) 1.0f / __builtin_sqrtf(x)
#define MSL_SINPI(x) __builtin_sinf(3.14159265f * x)
#define MSL_COSPI(x) __builtin_cosf(3.14159265f * x)
#define MSL_POPCOUNT(u) __builtin_popcountll(u)
#define MSL_LEADING_ZEROS(u) (u ? __builtin_clzll(u) : 64)
#define MSL_TRAILING_ZEROS(u) __builtin_ctzll(u)

namespace metal {
#define MSL_THROUGH_SWIZZLE_1(name)                               \
  template <class A, enable_if_t<detail::is_swizzle<A>, int> = 0> \
  MSL_INLINED auto name(const A& a) { return name(detail::plain(a)); }
#define MSL_THROUGH_SWIZZLE_2(name)                                                                 \
  template <class A, class B, enable_if_t<detail::is_swizzle<A> || detail::is_swizzle<B>, int> = 0> \
  MSL_INLINED auto name(const A& a, const B& b) { return name(detail::plain(a), detail::plain(b)); }
#include "math_functions.h"
#undef MSL_THROUGH_SWIZZLE_1
#undef MSL_THROUGH_SWIZZLE_2

MSL_INLINED uint mulhi(uint a, uint b) { return uint(ulong(a) * b >> 32); }
MSL_INLINED int mulhi(int a, int b) { return int(long(a) * b >> 32); }
MSL_INLINED uint reverse_bits(uint x) {
  uint r = 0;
  for (int i = 0; i < 32; i++) r |= (x >> i & 1) << (31 - i);
  return r;
}
MSL_INLINED uint rotate(uint x, uint n) { return n % 32 ? x << n % 32 | x >> (32 - n % 32) : x; }
MSL_INLINED float ldexp(float x, int n) { return __builtin_ldexpf(x, n); }
MSL_INLINED float sincos(float x, float& cosine) {
  cosine = __builtin_cosf(x);
  return __builtin_sinf(x);
}
}  // namespace metal
