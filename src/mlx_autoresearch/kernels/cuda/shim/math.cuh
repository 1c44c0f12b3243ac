// Metal's math on a GPU: math_functions.h on CUDA's functions, and CUDA's own approximations of some.
#define MSL_C(name) ::name##f
#define MSL_EXP10(x) ::exp10f(x)
#define MSL_RSQRT(x) ::rsqrtf(x)
#define MSL_SINPI(x) ::sinpif(x)
#define MSL_COSPI(x) ::cospif(x)
#define MSL_POPCOUNT(u) __popcll(u)
#define MSL_LEADING_ZEROS(u) __clzll(u)
#define MSL_TRAILING_ZEROS(u) __ffsll(u) - 1
#define MSL_MULHI(a, b) __umul64hi(a, b)
#define MSL_OWN_FAST_FUNCTIONS

namespace mlx::core::cu {
inline namespace metal {
METAL_FUNC float sincos(float x, float& cosine) {
  float sine;
  ::sincosf(x, &sine, &cosine);
  return sine;
}
METAL_FUNC float frexp(float x, int& exponent) { return ::frexpf(x, &exponent); }
METAL_FUNC float ldexp(float x, int n) { return ::ldexpf(x, n); }
METAL_FUNC int ilogb(float x) { return ::ilogbf(x); }
#include "math_functions.h"
#include "more_functions.h"
#include "fast_and_precise.h"

// One for each MSL_FLOAT_1_FAST and MSL_FLOAT_2_FAST of functions.def.
namespace fast {
METAL_FUNC float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
METAL_FUNC float sqrt_approximate(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
MSL_DEFINE_FLOAT_1(exp, __expf(x))
MSL_DEFINE_FLOAT_1(exp2, ex2(x))
MSL_DEFINE_FLOAT_1(exp10, __exp10f(x))
MSL_DEFINE_FLOAT_1(log, __logf(x))
MSL_DEFINE_FLOAT_1(log2, __log2f(x))
MSL_DEFINE_FLOAT_1(log10, __log10f(x))
MSL_DEFINE_FLOAT_1(sin, __sinf(x))
MSL_DEFINE_FLOAT_1(cos, __cosf(x))
MSL_DEFINE_FLOAT_1(sqrt, sqrt_approximate(x))
MSL_DEFINE_FLOAT_1(rsqrt, ::rsqrtf(x))
// To 2e-7, not relatively; tanh.approx has but 11 bits. NaN stays NaN.
MSL_DEFINE_FLOAT_1(tanh, 1.0f - __fdividef(2.0f, 1.0f + ex2(2.0f * M_LOG2E_F * (x > 40.0f ? 40.0f : x))))
MSL_DEFINE_FLOAT_2(pow, __powf(a, b))
MSL_DEFINE_FLOAT_2(powr, __powf(a, b))
MSL_DEFINE_FLOAT_2(divide, __fdividef(a, b))
}  // namespace fast
}  // namespace metal
}  // namespace mlx::core::cu
