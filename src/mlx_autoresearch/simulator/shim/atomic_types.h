// The types of Metal's atomics, for the simulator and its static pass.
#pragma once
#include "scalars.h"

namespace metal {
enum memory_order { memory_order_relaxed };
template <class T> struct atomic { T value; };
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<float> atomic_float;
typedef atomic<bool> atomic_bool;
typedef atomic<ulong> atomic_ulong;
}  // namespace metal
