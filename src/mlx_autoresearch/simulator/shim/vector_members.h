// What the members of vec<T, N> are made of, in the simulator and in CUDA. The including file gives the namespace,
// MSL_INLINED (how a function is declared) and MSL_UNROLL (what stands before a loop of fixed length).
template <class T, int N> struct vec;

namespace detail {
template <class T> struct components { static constexpr int n = 1; };
template <class T, int N> struct components<vec<T, N>> { static constexpr int n = N; };

// Writes a constructor's argument, a scalar or a vector, behind those before it.
template <class T, class U> MSL_INLINED void append(T* to, int& k, const U& u) {
  if constexpr (components<U>::n == 1) {
    to[k++] = T(u);
  } else {
    MSL_UNROLL for (int i = 0; i < components<U>::n; i++) to[k++] = T(u[i]);
  }
}
}  // namespace detail

#define MSL_VEC_MEMBERS(N)                                                                                         \
  vec() = default;                                                                                                 \
  template <class S, enable_if_t<is_scalar_number<S>, int> = 0> MSL_INLINED vec(S s) {                             \
    MSL_UNROLL for (int i = 0; i < N; i++) v[i] = T(s);                                                            \
  }                                                                                                                \
  template <class U, enable_if_t<!is_same_v<U, T>, int> = 0> MSL_INLINED explicit vec(const vec<U, N>& o) {        \
    MSL_UNROLL for (int i = 0; i < N; i++) v[i] = T(o[i]);                                                         \
  }                                                                                                                \
  template <class A, class B, class... C> MSL_INLINED vec(const A& a, const B& b, const C&... c) {                 \
    static_assert(detail::components<A>::n + detail::components<B>::n + (0 + ... + detail::components<C>::n) == N, \
                  "wrong number of components");                                                                   \
    int k = 0;                                                                                                     \
    detail::append(v, k, a);                                                                                       \
    detail::append(v, k, b);                                                                                       \
    (detail::append(v, k, c), ...);                                                                                \
  }                                                                                                                \
  MSL_INLINED T& operator[](int i) { return v[i]; }                                                                \
  MSL_INLINED const T& operator[](int i) const { return v[i]; }
