// vec<T, N> with swizzles and componentwise operators.
#pragma once
#include "types.h"

namespace metal {
#include "vector_members.h"

namespace detail {
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
}  // namespace detail

// Component by component, so that each access is checked.
#define MSL_COPIES(N)                          \
  MSL_INLINED vec(const vec& o) {              \
    for (int i = 0; i < N; i++) v[i] = o.v[i]; \
  }                                            \
  MSL_INLINED vec& operator=(const vec& o) {   \
    for (int i = 0; i < N; i++) v[i] = o.v[i]; \
    return *this;                              \
  }

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
  MSL_COPIES(2)
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
  MSL_COPIES(3)
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
  MSL_COPIES(4)
};
#undef MSL_VEC_MEMBERS
#undef MSL_COPIES

#define MSL_SWIZZLE_OPERAND(Result, op)                                           \
  template <class T, int N, class S, enable_if_t<detail::is_swizzle<S>, int> = 0> \
  MSL_INLINED vec<Result, N> operator op(const vec<T, N>& a, const S& s) {        \
    return a op detail::plain(s);                                                 \
  }
#include "vector_functions.h"
#undef MSL_SWIZZLE_OPERAND
}  // namespace metal
MSL_VECTOR_NAMES
