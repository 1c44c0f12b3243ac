// One threadgroup sums one row: each simdgroup its share, the first simdgroup the shares.
threadgroup float partial[32];
const uint lane = thread_index_in_simdgroup, sg = simdgroup_index_in_threadgroup;
const int n = x_shape[1], row = int(threadgroup_position_in_grid.y);
float s = 0.0f;
for (int i = int(thread_position_in_threadgroup.x); i < n; i += int(threads_per_threadgroup.x))
  s += x[row * n + i];
s = simd_sum(s);
if (lane == 0)
  partial[sg] = s;
threadgroup_barrier(mem_flags::mem_threadgroup);
if (sg == 0) {
  s = simd_sum(lane < simdgroups_per_threadgroup ? partial[lane] : 0.0f);
  if (lane == 0)
    y[row] = s;
}
