// Lanes hand values on through threadgroup memory, ordered by a simdgroup barrier alone.
threadgroup float t[64];
const uint i = thread_position_in_grid.x, tid = thread_index_in_threadgroup, lane = thread_index_in_simdgroup;
t[tid] = x[i];
simdgroup_barrier(mem_flags::mem_threadgroup);
const float other = t[tid - lane + 31 - lane];
const float quad = quad_sum(x[i]);
const float half_sum = quad + simd_shuffle_xor(quad, 4);
const float pair = half_sum + simd_shuffle_xor(half_sum, 8);
y[i] = other + pair + simd_shuffle_xor(pair, 16);
