// Metal's math: float functions computed in float and rounded to the type, integer functions; componentwise on vectors.
namespace mlx::core::cu {
inline namespace metal {
#define MSL_FLOAT_1(name, value)                                            \
  METAL_FUNC float name(float x) { return value; }                          \
  METAL_FUNC half name(half x) { return half(name(float(x))); }             \
  METAL_FUNC bfloat name(bfloat x) { return bfloat(name(float(x))); }       \
  template <class T, int N> METAL_FUNC vec<T, N> name(const vec<T, N>& x) { \
    vec<T, N> r;                                                            \
    _Pragma("unroll") for (int i = 0; i < N; i++) r[i] = name(x[i]);        \
    return r;                                                               \
  }
#define MSL_FLOAT_2(name, value)                                                                \
  METAL_FUNC float name(float a, float b) { return value; }                                     \
  METAL_FUNC half name(half a, half b) { return half(name(float(a), float(b))); }               \
  METAL_FUNC bfloat name(bfloat a, bfloat b) { return bfloat(name(float(a), float(b))); }       \
  template <class T, int N> METAL_FUNC vec<T, N> name(const vec<T, N>& a, const vec<T, N>& b) { \
    vec<T, N> r;                                                                                \
    _Pragma("unroll") for (int i = 0; i < N; i++) r[i] = name(a[i], b[i]);                      \
    return r;                                                                                   \
  }
#define MSL_FLOAT_3(name, value)                                                                                    \
  METAL_FUNC float name(float a, float b, float c) { return value; }                                                \
  METAL_FUNC half name(half a, half b, half c) { return half(name(float(a), float(b), float(c))); }                 \
  METAL_FUNC bfloat name(bfloat a, bfloat b, bfloat c) { return bfloat(name(float(a), float(b), float(c))); }       \
  template <class T, int N> METAL_FUNC vec<T, N> name(const vec<T, N>& a, const vec<T, N>& b, const vec<T, N>& c) { \
    vec<T, N> r;                                                                                                    \
    _Pragma("unroll") for (int i = 0; i < N; i++) r[i] = name(a[i], b[i], c[i]);                                    \
    return r;                                                                                                       \
  }
#define MSL_TEST(name, value)                                                  \
  METAL_FUNC bool name(float x) { return value; }                              \
  template <class T, int N> METAL_FUNC vec<bool, N> name(const vec<T, N>& x) { \
    vec<bool, N> r;                                                            \
    _Pragma("unroll") for (int i = 0; i < N; i++) r[i] = name(x[i]);           \
    return r;                                                                  \
  }

MSL_FLOAT_1(exp, ::expf(x))
MSL_FLOAT_1(exp2, ::exp2f(x))
MSL_FLOAT_1(exp10, ::exp10f(x))
MSL_FLOAT_1(log, ::logf(x))
MSL_FLOAT_1(log2, ::log2f(x))
MSL_FLOAT_1(log10, ::log10f(x))
MSL_FLOAT_1(sqrt, ::sqrtf(x))
MSL_FLOAT_1(rsqrt, ::rsqrtf(x))
MSL_FLOAT_1(sin, ::sinf(x))
MSL_FLOAT_1(cos, ::cosf(x))
MSL_FLOAT_1(tan, ::tanf(x))
MSL_FLOAT_1(sinpi, ::sinpif(x))
MSL_FLOAT_1(cospi, ::cospif(x))
MSL_FLOAT_1(asin, ::asinf(x))
MSL_FLOAT_1(acos, ::acosf(x))
MSL_FLOAT_1(atan, ::atanf(x))
MSL_FLOAT_1(sinh, ::sinhf(x))
MSL_FLOAT_1(cosh, ::coshf(x))
MSL_FLOAT_1(tanh, ::tanhf(x))
MSL_FLOAT_1(asinh, ::asinhf(x))
MSL_FLOAT_1(acosh, ::acoshf(x))
MSL_FLOAT_1(atanh, ::atanhf(x))
MSL_FLOAT_1(floor, ::floorf(x))
MSL_FLOAT_1(ceil, ::ceilf(x))
MSL_FLOAT_1(round, ::roundf(x))
MSL_FLOAT_1(rint, ::rintf(x))
MSL_FLOAT_1(trunc, ::truncf(x))
MSL_FLOAT_1(fract, ::fminf(x - ::floorf(x), 0.99999994f))
MSL_FLOAT_1(fabs, ::fabsf(x))
MSL_FLOAT_1(saturate, ::fminf(::fmaxf(x, 0.0f), 1.0f))
MSL_FLOAT_1(sign, x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f)

MSL_FLOAT_2(pow, ::powf(a, b))
MSL_FLOAT_2(powr, ::powf(a, b))
MSL_FLOAT_2(fmod, ::fmodf(a, b))
MSL_FLOAT_2(atan2, ::atan2f(a, b))
MSL_FLOAT_2(fmax, ::fmaxf(a, b))
MSL_FLOAT_2(fmin, ::fminf(a, b))
MSL_FLOAT_2(fdim, ::fdimf(a, b))
MSL_FLOAT_2(copysign, ::copysignf(a, b))
MSL_FLOAT_2(step, b < a ? 0.0f : 1.0f)
MSL_FLOAT_2(divide, a / b)

MSL_FLOAT_3(fma, ::fmaf(a, b, c))
MSL_FLOAT_3(mix, a + (b - a) * c)
MSL_FLOAT_3(fmax3, ::fmaxf(::fmaxf(a, b), c))
MSL_FLOAT_3(fmin3, ::fminf(::fminf(a, b), c))

MSL_TEST(isnan, (as_type<uint>(x) & 0x7fffffffu) > 0x7f800000u)
MSL_TEST(isinf, (as_type<uint>(x) & 0x7fffffffu) == 0x7f800000u)
MSL_TEST(isfinite, (as_type<uint>(x) & 0x7fffffffu) < 0x7f800000u)
MSL_TEST(isnormal, isfinite(x) && ::fabsf(x) >= FLT_MIN)
MSL_TEST(signbit, as_type<uint>(x) >> 31)

#define MSL_ORDERED(T)                                                      \
  METAL_FUNC T max(T a, T b) { return a < b ? b : a; }                      \
  METAL_FUNC T min(T a, T b) { return b < a ? b : a; }                      \
  METAL_FUNC T clamp(T x, T low, T high) { return min(max(x, low), high); } \
  METAL_FUNC T max3(T a, T b, T c) { return max(max(a, b), c); }            \
  METAL_FUNC T min3(T a, T b, T c) { return min(min(a, b), c); }            \
  METAL_FUNC T median3(T a, T b, T c) { return max(min(a, b), min(max(a, b), c)); }
MSL_ORDERED(int) MSL_ORDERED(uint) MSL_ORDERED(short) MSL_ORDERED(ushort) MSL_ORDERED(char) MSL_ORDERED(int8_t)
MSL_ORDERED(uchar) MSL_ORDERED(long) MSL_ORDERED(ulong)
#undef MSL_ORDERED
template <class T, enable_if_t<is_integral_v<T>, int> = 0> METAL_FUNC T abs(T a) {
  if constexpr (T(-1) < T(0)) return a < T(0) ? T(-a) : a;
  return a;
}
// Of two numbers of which one is NaN, max and min return the other.
#define MSL_ORDERED(T)                                                        \
  METAL_FUNC T max(T a, T b) { return fmax(a, b); }                           \
  METAL_FUNC T min(T a, T b) { return fmin(a, b); }                           \
  METAL_FUNC T clamp(T x, T low, T high) { return fmin(fmax(x, low), high); } \
  METAL_FUNC T abs(T a) { return fabs(a); }                                   \
  METAL_FUNC T max3(T a, T b, T c) { return fmax3(a, b, c); }                 \
  METAL_FUNC T min3(T a, T b, T c) { return fmin3(a, b, c); }                 \
  METAL_FUNC T median3(T a, T b, T c) { return fmax(fmin(a, b), fmin(fmax(a, b), c)); }
MSL_ORDERED(float) MSL_ORDERED(half) MSL_ORDERED(bfloat)
#undef MSL_ORDERED
#define MSL_PAIRWISE(name)                                                                      \
  template <class T, int N> METAL_FUNC vec<T, N> name(const vec<T, N>& a, const vec<T, N>& b) { \
    vec<T, N> r;                                                                                \
    _Pragma("unroll") for (int i = 0; i < N; i++) r[i] = name(a[i], b[i]);                      \
    return r;                                                                                   \
  }
MSL_PAIRWISE(max)
MSL_PAIRWISE(min)
#undef MSL_PAIRWISE
template <class T, int N> METAL_FUNC vec<T, N> abs(const vec<T, N>& a) {
  return max(a, -a);
}
template <class T, int N> METAL_FUNC vec<T, N> clamp(const vec<T, N>& x, T low, T high) {
  return min(max(x, vec<T, N>(low)), vec<T, N>(high));
}

#define MSL_INTEGER_1(name, value)                                                    \
  template <class T, enable_if_t<is_integral_v<T>, int> = 0> METAL_FUNC T name(T x) { \
    constexpr int bits = 8 * sizeof(T);                                               \
    const ulong u = ulong(x) & ~0ul >> (64 - bits);                                   \
    return T(value);                                                                  \
  }                                                                                   \
  template <class T, int N> METAL_FUNC vec<T, N> name(const vec<T, N>& x) {           \
    vec<T, N> r;                                                                      \
    _Pragma("unroll") for (int i = 0; i < N; i++) r[i] = name(x[i]);                  \
    return r;                                                                         \
  }
MSL_INTEGER_1(popcount, __popcll(u))
MSL_INTEGER_1(clz, __clzll(u) - (64 - bits))
MSL_INTEGER_1(ctz, u ? __ffsll(u) - 1 : bits)
#undef MSL_INTEGER_1

METAL_FUNC uint mulhi(uint a, uint b) { return __umulhi(a, b); }
METAL_FUNC int mulhi(int a, int b) { return __mulhi(a, b); }
METAL_FUNC uint reverse_bits(uint x) { return __brev(x); }
METAL_FUNC uint rotate(uint x, uint n) { return __funnelshift_l(x, x, n); }
METAL_FUNC uint extract_bits(uint x, uint offset, uint bits) {
  return bits < 32 ? x >> offset & ((1u << bits) - 1) : x >> offset;
}
METAL_FUNC float ldexp(float x, int n) { return ::ldexpf(x, n); }
METAL_FUNC float sincos(float x, float& cosine) {
  float sine;
  ::sincosf(x, &sine, &cosine);
  return sine;
}

template <class T, int N> METAL_FUNC T dot(const vec<T, N>& a, const vec<T, N>& b) {
  T sum = a[0] * b[0];
#pragma unroll
  for (int i = 1; i < N; i++) sum += a[i] * b[i];
  return sum;
}
template <class T, int N> METAL_FUNC T length_squared(const vec<T, N>& a) { return dot(a, a); }
template <class T, int N> METAL_FUNC T length(const vec<T, N>& a) { return sqrt(dot(a, a)); }
template <class T, int N> METAL_FUNC T distance(const vec<T, N>& a, const vec<T, N>& b) { return length(a - b); }
template <class T, int N> METAL_FUNC vec<T, N> normalize(const vec<T, N>& a) { return a * rsqrt(dot(a, a)); }
template <class T> METAL_FUNC vec<T, 3> cross(const vec<T, 3>& a, const vec<T, 3>& b) {
  return vec<T, 3>(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x);
}
template <int N> METAL_FUNC bool any(const vec<bool, N>& a) {
  bool r = false;
  for (int i = 0; i < N; i++) r |= a[i];
  return r;
}
template <int N> METAL_FUNC bool all(const vec<bool, N>& a) {
  bool r = true;
  for (int i = 0; i < N; i++) r &= a[i];
  return r;
}
template <class T, enable_if_t<is_scalar_number<T>, int> = 0> METAL_FUNC T select(T a, T b, bool c) {
  return c ? b : a;
}
template <class T, int N> METAL_FUNC vec<T, N> select(const vec<T, N>& a, const vec<T, N>& b, const vec<bool, N>& c) {
  vec<T, N> r;
  for (int i = 0; i < N; i++) r[i] = c[i] ? b[i] : a[i];
  return r;
}

// The functions above, which are as exact as CUDA's; and the GPU's own approximations of some.
namespace precise {
using metal::acos, metal::asin, metal::atan, metal::atan2, metal::ceil, metal::cos, metal::cosh, metal::divide;
using metal::exp, metal::exp10, metal::exp2, metal::fabs, metal::floor, metal::fma, metal::fmax, metal::fmin;
using metal::fmod, metal::log, metal::log10, metal::log2, metal::pow, metal::powr, metal::rint, metal::round;
using metal::abs, metal::clamp, metal::max, metal::min, metal::rsqrt, metal::sin, metal::sinh, metal::sqrt;
using metal::tan, metal::tanh, metal::trunc;
}  // namespace precise
namespace fast {
using metal::abs, metal::clamp, metal::max, metal::min;
using metal::acos, metal::asin, metal::atan, metal::atan2, metal::ceil, metal::cosh, metal::fabs, metal::floor;
using metal::fma, metal::fmax, metal::fmin, metal::fmod, metal::rint, metal::round, metal::sinh, metal::tan;
using metal::trunc;
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
MSL_FLOAT_1(exp, __expf(x))
MSL_FLOAT_1(exp2, ex2(x))
MSL_FLOAT_1(exp10, __exp10f(x))
MSL_FLOAT_1(log, __logf(x))
MSL_FLOAT_1(log2, __log2f(x))
MSL_FLOAT_1(log10, __log10f(x))
MSL_FLOAT_1(sin, __sinf(x))
MSL_FLOAT_1(cos, __cosf(x))
MSL_FLOAT_1(sqrt, sqrt_approximate(x))
MSL_FLOAT_1(rsqrt, ::rsqrtf(x))
// To 2e-7, not relatively; tanh.approx has but 11 bits. NaN stays NaN.
MSL_FLOAT_1(tanh, 1.0f - __fdividef(2.0f, 1.0f + ex2(2.0f * M_LOG2E_F * (x > 40.0f ? 40.0f : x))))
MSL_FLOAT_2(pow, __powf(a, b))
MSL_FLOAT_2(powr, __powf(a, b))
MSL_FLOAT_2(divide, __fdividef(a, b))
}  // namespace fast
#undef MSL_FLOAT_1
#undef MSL_FLOAT_2
#undef MSL_FLOAT_3
#undef MSL_TEST
}  // namespace metal
}  // namespace mlx::core::cu
