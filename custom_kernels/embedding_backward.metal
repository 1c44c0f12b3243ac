// The gradient of embedding_forward in its weight: each token's rows of dy, summed in float32 in the order of `order`.
// Mathematics and launch contract: README.md.
#include "packs.h"

// kernel body
// A threadgroup has 16 N columns of one token: LANES threads side by side, PARTS of them on each column.
constexpr int LANES = 16, PARTS = 8;
const int C = dy_shape[1], token = int(threadgroup_position_in_grid.x), tid = int(thread_index_in_threadgroup);
const int lane = tid % LANES, part = tid / LANES;
const int column = (int(threadgroup_position_in_grid.y) * LANES + lane) * N;
const int begin = token > 0 ? ends[token - 1] : 0, end = ends[token];
float sum[N];
#pragma unroll
for (int e = 0; e < N; e++)
  sum[e] = 0.0f;
if (column < C) {
#pragma unroll 4
  for (int i = begin + part; i < end; i += PARTS) {
    float values[N];
    Pack<T, N>::load(dy + long(order[i]) * C + column, values);
#pragma unroll
    for (int e = 0; e < N; e++)
      sum[e] += values[e];
  }
}
threadgroup float sums[LANES * PARTS * N];
#pragma unroll
for (int e = 0; e < N; e++)
  sums[tid * N + e] = sum[e];
threadgroup_barrier(mem_flags::mem_threadgroup);
if (part == 0 && column < C) {
#pragma unroll
  for (int e = 0; e < N; e++) {
    for (int other = 1; other < PARTS; other++)
      sum[e] += sums[(other * LANES + lane) * N + e];
  }
  Pack<float, N>::store(d_weight + long(token) * C + column, sum);
}
