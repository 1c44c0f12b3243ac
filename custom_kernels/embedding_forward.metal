// out[i] = weight[ids[i]], rounded: rows of (V, C) in float32 for tokens (rows,). Launch contract: README.md.
#include "packs.h"

// kernel body
const int rows = ids_shape[0], C = weight_shape[1];
const int row = int(thread_position_in_grid.x) / 32, lane = int(thread_position_in_grid.x) % 32;
if (row >= rows)
  return;
const device float* from = weight + long(ids[row]) * C;
device T* to = out + long(row) * C;
for (int i = lane * N; i < C; i += 32 * N) {
  float values[N];
  Pack<float, N>::load(from + i, values);
  Pack<T, N>::store(to + i, values);
}
