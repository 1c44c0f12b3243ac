// Metal's math, in the simulator and in CUDA: float functions computed in float and rounded to the type, integer
// functions; componentwise on vectors. The including file gives the namespace, MSL_INLINED, MSL_UNROLL, the platform's
// functions that functions.def names, and MSL_THROUGH_SWIZZLE_1(name) and _2, overloads for swizzles, or nothing.
#define MSL_DEFINE_FLOAT_1(name, value)                                      \
  MSL_INLINED float name(float x) { return value; }                          \
  MSL_INLINED half name(half x) { return half(name(float(x))); }             \
  MSL_INLINED bfloat name(bfloat x) { return bfloat(name(float(x))); }       \
  template <class T, int N> MSL_INLINED vec<T, N> name(const vec<T, N>& x) { \
    vec<T, N> r;                                                             \
    MSL_UNROLL for (int i = 0; i < N; i++) r[i] = name(x[i]);                \
    return r;                                                                \
  }                                                                          \
  MSL_THROUGH_SWIZZLE_1(name)
#define MSL_DEFINE_FLOAT_2(name, value)                                                          \
  MSL_INLINED float name(float a, float b) { return value; }                                     \
  MSL_INLINED half name(half a, half b) { return half(name(float(a), float(b))); }               \
  MSL_INLINED bfloat name(bfloat a, bfloat b) { return bfloat(name(float(a), float(b))); }       \
  template <class T, int N> MSL_INLINED vec<T, N> name(const vec<T, N>& a, const vec<T, N>& b) { \
    vec<T, N> r;                                                                                 \
    MSL_UNROLL for (int i = 0; i < N; i++) r[i] = name(a[i], b[i]);                              \
    return r;                                                                                    \
  }
#define MSL_DEFINE_FLOAT_3(name, value)                                                                              \
  MSL_INLINED float name(float a, float b, float c) { return value; }                                                \
  MSL_INLINED half name(half a, half b, half c) { return half(name(float(a), float(b), float(c))); }                 \
  MSL_INLINED bfloat name(bfloat a, bfloat b, bfloat c) { return bfloat(name(float(a), float(b), float(c))); }       \
  template <class T, int N> MSL_INLINED vec<T, N> name(const vec<T, N>& a, const vec<T, N>& b, const vec<T, N>& c) { \
    vec<T, N> r;                                                                                                     \
    MSL_UNROLL for (int i = 0; i < N; i++) r[i] = name(a[i], b[i], c[i]);                                            \
    return r;                                                                                                        \
  }
#define MSL_FLOAT_1 MSL_DEFINE_FLOAT_1
#define MSL_FLOAT_2 MSL_DEFINE_FLOAT_2
#define MSL_FLOAT_3 MSL_DEFINE_FLOAT_3
#define MSL_TEST(name, value)                                                   \
  MSL_INLINED bool name(float x) { return value; }                              \
  template <class T, int N> MSL_INLINED vec<bool, N> name(const vec<T, N>& x) { \
    vec<bool, N> r;                                                             \
    MSL_UNROLL for (int i = 0; i < N; i++) r[i] = name(x[i]);                   \
    return r;                                                                   \
  }
#define MSL_INTEGER_1(name, value)                                                     \
  template <class T, enable_if_t<is_integral_v<T>, int> = 0> MSL_INLINED T name(T x) { \
    constexpr int bits = 8 * sizeof(T);                                                \
    const ulong u = ulong(x) & ~0ul >> (64 - bits);                                    \
    return T(value);                                                                   \
  }                                                                                    \
  template <class T, int N> MSL_INLINED vec<T, N> name(const vec<T, N>& x) {           \
    vec<T, N> r;                                                                       \
    MSL_UNROLL for (int i = 0; i < N; i++) r[i] = name(x[i]);                          \
    return r;                                                                          \
  }
#include "functions.def"

#define MSL_ORDERED(T)                                                       \
  MSL_INLINED T max(T a, T b) { return a < b ? b : a; }                      \
  MSL_INLINED T min(T a, T b) { return b < a ? b : a; }                      \
  MSL_INLINED T clamp(T x, T low, T high) { return min(max(x, low), high); } \
  MSL_INLINED T max3(T a, T b, T c) { return max(max(a, b), c); }            \
  MSL_INLINED T min3(T a, T b, T c) { return min(min(a, b), c); }            \
  MSL_INLINED T median3(T a, T b, T c) { return max(min(a, b), min(max(a, b), c)); }
MSL_ORDERED(int) MSL_ORDERED(uint) MSL_ORDERED(short) MSL_ORDERED(ushort) MSL_ORDERED(char) MSL_ORDERED(int8_t)
MSL_ORDERED(uchar) MSL_ORDERED(long) MSL_ORDERED(ulong)
#undef MSL_ORDERED
template <class T, enable_if_t<is_integral_v<T>, int> = 0> MSL_INLINED T abs(T a) {
  if constexpr (T(-1) < T(0)) return a < T(0) ? T(-a) : a;
  return a;
}
// Of two numbers of which one is NaN, Metal's max and min return the other.
#define MSL_ORDERED(T)                                                         \
  MSL_INLINED T max(T a, T b) { return fmax(a, b); }                           \
  MSL_INLINED T min(T a, T b) { return fmin(a, b); }                           \
  MSL_INLINED T clamp(T x, T low, T high) { return fmin(fmax(x, low), high); } \
  MSL_INLINED T abs(T a) { return fabs(a); }                                   \
  MSL_INLINED T max3(T a, T b, T c) { return fmax3(a, b, c); }                 \
  MSL_INLINED T min3(T a, T b, T c) { return fmin3(a, b, c); }                 \
  MSL_INLINED T median3(T a, T b, T c) { return fmax(fmin(a, b), fmin(fmax(a, b), c)); }
MSL_ORDERED(float) MSL_ORDERED(half) MSL_ORDERED(bfloat)
#undef MSL_ORDERED
#define MSL_PAIRWISE(name)                                                                       \
  template <class T, int N> MSL_INLINED vec<T, N> name(const vec<T, N>& a, const vec<T, N>& b) { \
    vec<T, N> r;                                                                                 \
    MSL_UNROLL for (int i = 0; i < N; i++) r[i] = name(a[i], b[i]);                              \
    return r;                                                                                    \
  }                                                                                              \
  MSL_THROUGH_SWIZZLE_2(name)
MSL_PAIRWISE(max)
MSL_PAIRWISE(min)
#undef MSL_PAIRWISE
template <class T, int N> MSL_INLINED vec<T, N> abs(const vec<T, N>& a) {
  vec<T, N> r;
  MSL_UNROLL for (int i = 0; i < N; i++) r[i] = abs(a[i]);
  return r;
}
template <class T, int N> MSL_INLINED vec<T, N> clamp(const vec<T, N>& x, T low, T high) {
  vec<T, N> r;
  MSL_UNROLL for (int i = 0; i < N; i++) r[i] = clamp(x[i], low, high);
  return r;
}

MSL_INLINED uint extract_bits(uint x, uint offset, uint bits) {
  return bits < 32 ? x >> offset & ((1u << bits) - 1) : x >> offset;
}

template <class T, int N> MSL_INLINED T dot(const vec<T, N>& a, const vec<T, N>& b) {
  T sum = a[0] * b[0];
  MSL_UNROLL for (int i = 1; i < N; i++) sum += a[i] * b[i];
  return sum;
}
template <class T, int N> MSL_INLINED T length_squared(const vec<T, N>& a) { return dot(a, a); }
template <class T, int N> MSL_INLINED T length(const vec<T, N>& a) { return sqrt(dot(a, a)); }
template <class T, int N> MSL_INLINED T distance(const vec<T, N>& a, const vec<T, N>& b) { return length(a - b); }
template <class T, int N> MSL_INLINED vec<T, N> normalize(const vec<T, N>& a) { return a * rsqrt(dot(a, a)); }
template <class T> MSL_INLINED vec<T, 3> cross(const vec<T, 3>& a, const vec<T, 3>& b) {
  return vec<T, 3>(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x);
}
MSL_THROUGH_SWIZZLE_2(dot) MSL_THROUGH_SWIZZLE_2(distance) MSL_THROUGH_SWIZZLE_2(cross)
MSL_THROUGH_SWIZZLE_1(length) MSL_THROUGH_SWIZZLE_1(length_squared) MSL_THROUGH_SWIZZLE_1(normalize)

template <int N> MSL_INLINED bool any(const vec<bool, N>& a) {
  bool r = false;
  for (int i = 0; i < N; i++) r |= a[i];
  return r;
}
template <int N> MSL_INLINED bool all(const vec<bool, N>& a) {
  bool r = true;
  for (int i = 0; i < N; i++) r &= a[i];
  return r;
}
template <class T, enable_if_t<is_scalar_number<T>, int> = 0> MSL_INLINED T select(T a, T b, bool c) {
  return c ? b : a;
}
template <class T, int N> MSL_INLINED vec<T, N> select(const vec<T, N>& a, const vec<T, N>& b, const vec<bool, N>& c) {
  vec<T, N> r;
  for (int i = 0; i < N; i++) r[i] = c[i] ? b[i] : a[i];
  return r;
}

// precise:: are the functions above; so are fast::, but for those of which the including file defines its own.
#define MSL_USING(name, value) using metal::name;
namespace precise {
#define MSL_FLOAT_1 MSL_USING
#define MSL_FLOAT_2 MSL_USING
#define MSL_FLOAT_3 MSL_USING
#include "functions.def"
using metal::abs, metal::clamp, metal::max, metal::min;
}  // namespace precise
namespace fast {
#define MSL_FLOAT_1 MSL_USING
#define MSL_FLOAT_2 MSL_USING
#define MSL_FLOAT_3 MSL_USING
#ifdef MSL_OWN_FAST_FUNCTIONS
#define MSL_FLOAT_1_FAST(name, value)
#define MSL_FLOAT_2_FAST(name, value)
#endif
#include "functions.def"
using metal::abs, metal::clamp, metal::max, metal::min;
}  // namespace fast
#undef MSL_USING
