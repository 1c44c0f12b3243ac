// The gradients of s = a x + b y, n = s / sqrt(mean(s^2) + eps) in x, y and, row by row, in a and b.
// Mathematics and launch contract: README.md.
#include "packs.h"
#include "norm.h"

// kernel body
const int rows = x_shape[0], C = x_shape[1];
const int row = int(thread_position_in_grid.x) / 32, lane = int(thread_position_in_grid.x) % 32;
if (row >= rows)
  return;
const long start = long(row) * C;
float v[VALUES], w[VALUES], g[VALUES], squares = 0.0f, products = 0.0f;
for (int chunk = 0; chunk < CHUNKS; chunk++) {
  const int first = chunk * VALUES * 32 + lane * N;
  load_part<N, VALUES>(x + start, C, first, v);
  load_part<N, VALUES>(y + start, C, first, w);
  load_part<N, VALUES>(dn + start, C, first, g);
  mix<VALUES>(float(a[0]), float(b[0]), v, w);
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
float d_a = 0.0f, d_b = 0.0f;
for (int chunk = 0; chunk < CHUNKS; chunk++) {
  const int first = chunk * VALUES * 32 + lane * N;
  if (CHUNKS > 1) {
    load_part<N, VALUES>(x + start, C, first, v);
    load_part<N, VALUES>(y + start, C, first, w);
    load_part<N, VALUES>(dn + start, C, first, g);
    mix<VALUES>(float(a[0]), float(b[0]), v, w);
  }
#pragma unroll
  for (int j = 0; j < VALUES; j++)
    g[j] = r * (g[j] - v[j] * along);
  load_part<N, VALUES>(ds + start, C, first, v);
#pragma unroll
  for (int j = 0; j < VALUES; j++) {
    g[j] += v[j];  // all of the gradient in s
    d_b += g[j] * w[j];
    w[j] = float(b[0]) * g[j];
  }
  store_part<N, VALUES>(dy + start, C, first, w);
  load_part<N, VALUES>(x + start, C, first, v);  // again, from the cache: s took its registers
#pragma unroll
  for (int j = 0; j < VALUES; j++) {
    d_a += g[j] * v[j];
    g[j] *= float(a[0]);
  }
  store_part<N, VALUES>(dx + start, C, first, g);
}
d_a = simd_sum(d_a);
d_b = simd_sum(d_b);
if (lane == 0) {
  d_gains[2 * row] = d_a;
  d_gains[2 * row + 1] = d_b;
}
