// Quad operations but reductions and shuffles, included where a kernel names one of them.
#pragma once
#include "collectives.h"

namespace metal {
MSL_GROUP(quad, kQuadWidth, ushort)
}  // namespace metal
