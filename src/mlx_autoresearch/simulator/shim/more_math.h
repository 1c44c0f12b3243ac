// more_functions.h for a CPU.
#pragma once
#include "math.h"

namespace metal {
#include "more_functions.h"
}  // namespace metal
