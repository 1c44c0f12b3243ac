// Counts values 0 ... 15, first in threadgroup memory.
threadgroup atomic_uint bins[16];
const int n = x_shape[0], tid = int(thread_index_in_threadgroup);
if (tid < 16)
  atomic_store_explicit(&bins[tid], 0u, memory_order_relaxed);
threadgroup_barrier(mem_flags::mem_threadgroup);
const int i = int(thread_position_in_grid.x);
if (i < n)
  atomic_fetch_add_explicit(&bins[x[i]], 1u, memory_order_relaxed);
threadgroup_barrier(mem_flags::mem_threadgroup);
if (tid < 16)
  atomic_fetch_add_explicit(&counts[tid], atomic_load_explicit(&bins[tid], memory_order_relaxed), memory_order_relaxed);
