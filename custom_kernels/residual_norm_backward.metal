// The gradient of (s, n = s / sqrt(mean(s^2) + eps)) in s. Mathematics and launch contract: README.md.
#include "packs.h"
#include "norm.h"

// kernel body
const int rows = s_shape[0], C = s_shape[1];
const int row = int(thread_position_in_grid.x) / 32, lane = int(thread_position_in_grid.x) % 32;
if (row >= rows)
  return;
const long start = long(row) * C;
float v[VALUES], g[VALUES], d[VALUES], squares = 0.0f, products = 0.0f;
for (int chunk = 0; chunk < CHUNKS; chunk++) {
  const int first = chunk * VALUES * 32 + lane * N;
  load_part<N, VALUES>(s + start, C, first, v);
  load_part<N, VALUES>(dn + start, C, first, g);
#pragma unroll
  for (int j = 0; j < VALUES; j++) {
    squares += v[j] * v[j];
    products += v[j] * g[j];
  }
}
squares = simd_sum(squares);
products = simd_sum(products);
const float r = metal::rsqrt(squares / C + eps[0]);
const float along = r * r * products / C;  // the part of the gradient that only lengthens s
for (int chunk = 0; chunk < CHUNKS; chunk++) {
  const int first = chunk * VALUES * 32 + lane * N;
  if (CHUNKS > 1) {
    load_part<N, VALUES>(s + start, C, first, v);
    load_part<N, VALUES>(dn + start, C, first, g);
  }
  load_part<N, VALUES>(ds + start, C, first, d);
#pragma unroll
  for (int j = 0; j < VALUES; j++)
    d[j] += r * (g[j] - v[j] * along);
  store_part<N, VALUES>(dx + start, C, first, d);
}
