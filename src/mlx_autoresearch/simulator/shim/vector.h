// vec<T, N> and packed_vec<T, N> for a CPU.
#pragma once
#include "types.h"

namespace metal {
// Component by component, so that each access is checked.
#define MSL_COPIES(vec)                        \
  MSL_INLINED vec(const vec& o) {              \
    for (int i = 0; i < N; i++) v[i] = o.v[i]; \
  }                                            \
  MSL_INLINED vec& operator=(const vec& o) & { \
    for (int i = 0; i < N; i++) v[i] = o.v[i]; \
    return *this;                              \
  }
#include "vector_members.h"
#undef MSL_COPIES
#include "vector_functions.h"
}  // namespace metal
MSL_VECTOR_NAMES
