// The place in the kernel that calls a function of the shim.
#pragma once
#include "../runtime/abi.h"

#if defined(__clang__)
#define MSL_COLUMN __builtin_COLUMN()
#else
#define MSL_COLUMN 0
#endif
// As a default argument: the place in the kernel that calls.
constexpr MslSite msl_here(const char* file = __builtin_FILE(), msl_u32 line = __builtin_LINE(), msl_u32 column = MSL_COLUMN) {
  return MslSite{file, line, column};
}
#define MSL_SITE MslSite site = msl_here()
