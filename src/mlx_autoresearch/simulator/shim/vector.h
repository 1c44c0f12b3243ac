// vec<T, N> with swizzles and componentwise operators.
#pragma once
#include "types.h"

namespace metal {
template <class T, int N> struct vec;

namespace detail {
template <class T> struct components { static constexpr int n = 1; };
template <class T, int N> struct components<vec<T, N>> { static constexpr int n = N; };

// v.zx and the like: a view of some components, living in a union with them.
template <class T, int N, int... I> struct swizzle {
  T v[N];
  static constexpr int K = sizeof...(I);
  MSL_INLINED operator vec<T, K>() const { return vec<T, K>(v[I]...); }
  MSL_INLINED swizzle& operator=(const vec<T, K>& value) {
    int k = 0;
    ((v[I] = value[k++]), ...);
    return *this;
  }
  MSL_INLINED swizzle& operator=(const swizzle& other) { return *this = vec<T, K>(other); }
  template <class U> swizzle& operator+=(const U& u) { return *this = vec<T, K>(*this) + u; }
  template <class U> swizzle& operator-=(const U& u) { return *this = vec<T, K>(*this) - u; }
  template <class U> swizzle& operator*=(const U& u) { return *this = vec<T, K>(*this) * u; }
  template <class U> vec<T, K> operator+(const U& u) const { return vec<T, K>(*this) + u; }
  template <class U> vec<T, K> operator-(const U& u) const { return vec<T, K>(*this) - u; }
  template <class U> vec<T, K> operator*(const U& u) const { return vec<T, K>(*this) * u; }
  MSL_INLINED T operator[](int i) const { return vec<T, K>(*this)[i]; }
};
template <class T, int N, int... I> struct components<swizzle<T, N, I...>> { static constexpr int n = sizeof...(I); };

// Templates on vec<T, N> do not see through a swizzle: overloads for the types below convert it first.
template <class S> inline constexpr bool is_swizzle = false;
template <class T, int N, int... I> inline constexpr bool is_swizzle<swizzle<T, N, I...>> = true;
template <class T> MSL_INLINED const T& plain(const T& x) { return x; }
template <class T, int N, int... I> MSL_INLINED vec<T, sizeof...(I)> plain(const swizzle<T, N, I...>& s) { return s; }

// Writes a constructor's argument, a scalar or a vector, behind those before it.
template <class T, class U> MSL_INLINED void append(T* to, int& k, const U& u) {
  if constexpr (components<U>::n == 1) {
    to[k++] = T(u);
  } else {
    for (int i = 0; i < components<U>::n; i++) to[k++] = T(u[i]);
  }
}
}  // namespace detail

#define MSL_VEC_MEMBERS(N)                                                                                         \
  vec() = default;                                                                                                 \
  MSL_INLINED vec(const vec& o) {                                                                                  \
    for (int i = 0; i < N; i++) v[i] = o.v[i];                                                                     \
  }                                                                                                                \
  MSL_INLINED vec& operator=(const vec& o) {                                                                       \
    for (int i = 0; i < N; i++) v[i] = o.v[i];                                                                     \
    return *this;                                                                                                  \
  }                                                                                                                \
  template <class S, enable_if_t<is_scalar_number<S>, int> = 0> MSL_INLINED vec(S s) {                             \
    for (int i = 0; i < N; i++) v[i] = T(s);                                                                       \
  }                                                                                                                \
  template <class U, enable_if_t<!is_same_v<U, T>, int> = 0> MSL_INLINED explicit vec(const vec<U, N>& o) {        \
    for (int i = 0; i < N; i++) v[i] = T(o[i]);                                                                    \
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

// Add a swizzle that a kernel needs to these lists.
template <class T> struct alignas(sizeof(T) * 2) vec<T, 2> {
  union {
    T v[2];
    struct { T x, y; };
    struct { T r, g; };
    detail::swizzle<T, 2, 0, 0> xx;
    detail::swizzle<T, 2, 0, 1> xy;
    detail::swizzle<T, 2, 1, 0> yx;
    detail::swizzle<T, 2, 1, 1> yy;
  };
  MSL_VEC_MEMBERS(2)
};
template <class T> struct alignas(sizeof(T) * 4) vec<T, 3> {
  union {
    T v[4];
    struct { T x, y, z; };
    struct { T r, g, b; };
    detail::swizzle<T, 4, 0, 0> xx;
    detail::swizzle<T, 4, 0, 1> xy;
    detail::swizzle<T, 4, 0, 2> xz;
    detail::swizzle<T, 4, 1, 0> yx;
    detail::swizzle<T, 4, 1, 2> yz;
    detail::swizzle<T, 4, 2, 0> zx;
    detail::swizzle<T, 4, 2, 1> zy;
    detail::swizzle<T, 4, 0, 1, 2> xyz;
    detail::swizzle<T, 4, 1, 2, 0> yzx;
    detail::swizzle<T, 4, 2, 0, 1> zxy;
    detail::swizzle<T, 4, 2, 1, 0> zyx;
  };
  MSL_VEC_MEMBERS(3)
};
template <class T> struct alignas(sizeof(T) * 4) vec<T, 4> {
  union {
    T v[4];
    struct { T x, y, z, w; };
    struct { T r, g, b, a; };
    detail::swizzle<T, 4, 0, 1> xy;
    detail::swizzle<T, 4, 0, 2> xz;
    detail::swizzle<T, 4, 0, 3> xw;
    detail::swizzle<T, 4, 1, 0> yx;
    detail::swizzle<T, 4, 1, 2> yz;
    detail::swizzle<T, 4, 1, 3> yw;
    detail::swizzle<T, 4, 2, 3> zw;
    detail::swizzle<T, 4, 3, 2> wz;
    detail::swizzle<T, 4, 0, 1, 2> xyz;
    detail::swizzle<T, 4, 0, 1, 2> rgb;
    detail::swizzle<T, 4, 1, 2, 3> yzw;
    detail::swizzle<T, 4, 2, 1, 0> zyx;
    detail::swizzle<T, 4, 0, 1, 2, 3> xyzw;
    detail::swizzle<T, 4, 1, 0, 3, 2> yxwz;
    detail::swizzle<T, 4, 2, 3, 0, 1> zwxy;
    detail::swizzle<T, 4, 3, 2, 1, 0> wzyx;
  };
  MSL_VEC_MEMBERS(4)
};
#undef MSL_VEC_MEMBERS

// packed_float3 and the like: the components without padding or alignment.
template <class T, int N> struct packed_vec {
  T v[N];
  packed_vec() = default;
  MSL_INLINED packed_vec(const vec<T, N>& o) {
    for (int i = 0; i < N; i++) v[i] = o[i];
  }
  MSL_INLINED operator vec<T, N>() const {
    vec<T, N> r;
    for (int i = 0; i < N; i++) r[i] = v[i];
    return r;
  }
  MSL_INLINED T& operator[](int i) { return v[i]; }
  MSL_INLINED const T& operator[](int i) const { return v[i]; }
};

#define MSL_BINARY(op)                                                                                  \
  template <class T, int N> MSL_INLINED vec<T, N> operator op(const vec<T, N>& a, const vec<T, N>& b) { \
    vec<T, N> r;                                                                                        \
    for (int i = 0; i < N; i++) r.v[i] = T(a.v[i] op b.v[i]);                                           \
    return r;                                                                                           \
  }                                                                                                     \
  template <class T, int N, class S, enable_if_t<is_scalar_number<S>, int> = 0>                         \
  MSL_INLINED vec<T, N> operator op(const vec<T, N>& a, S s) {                                          \
    return a op vec<T, N>(s);                                                                           \
  }                                                                                                     \
  template <class T, int N, class S, enable_if_t<is_scalar_number<S>, int> = 0>                         \
  MSL_INLINED vec<T, N> operator op(S s, const vec<T, N>& a) {                                          \
    return vec<T, N>(s) op a;                                                                           \
  }                                                                                                     \
  template <class T, int N, class S, enable_if_t<detail::is_swizzle<S>, int> = 0>                       \
  MSL_INLINED vec<T, N> operator op(const vec<T, N>& a, const S& s) {                                   \
    return a op detail::plain(s);                                                                       \
  }                                                                                                     \
  template <class T, int N, class S> MSL_INLINED vec<T, N>& operator op##=(vec<T, N>& a, const S& s) {  \
    return a = a op s;                                                                                  \
  }
MSL_BINARY(+)
MSL_BINARY(-)
MSL_BINARY(*)
MSL_BINARY(/)
MSL_BINARY(%)
MSL_BINARY(&)
MSL_BINARY(|)
MSL_BINARY(^)
MSL_BINARY(<<)
MSL_BINARY(>>)
#undef MSL_BINARY

#define MSL_COMPARISON(op)                                                                                 \
  template <class T, int N> MSL_INLINED vec<bool, N> operator op(const vec<T, N>& a, const vec<T, N>& b) { \
    vec<bool, N> r;                                                                                        \
    for (int i = 0; i < N; i++) r.v[i] = a.v[i] op b.v[i];                                                 \
    return r;                                                                                              \
  }                                                                                                        \
  template <class T, int N, class S, enable_if_t<is_scalar_number<S>, int> = 0>                            \
  MSL_INLINED vec<bool, N> operator op(const vec<T, N>& a, S s) {                                          \
    return a op vec<T, N>(s);                                                                              \
  }
MSL_COMPARISON(<)
MSL_COMPARISON(>)
MSL_COMPARISON(<=)
MSL_COMPARISON(>=)
MSL_COMPARISON(==)
MSL_COMPARISON(!=)
#undef MSL_COMPARISON

template <class T, int N> MSL_INLINED vec<T, N> operator-(const vec<T, N>& a) {
  vec<T, N> r;
  for (int i = 0; i < N; i++) r.v[i] = T(-a.v[i]);
  return r;
}
template <class T, int N> MSL_INLINED vec<T, N> operator~(const vec<T, N>& a) {
  vec<T, N> r;
  for (int i = 0; i < N; i++) r.v[i] = T(~a.v[i]);
  return r;
}
template <int N> MSL_INLINED vec<bool, N> operator!(const vec<bool, N>& a) {
  vec<bool, N> r;
  for (int i = 0; i < N; i++) r.v[i] = !a.v[i];
  return r;
}
}  // namespace metal

#define MSL_VEC_NAMES(T)         \
  typedef metal::vec<T, 2> T##2; \
  typedef metal::vec<T, 3> T##3; \
  typedef metal::vec<T, 4> T##4;
#define MSL_PACKED_NAMES(T)                      \
  typedef metal::packed_vec<T, 2> packed_##T##2; \
  typedef metal::packed_vec<T, 3> packed_##T##3; \
  typedef metal::packed_vec<T, 4> packed_##T##4;
#define MSL_ALL_NAMES(M) M(float) M(half) M(bfloat) M(int) M(uint) M(short) M(ushort) M(char) M(uchar) M(long) M(ulong)
MSL_ALL_NAMES(MSL_VEC_NAMES)
MSL_VEC_NAMES(bool)
MSL_ALL_NAMES(MSL_PACKED_NAMES)
