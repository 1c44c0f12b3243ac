// vec<T, N> and packed_vec<T, N>, in the simulator and in CUDA. The including file gives the namespace, MSL_INLINED (how
// a function is declared), MSL_UNROLL (what stands before a loop of fixed length) and MSL_COPIES(vec), a vector's copying
// members, or nothing. MSL_SWIZZLES_2 to _4 are the swizzles that the kernel names: translation.py writes these lists.
#ifndef MSL_SWIZZLES_2
#define MSL_SWIZZLES_2(S)
#define MSL_SWIZZLES_3(S)
#define MSL_SWIZZLES_4(S)
#endif
template <class T, int N> struct vec;
template <class T, int N> struct packed_vec;

namespace detail {
#include "operands.h"
template <class T, int N> struct operand<packed_vec<T, N>> : operand<vec<T, N>> {};

// Component i of an operand, as a T.
template <class T, class A> MSL_INLINED T at(const A& a, int i) {
  if constexpr (operand<A>::n == 1) return T(a);
  else return T(a.v[i]);
}

// Components that are assigned to: `v.zx = ...`, of which no two may be the same.
template <class T, int... I> struct part {
  typedef vec<T, sizeof...(I)> value;
  T* v;
  MSL_INLINED value operator=(const value& from) {
    static_assert(((1 << I) + ...) == ((1 << I) | ...), "a swizzle that repeats a component cannot be assigned to");
    int k = 0;
    ((v[I] = from.v[k++]), ...);
    return from;
  }
#define MSL_UPDATE(op) \
  template <class A> MSL_INLINED value operator op##=(const A& a) { return *this = value(v[I]...) op a; }
  MSL_UPDATE(+) MSL_UPDATE(-) MSL_UPDATE(*) MSL_UPDATE(/) MSL_UPDATE(%)
  MSL_UPDATE(&) MSL_UPDATE(|) MSL_UPDATE(^) MSL_UPDATE(<<) MSL_UPDATE(>>)
#undef MSL_UPDATE
};
template <int... I, class T> MSL_INLINED auto pick(const T* v) { return vec<T, sizeof...(I)>(v[I]...); }

// The components under all their names. `v.zx` stands in a kernel's translation as a call.
#define MSL_SWIZZLE(name, ...)                                                         \
  MSL_INLINED auto name() const { return detail::pick<__VA_ARGS__>(v); }               \
  MSL_INLINED detail::part<T, __VA_ARGS__> assigned_##name() & { return {v}; }
template <class T, int N> struct components;
template <class T> struct components<T, 2> {
  union {
    T v[2];
    struct { T x, y; };
    struct { T r, g; };
  };
  MSL_SWIZZLES_2(MSL_SWIZZLE)
};
template <class T> struct components<T, 3> {
  union {
    T v[3];
    struct { T x, y, z; };
    struct { T r, g, b; };
  };
  MSL_SWIZZLES_3(MSL_SWIZZLE)
};
template <class T> struct components<T, 4> {
  union {
    T v[4];
    struct { T x, y, z, w; };
    struct { T r, g, b, a; };
  };
  MSL_SWIZZLES_4(MSL_SWIZZLE)
};
#undef MSL_SWIZZLE
}  // namespace detail

#define MSL_VECTOR_MEMBERS(vec, other)                                                                            \
  using detail::components<T, N>::v;                                                                              \
  vec() = default;                                                                                                \
  MSL_COPIES(vec)                                                                                                 \
  template <class S, enable_if_t<is_scalar_number<S>, int> = 0> MSL_INLINED vec(S s) {                            \
    MSL_UNROLL for (int i = 0; i < N; i++) v[i] = T(s);                                                           \
  }                                                                                                               \
  MSL_INLINED vec(const other<T, N>& o) {                                                                         \
    MSL_UNROLL for (int i = 0; i < N; i++) v[i] = o.v[i];                                                         \
  }                                                                                                               \
  template <class A, enable_if_t<detail::operand<A>::n == N && !is_same_v<detail::component<A>, T>, int> = 0>     \
  MSL_INLINED explicit vec(const A& o) {                                                                          \
    MSL_UNROLL for (int i = 0; i < N; i++) v[i] = T(o.v[i]);                                                      \
  }                                                                                                               \
  template <class A, class B, class... C> MSL_INLINED vec(const A& a, const B& b, const C&... c) {                \
    static_assert(detail::operand<A>::n + detail::operand<B>::n + (0 + ... + detail::operand<C>::n) == N,         \
                  "wrong number of components");                                                                  \
    int k = 0;                                                                                                    \
    append(k, a);                                                                                                 \
    append(k, b);                                                                                                 \
    (append(k, c), ...);                                                                                          \
  }                                                                                                               \
  template <class A> MSL_INLINED void append(int& k, const A& a) {                                                \
    MSL_UNROLL for (int i = 0; i < detail::operand<A>::n; i++) v[k++] = detail::at<T>(a, i);                      \
  }                                                                                                               \
  MSL_INLINED T& operator[](int i) { return v[i]; }                                                               \
  MSL_INLINED const T& operator[](int i) const { return v[i]; }

template <class T, int N> struct alignas((N == 3 ? 4 : N) * sizeof(T)) vec : detail::components<T, N> {
  MSL_VECTOR_MEMBERS(vec, packed_vec)
};
// packed_float3 and the like: the components without padding or alignment.
template <class T, int N> struct packed_vec : detail::components<T, N> {
  MSL_VECTOR_MEMBERS(packed_vec, vec)
};
#undef MSL_VECTOR_MEMBERS
