// Metal's scalar and vector types in CUDA, for GPUs from sm_80 on. An inline namespace: `float4` and `metal::float4` are
// both ours, whatever CUDA calls by that name in the global namespace.
#define MSL_CUDA 1
#define METAL_FUNC __device__ __forceinline__
#define METAL_CONST

#undef INFINITY
#undef NAN
#define INFINITY ::cuda::std::numeric_limits<float>::infinity()
#define NAN ::cuda::std::numeric_limits<float>::quiet_NaN()
#define MAXFLOAT 3.402823466e+38f
#define HUGE_VALF INFINITY
#ifndef FLT_MAX
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
#define FLT_EPSILON 1.192092896e-07f
#endif
#define HALF_MAX half(65504.0f)
#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_1_PI_F 0.318309886183790671538f
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.707106781186547524401f
#define M_E_F 2.71828182845904523536f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LN2_F 0.693147180559945309417f

namespace mlx::core::cu {
inline namespace metal {
using uchar = unsigned char;
using ushort = unsigned short;
using uint = unsigned int;
using ulong = unsigned long;
using half = __half;
using float16_t = __half;
using bfloat = __nv_bfloat16;
using bfloat16_t = __nv_bfloat16;

using ::cuda::std::conditional_t;
using ::cuda::std::enable_if_t;
using ::cuda::std::is_integral_v;
using ::cuda::std::is_same;
using ::cuda::std::is_same_v;
using ::cuda::std::numeric_limits;
using ::cuda::std::remove_cv_t;

template <class T> inline constexpr bool is_half_v = is_same_v<T, half> || is_same_v<T, bfloat>;
template <class T> inline constexpr bool is_floating_point_v = is_same_v<T, float> || is_half_v<T>;
template <class T> inline constexpr bool is_scalar_number = is_integral_v<T> || is_floating_point_v<T>;

template <class To, class From> METAL_FUNC To as_type(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "as_type: the sizes differ");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// A half or bfloat with a float gives a float, with an integer a half or bfloat: CUDA finds them ambiguous.
#define MSL_MIXED(op)                                                                             \
  template <class H, enable_if_t<is_half_v<H>, int> = 0> METAL_FUNC auto operator op(H a, float b) { \
    return float(a) op b;                                                                         \
  }                                                                                               \
  template <class H, enable_if_t<is_half_v<H>, int> = 0> METAL_FUNC auto operator op(float a, H b) { \
    return a op float(b);                                                                         \
  }                                                                                               \
  template <class H, class S, enable_if_t<is_half_v<H> && is_integral_v<S>, int> = 0>             \
  METAL_FUNC auto operator op(H a, S b) {                                                         \
    return a op H(float(b));                                                                      \
  }                                                                                               \
  template <class H, class S, enable_if_t<is_half_v<H> && is_integral_v<S>, int> = 0>             \
  METAL_FUNC auto operator op(S a, H b) {                                                         \
    return H(float(a)) op b;                                                                      \
  }
MSL_MIXED(+)
MSL_MIXED(-)
MSL_MIXED(*)
MSL_MIXED(/)
MSL_MIXED(<)
MSL_MIXED(>)
MSL_MIXED(<=)
MSL_MIXED(>=)
MSL_MIXED(==)
MSL_MIXED(!=)
#undef MSL_MIXED

template <class T, int N> struct vec;

namespace detail {
template <class T> struct components { static constexpr int n = 1; };
template <class T, int N> struct components<vec<T, N>> { static constexpr int n = N; };

// Writes a constructor's argument, a scalar or a vector, behind those before it.
template <class T, class U> METAL_FUNC void append(T* to, int& k, const U& u) {
  if constexpr (components<U>::n == 1) {
    to[k++] = T(u);
  } else {
#pragma unroll
    for (int i = 0; i < components<U>::n; i++) to[k++] = T(u[i]);
  }
}
}  // namespace detail

// Trivially copyable and aligned to its size, so that a vector is loaded and stored at once.
#define MSL_VEC_MEMBERS(N)                                                                                            \
  vec() = default;                                                                                                    \
  template <class S, enable_if_t<is_scalar_number<S>, int> = 0> METAL_FUNC vec(S s) {                                 \
    _Pragma("unroll") for (int i = 0; i < N; i++) v[i] = T(s);                                                        \
  }                                                                                                                   \
  template <class U, enable_if_t<!is_same_v<U, T>, int> = 0> METAL_FUNC explicit vec(const vec<U, N>& o) {            \
    _Pragma("unroll") for (int i = 0; i < N; i++) v[i] = T(o[i]);                                                     \
  }                                                                                                                   \
  template <class A, class B, class... C> METAL_FUNC vec(const A& a, const B& b, const C&... c) {                     \
    static_assert(detail::components<A>::n + detail::components<B>::n + (0 + ... + detail::components<C>::n) == N,    \
                  "wrong number of components");                                                                      \
    int k = 0;                                                                                                        \
    detail::append(v, k, a);                                                                                          \
    detail::append(v, k, b);                                                                                          \
    (detail::append(v, k, c), ...);                                                                                   \
  }                                                                                                                   \
  METAL_FUNC T& operator[](int i) { return v[i]; }                                                                    \
  METAL_FUNC const T& operator[](int i) const { return v[i]; }

template <class T> struct alignas(2 * sizeof(T)) vec<T, 2> {
  union {
    T v[2];
    struct { T x, y; };
    struct { T r, g; };
  };
  MSL_VEC_MEMBERS(2)
};
template <class T> struct alignas(4 * sizeof(T)) vec<T, 3> {
  union {
    T v[3];
    struct { T x, y, z; };
    struct { T r, g, b; };
  };
  MSL_VEC_MEMBERS(3)
};
template <class T> struct alignas(4 * sizeof(T)) vec<T, 4> {
  union {
    T v[4];
    struct { T x, y, z, w; };
    struct { T r, g, b, a; };
  };
  MSL_VEC_MEMBERS(4)
};
#undef MSL_VEC_MEMBERS

// The components without padding or alignment.
template <class T, int N> struct packed_vec {
  T v[N];
  packed_vec() = default;
  METAL_FUNC packed_vec(const vec<T, N>& o) {
    for (int i = 0; i < N; i++) v[i] = o[i];
  }
  METAL_FUNC operator vec<T, N>() const {
    vec<T, N> r;
    for (int i = 0; i < N; i++) r[i] = v[i];
    return r;
  }
  METAL_FUNC T& operator[](int i) { return v[i]; }
  METAL_FUNC const T& operator[](int i) const { return v[i]; }
};

#define MSL_VEC_NAMES(T)  \
  using T##2 = vec<T, 2>; \
  using T##3 = vec<T, 3>; \
  using T##4 = vec<T, 4>;
#define MSL_PACKED_NAMES(T)             \
  using packed_##T##2 = packed_vec<T, 2>; \
  using packed_##T##3 = packed_vec<T, 3>; \
  using packed_##T##4 = packed_vec<T, 4>;
#define MSL_ALL_NAMES(M) M(float) M(half) M(bfloat) M(int) M(uint) M(short) M(ushort) M(char) M(uchar) M(long) M(ulong)
MSL_ALL_NAMES(MSL_VEC_NAMES)
MSL_VEC_NAMES(bool)
MSL_ALL_NAMES(MSL_PACKED_NAMES)
#undef MSL_ALL_NAMES
#undef MSL_PACKED_NAMES
#undef MSL_VEC_NAMES

// Componentwise: two vectors, a vector and a scalar, a scalar and a vector.
#define MSL_COMPONENTWISE(Result, op)                                                                \
  template <class T, int N> METAL_FUNC vec<Result, N> operator op(const vec<T, N>& a, const vec<T, N>& b) { \
    vec<Result, N> r;                                                                                \
    _Pragma("unroll") for (int i = 0; i < N; i++) r[i] = Result(a[i] op b[i]);                       \
    return r;                                                                                        \
  }                                                                                                  \
  template <class T, int N, class S, enable_if_t<is_scalar_number<S>, int> = 0>                      \
  METAL_FUNC vec<Result, N> operator op(const vec<T, N>& a, S s) {                                   \
    return a op vec<T, N>(s);                                                                        \
  }                                                                                                  \
  template <class T, int N, class S, enable_if_t<is_scalar_number<S>, int> = 0>                      \
  METAL_FUNC vec<Result, N> operator op(S s, const vec<T, N>& a) {                                   \
    return vec<T, N>(s) op a;                                                                        \
  }
#define MSL_BINARY(op)                                                                             \
  MSL_COMPONENTWISE(T, op)                                                                         \
  template <class T, int N, class S> METAL_FUNC vec<T, N>& operator op##=(vec<T, N>& a, const S& s) { \
    return a = a op s;                                                                             \
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
MSL_COMPONENTWISE(bool, <)
MSL_COMPONENTWISE(bool, >)
MSL_COMPONENTWISE(bool, <=)
MSL_COMPONENTWISE(bool, >=)
MSL_COMPONENTWISE(bool, ==)
MSL_COMPONENTWISE(bool, !=)
#undef MSL_BINARY
#undef MSL_COMPONENTWISE

#define MSL_UNARY(Result, op)                                                     \
  template <class T, int N> METAL_FUNC vec<Result, N> operator op(const vec<T, N>& a) { \
    vec<Result, N> r;                                                             \
    _Pragma("unroll") for (int i = 0; i < N; i++) r[i] = Result(op a[i]);         \
    return r;                                                                     \
  }
MSL_UNARY(T, -)
MSL_UNARY(T, ~)
MSL_UNARY(bool, !)
#undef MSL_UNARY
}  // namespace metal
}  // namespace mlx::core::cu
