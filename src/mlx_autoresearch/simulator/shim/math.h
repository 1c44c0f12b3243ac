// Metal's math for a CPU: math_functions.h on the compiler's builtins. The simulator does not model fast-math error.
#pragma once
#include "site.h"
#include "vector.h"

#define MSL_C(name) __builtin_##name##f
#define MSL_EXP10(x) __builtin_powf(10.0f, x)
#define MSL_RSQRT(x) 1.0f / __builtin_sqrtf(x)
#define MSL_SINPI(x) __builtin_sinf(3.14159265f * x)
#define MSL_COSPI(x) __builtin_cosf(3.14159265f * x)
#define MSL_POPCOUNT(u) __builtin_popcountll(u)
#define MSL_LEADING_ZEROS(u) (u ? __builtin_clzll(u) : 64)
#define MSL_TRAILING_ZEROS(u) __builtin_ctzll(u)
#define MSL_MULHI(a, b) ulong((unsigned __int128)(a) * (b) >> 64)

namespace metal {
MSL_INLINED float sincos(float x, float& cosine) {
  cosine = __builtin_cosf(x);
  return __builtin_sinf(x);
}
MSL_INLINED float frexp(float x, int& exponent) { return __builtin_frexpf(x, &exponent); }
MSL_INLINED float ldexp(float x, int n) { return __builtin_ldexpf(x, n); }
MSL_INLINED int ilogb(float x) { return __builtin_ilogbf(x); }
#include "math_functions.h"
}  // namespace metal
