// Metal's math, in the simulator and in CUDA: float functions computed in float and rounded to the type, integer
// functions; componentwise on vectors, for which a number stands for a vector of it. The including file gives the
// namespace, MSL_INLINED, MSL_UNROLL and the platform's functions that functions.def names.
#define MSL_EACH(Result, ...)                                                          \
  detail::with_type<Result, V> r;                                                      \
  MSL_UNROLL for (int i = 0; i < detail::operand<V>::n; i++) r.v[i] = __VA_ARGS__;     \
  return r;
#define MSL_AT(x) detail::at<detail::component<V>>(x, i)
#define MSL_VECTORS_1(Result, name)                                                      \
  template <class A, class V = detail::vector_1<A>>                                      \
  MSL_INLINED detail::with_type<Result, V> name(const A& a) {                            \
    MSL_EACH(Result, name(MSL_AT(a)))                                                    \
  }
#define MSL_VECTORS_2(Result, name)                                                      \
  template <class A, class B, class V = detail::vector_2<A, B>>                          \
  MSL_INLINED detail::with_type<Result, V> name(const A& a, const B& b) {                \
    MSL_EACH(Result, name(MSL_AT(a), MSL_AT(b)))                                         \
  }
#define MSL_VECTORS_3(Result, name)                                                      \
  template <class A, class B, class C, class V = detail::vector_3<A, B, C>>              \
  MSL_INLINED detail::with_type<Result, V> name(const A& a, const B& b, const C& c) {    \
    MSL_EACH(Result, name(MSL_AT(a), MSL_AT(b), MSL_AT(c)))                              \
  }
#define MSL_SAME detail::component<V>

#define MSL_DEFINE_FLOAT_1(name, value)                                \
  MSL_INLINED float name(float x) { return value; }                    \
  MSL_INLINED half name(half x) { return half(name(float(x))); }       \
  MSL_INLINED bfloat name(bfloat x) { return bfloat(name(float(x))); } \
  MSL_VECTORS_1(MSL_SAME, name)
#define MSL_DEFINE_FLOAT_2(name, value)                                                    \
  MSL_INLINED float name(float a, float b) { return value; }                               \
  MSL_INLINED half name(half a, half b) { return half(name(float(a), float(b))); }         \
  MSL_INLINED bfloat name(bfloat a, bfloat b) { return bfloat(name(float(a), float(b))); } \
  MSL_VECTORS_2(MSL_SAME, name)
#define MSL_DEFINE_FLOAT_3(name, value)                                                                        \
  MSL_INLINED float name(float a, float b, float c) { return value; }                                          \
  MSL_INLINED half name(half a, half b, half c) { return half(name(float(a), float(b), float(c))); }           \
  MSL_INLINED bfloat name(bfloat a, bfloat b, bfloat c) { return bfloat(name(float(a), float(b), float(c))); } \
  MSL_VECTORS_3(MSL_SAME, name)
#define MSL_FLOAT_1 MSL_DEFINE_FLOAT_1
#define MSL_FLOAT_2 MSL_DEFINE_FLOAT_2
#define MSL_FLOAT_3 MSL_DEFINE_FLOAT_3
#define MSL_TEST_1(name, value)                    \
  MSL_INLINED bool name(float x) { return value; } \
  MSL_VECTORS_1(bool, name)
#define MSL_TEST_2(name, value)                             \
  MSL_INLINED bool name(float a, float b) { return value; } \
  MSL_VECTORS_2(bool, name)
#define MSL_INTEGER(parameters, name, value)                                                              \
  template <class T, int bits = 8 * sizeof(T), class U = detail::unsigned_t<bits>, enable_if_t<is_integral_v<T>, int> = 0> \
  MSL_INLINED T name parameters { return T(value); }
#define MSL_INTEGER_1(name, value) MSL_INTEGER((T a), name, value) MSL_VECTORS_1(MSL_SAME, name)
#define MSL_INTEGER_2(name, value) MSL_INTEGER((T a, T b), name, value) MSL_VECTORS_2(MSL_SAME, name)
#define MSL_INTEGER_3(name, value) MSL_INTEGER((T a, T b, T c), name, value) MSL_VECTORS_3(MSL_SAME, name)

namespace detail {
template <int bits> struct unsigned_type { typedef uint type; };
template <> struct unsigned_type<8> { typedef uchar type; };
template <> struct unsigned_type<16> { typedef ushort type; };
template <> struct unsigned_type<64> { typedef ulong type; };
template <int bits> using unsigned_t = typename unsigned_type<bits>::type;

// A sum or difference of a, whose true value is not below a where it rises and not above elsewhere.
template <class T> MSL_INLINED T saturated(T sum, T a, bool rises) {
  if (rises) return sum < a ? numeric_limits<T>::max() : sum;
  return sum > a ? numeric_limits<T>::min() : sum;
}
// high 2^bits + low + c, where it is a T.
template <class T, class U> MSL_INLINED T saturated_sum(T high, U low, T c) {
  const U sum = low + U(c);
  high = T(high + (sum < low) - (c < T(0)));
  if (high == T(T(sum) < T(0) ? -1 : 0)) return T(sum);
  return high < T(0) ? numeric_limits<T>::min() : numeric_limits<T>::max();
}
// The upper half of a product.
template <class U> MSL_INLINED U high(U a, U b) {
  if constexpr (sizeof(U) < 8) return U(ulong(a) * b >> 8 * sizeof(U));
  else return MSL_MULHI(a, b);
}
MSL_INLINED ulong reversed(ulong u) {
  ulong r = 0;
  for (int i = 0; i < 64; i++) r |= (u >> i & 1) << (63 - i);
  return r;
}
MSL_INLINED float hermite(float t) { return t * t * (3.0f - 2.0f * t); }
}  // namespace detail
#include "functions.def"
#undef MSL_INTEGER

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
  if constexpr (T(-1) < T(0)) return a < T(0) ? T(0 - detail::unsigned_t<8 * sizeof(T)>(a)) : a;
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
  MSL_INLINED T median3(T a, T b, T c) { return fmedian3(a, b, c); }
MSL_ORDERED(float) MSL_ORDERED(half) MSL_ORDERED(bfloat)
#undef MSL_ORDERED
MSL_VECTORS_1(MSL_SAME, abs)
MSL_VECTORS_2(MSL_SAME, max)
MSL_VECTORS_2(MSL_SAME, min)
MSL_VECTORS_3(MSL_SAME, clamp)
MSL_VECTORS_3(MSL_SAME, max3)
MSL_VECTORS_3(MSL_SAME, min3)
MSL_VECTORS_3(MSL_SAME, median3)

MSL_INLINED bool any(bool a) { return a; }
MSL_INLINED bool all(bool a) { return a; }
template <int N> MSL_INLINED bool any(const vec<bool, N>& a) {
  bool r = false;
  for (int i = 0; i < N; i++) r |= a.v[i];
  return r;
}
template <int N> MSL_INLINED bool all(const vec<bool, N>& a) {
  bool r = true;
  for (int i = 0; i < N; i++) r &= a.v[i];
  return r;
}
template <class T, enable_if_t<is_scalar_number<T>, int> = 0> MSL_INLINED T select(T a, T b, bool c) {
  return c ? b : a;
}
template <class A, class B, class C, class V = detail::vector_2<A, B>>
MSL_INLINED V select(const A& a, const B& b, const C& c) {
  MSL_EACH(MSL_SAME, detail::at<bool>(c, i) ? MSL_AT(b) : MSL_AT(a))
}

template <class A, class B, class V = detail::vector_2<A, B>> MSL_INLINED detail::component<V> dot(const A& a, const B& b) {
  detail::component<V> sum = a[0] * b[0];
  MSL_UNROLL for (int i = 1; i < detail::operand<V>::n; i++) sum += a[i] * b[i];
  return sum;
}
template <class A, class V = detail::vector_1<A>> MSL_INLINED detail::component<V> length_squared(const A& a) { return dot(a, a); }
template <class A, class V = detail::vector_1<A>> MSL_INLINED detail::component<V> length(const A& a) { return sqrt(dot(a, a)); }
template <class A, class V = detail::vector_1<A>> MSL_INLINED V normalize(const A& a) { return a * rsqrt(dot(a, a)); }
