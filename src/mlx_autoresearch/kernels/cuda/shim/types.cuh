// Metal's scalar and vector types in CUDA, for GPUs from sm_80 on. An inline namespace: `float4` and `metal::float4` are
// both ours, whatever CUDA calls by that name in the global namespace.
#define MSL_CUDA 1
#define METAL_FUNC __device__ __forceinline__
#define METAL_CONST
#define MSL_INLINED METAL_FUNC
#define MSL_UNROLL _Pragma("unroll")

#undef INFINITY
#undef NAN
#define INFINITY ::cuda::std::numeric_limits<float>::infinity()
#define NAN ::cuda::std::numeric_limits<float>::quiet_NaN()
#include "constants.h"

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
using ::cuda::std::enable_if;
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

// Trivially copyable and aligned to its size, so that a vector is loaded and stored at once.
#define MSL_COPIES(vec)
#include "vector_members.h"
#include "vector_functions.h"
MSL_VECTOR_NAMES
}  // namespace metal
}  // namespace mlx::core::cu
