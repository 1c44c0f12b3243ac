// s = a x + b y and n = s / sqrt(mean(s^2) + eps) of (rows, C). Mathematics and launch contract: README.md.
#include "packs.h"
#include "norm.h"

// kernel body
const int rows = x_shape[0], C = x_shape[1];
const int row = int(thread_position_in_grid.x) / 32, lane = int(thread_position_in_grid.x) % 32;
if (row >= rows)
  return;
const long start = long(row) * C;
float v[VALUES], w[VALUES], squares = 0.0f;
for (int chunk = 0; chunk < CHUNKS; chunk++) {
  const int first = chunk * VALUES * 32 + lane * N;
  load_part<N, VALUES>(x + start, C, first, v);
  load_part<N, VALUES>(y + start, C, first, w);
  mix<VALUES>(float(a[0]), float(b[0]), v, w);
#pragma unroll
  for (int j = 0; j < VALUES; j++)
    squares += v[j] * v[j];
  store_part<N, VALUES>(s + start, C, first, v);
}
squares = simd_sum(squares);
const float r = metal::rsqrt(squares / C + eps[0]);
for (int chunk = 0; chunk < CHUNKS; chunk++) {
  const int first = chunk * VALUES * 32 + lane * N;
  if (CHUNKS > 1) {
    load_part<N, VALUES>(x + start, C, first, v);
    load_part<N, VALUES>(y + start, C, first, w);
    mix<VALUES>(float(a[0]), float(b[0]), v, w);
  }
#pragma unroll
  for (int j = 0; j < VALUES; j++)
    v[j] *= r;
  store_part<N, VALUES>(n + start, C, first, v);
}
