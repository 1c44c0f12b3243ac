// The helpers that MLX puts before every custom kernel (mlx/backend/metal/kernels/utils.h), written for the simulator.
#pragma once
#include "math.h"

template <class U> struct Limits {
  static constexpr U max = metal::numeric_limits<U>::max();
  static constexpr U min = metal::numeric_limits<U>::min();
  static constexpr U finite_max = metal::numeric_limits<U>::max();
  static constexpr U finite_min = metal::numeric_limits<U>::min();
};
#define MSL_FLOAT_LIMITS(T)                                                       \
  template <> struct Limits<T> {                                                  \
    static constexpr T max = T(INFINITY);                                      \
    static constexpr T min = T(-INFINITY);                                     \
    static constexpr T finite_max = metal::numeric_limits<T>::max();           \
    static constexpr T finite_min = metal::numeric_limits<T>::lowest();        \
  };
MSL_FLOAT_LIMITS(float)
MSL_FLOAT_LIMITS(half)
MSL_FLOAT_LIMITS(bfloat)
#undef MSL_FLOAT_LIMITS

template <typename T, typename U> inline T ceildiv(T n, U m) { return T((n + m - 1) / m); }

// The place of element `elem`, counted in row-major order, in an array of any strides.
template <typename I = int64_t> inline I elem_to_loc(I elem, const int* shape, const int64_t* strides, int ndim) {
  I place = 0;
  for (int d = ndim - 1; d >= 0 && elem > 0; --d) {
    place += (elem % shape[d]) * I(strides[d]);
    elem /= shape[d];
  }
  return place;
}
template <typename I = int64_t> inline I elem_to_loc(uint3 elem, const int* shape, const int64_t* strides, int ndim) {
  I place = elem.x * I(strides[ndim - 1]) + elem.y * I(strides[ndim - 2]);
  for (int d = ndim - 3; d >= 0; --d) {
    place += (elem.z % shape[d]) * I(strides[d]);
    elem.z /= shape[d];
  }
  return place;
}
template <typename I = int64_t> inline I elem_to_loc_1(uint elem, const int64_t& stride) { return elem * I(stride); }
template <typename I = int64_t> inline I elem_to_loc_2(uint2 elem, const int64_t strides[2]) {
  return elem.x * I(strides[1]) + elem.y * I(strides[0]);
}
template <typename I = int64_t> inline I elem_to_loc_3(uint3 elem, const int64_t strides[3]) {
  return elem.x * I(strides[2]) + elem.y * I(strides[1]) + elem.z * I(strides[0]);
}
