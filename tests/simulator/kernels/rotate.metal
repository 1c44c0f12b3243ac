// Threads hand values on through device memory: each reads what its neighbour wrote.
const uint i = thread_position_in_grid.x, tid = thread_position_in_threadgroup.x;
doubled[i] = 2.0f * x[i];
threadgroup_barrier(mem_flags::mem_device);
y[i] = doubled[i - tid + (tid + 1) % 64];
