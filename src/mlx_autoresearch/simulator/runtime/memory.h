// The memories a kernel can reach, and the checks that need no history: which buffer or array an address lies in, bounds,
// alignment, writes to inputs. What is left goes to the shadow memory.
#pragma once
#include <cstddef>

#include "abi.h"

namespace sim {

constexpr size_t kThreadgroupLimit = 32 << 10;

enum class Kind { kRead, kWrite };

// Every access of an instrumented kernel comes here. `natural`: the access claims its natural alignment.
void check_access(const void* pointer, size_t bytes, Kind kind, bool natural, const void* address);

// One launch: copies the buffers between guard bands, fills the rest with 0xFF bytes (NaN in every float type).
void open_device_memory(MslLaunch& launch);
void** device_pointers();
// Copies the outputs back; reports changed inputs, damaged guard bands and unwritten outputs.
void close_device_memory(MslLaunch& launch);

// A launch begins: nothing is known of the arrays of the one before.
void forget_threadgroup_memory();

// One threadgroup begins: its arrays are not declared yet and hold garbage.
void reset_threadgroup_memory(bool checked);

}  // namespace sim
