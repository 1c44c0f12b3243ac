// Functions of <metal_integer>, <metal_math> and <metal_geometric> that few kernels call, in CUDA, and in the simulator
// where a kernel names one of them. They stand behind math_functions.h.

// `bits` bits from bit `offset` on, sign-extended in a signed type.
template <class T, enable_if_t<is_integral_v<T>, int> = 0> MSL_INLINED T extract_bits(T x, uint offset, uint bits) {
  typedef detail::unsigned_t<8 * sizeof(T)> U;
  const uint unused = 8 * sizeof(T) - bits;
  return bits ? T(T(U(U(x) << (unused - offset))) >> unused) : T(0);
}
template <class T, enable_if_t<is_integral_v<T>, int> = 0>
MSL_INLINED T insert_bits(T base, T insert, uint offset, uint bits) {
  typedef detail::unsigned_t<8 * sizeof(T)> U;
  const U mask = bits ? U(U(~U(0)) >> (8 * sizeof(T) - bits) << offset) : U(0);
  return T((U(base) & ~mask) | (U(U(insert) << (bits ? offset : 0)) & mask));
}
template <class A, class V = detail::vector_1<A>> MSL_INLINED V extract_bits(const A& x, uint offset, uint bits) {
  MSL_EACH(MSL_SAME, extract_bits(x.v[i], offset, bits))
}
template <class A, class B, class V = detail::vector_2<A, B>>
MSL_INLINED V insert_bits(const A& base, const B& insert, uint offset, uint bits) {
  MSL_EACH(MSL_SAME, insert_bits(MSL_AT(base), MSL_AT(insert), offset, bits))
}
template <class T, enable_if_t<is_integral_v<T>, int> = 0> MSL_INLINED auto absdiff(T a, T b) {
  typedef detail::unsigned_t<8 * sizeof(T)> U;
  return U(a < b ? U(b) - U(a) : U(a) - U(b));
}
template <class A, class B, class V = detail::vector_2<A, B>> MSL_INLINED auto absdiff(const A& a, const B& b) {
  MSL_EACH(detail::unsigned_t<8 * sizeof(MSL_SAME)>, absdiff(MSL_AT(a), MSL_AT(b)))
}

// What gives a second result through a reference, or takes an integer beside a float.
#define MSL_THROUGH_FLOAT(T)                                                     \
  MSL_INLINED T sincos(T x, T& cosine) {                                         \
    float c;                                                                     \
    const float s = sincos(float(x), c);                                         \
    cosine = T(c);                                                               \
    return T(s);                                                                 \
  }                                                                              \
  MSL_INLINED T modf(T x, T& whole) {                                            \
    whole = trunc(x);                                                            \
    return isinf(float(x)) ? copysign(T(0.0f), x) : copysign(T(x - whole), x);          \
  }                                                                              \
  MSL_INLINED T frexp(T x, int& exponent) { return T(frexp(float(x), exponent)); } \
  MSL_INLINED T ldexp(T x, int n) { return T(ldexp(float(x), n)); }              \
  MSL_INLINED int ilogb(T x) { return ilogb(float(x)); }
MSL_INLINED float modf(float x, float& whole) {
  whole = trunc(x);
  return isinf(x) ? copysign(0.0f, x) : copysign(x - whole, x);
}
MSL_THROUGH_FLOAT(half) MSL_THROUGH_FLOAT(bfloat)
#undef MSL_THROUGH_FLOAT
template <class A, class V = detail::vector_1<A>> MSL_INLINED V sincos(const A& x, V& cosine) {
  MSL_EACH(MSL_SAME, sincos(x.v[i], cosine.v[i]))
}
template <class A, class V = detail::vector_1<A>> MSL_INLINED V modf(const A& x, V& whole) {
  MSL_EACH(MSL_SAME, modf(x.v[i], whole.v[i]))
}
template <class A, class V = detail::vector_1<A>>
MSL_INLINED V frexp(const A& x, detail::with_type<int, V>& exponent) {
  MSL_EACH(MSL_SAME, frexp(x.v[i], exponent.v[i]))
}
template <class A, class B, class V = detail::vector_1<A>> MSL_INLINED V ldexp(const A& x, const B& n) {
  MSL_EACH(MSL_SAME, ldexp(x.v[i], detail::at<int>(n, i)))
}
template <class A, class V = detail::vector_1<A>> MSL_INLINED detail::with_type<int, V> ilogb(const A& x) {
  MSL_EACH(int, ilogb(x.v[i]))
}
// The neighbour of a towards b.
template <class T, enable_if_t<is_floating_point_v<T>, int> = 0> MSL_INLINED T nextafter(T a, T b) {
  typedef detail::unsigned_t<8 * sizeof(T)> U;
  if (isunordered(a, b)) return a + b;
  if (a == b) return b;
  const U sign = U(1) << (8 * sizeof(T) - 1), u = as_type<U>(a);
  if (a == T(0.0f)) return as_type<T>(U(U(as_type<U>(b) & sign) | 1));
  return as_type<T>(U((a < b) == (a > T(0.0f)) ? u + 1 : u - 1));
}
MSL_VECTORS_2(MSL_SAME, nextafter)

template <class A, class B, class V = detail::vector_2<A, B>> MSL_INLINED V cross(const A& a, const B& b) {
  static_assert(detail::operand<V>::n == 3, "a cross product is one of vectors of 3");
  return V(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x);
}
template <class A, class B, class V = detail::vector_2<A, B>> MSL_INLINED detail::component<V> distance(const A& a, const B& b) {
  return length(a - b);
}
template <class A, class B, class V = detail::vector_2<A, B>>
MSL_INLINED detail::component<V> distance_squared(const A& a, const B& b) {
  return length_squared(a - b);
}
template <class A, class B, class V = detail::vector_2<A, B>> MSL_INLINED V reflect(const A& x, const B& normal) {
  return x - normal * (dot(normal, x) * detail::component<V>(2.0f));
}
template <class A, class B, class V = detail::vector_2<A, B>>
MSL_INLINED V refract(const A& x, const B& normal, detail::component<V> eta) {
  typedef detail::component<V> T;
  const T cosine = dot(normal, x), k = T(1.0f) - eta * eta * (T(1.0f) - cosine * cosine);
  return k < T(0.0f) ? V(T(0.0f)) : V(x * eta - normal * T(eta * cosine + sqrt(k)));
}
template <class A, class B, class C, class V = detail::vector_3<A, B, C>>
MSL_INLINED V faceforward(const A& normal, const B& x, const C& reference) {
  return dot(x, reference) < detail::component<V>(0.0f) ? V(normal) : V(-normal);
}
