// The Metal Shading Language for a CPU: everything a kernel may use. The simulator puts this before the kernel.
#pragma once
#include "atomics.h"
#include "collectives.h"
#include "math.h"
#include "matrix.h"
#include "mlx.h"
#include "types.h"
#include "vector.h"

namespace msl {
template <class T> struct element { typedef T type; };
template <class T, size_t N> struct element<T[N]> { typedef typename element<T>::type type; };
// `threadgroup T name;` becomes a reference to memory that the runtime gives to declaration `id`.
template <class T, size_t alignment = 1> inline T& threadgroup_array(int id, const char* name, MSL_SITE) {
  constexpr size_t aligned = alignment > alignof(T) ? alignment : alignof(T);
  return *static_cast<T*>(msl_threadgroup_array(id, sizeof(T), aligned, sizeof(typename element<T>::type), name, site));
}
}  // namespace msl

// For headers that the static pass reads too, without the functions' bodies.
#define MSL_BODY(...) __VA_ARGS__
// Address spaces mean nothing on a CPU: lint.h checks them.
#define device
#define constant
#define thread
#define threadgroup
#define kernel
#define double double_is_not_a_metal_type
