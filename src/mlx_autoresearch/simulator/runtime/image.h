// The kernel's library in memory: its code, and the constants that it may read.
#pragma once

namespace sim {

// Of the library that holds `entry`.
void set_kernel_image(const void* entry);
bool in_kernel_image(const void* p);
const void* relative_to_image(const void* p);

}  // namespace sim
