// y = rope(x / sqrt(mean(x^2) + eps)) of (B, T, H, D). Mathematics and launch contract: README.md.
#include "packs.h"
#include "rotation.h"

// kernel body
// A lane keeps its angles in registers and turns the same pairs of every head of every groups-th batch row with them.
constexpr int HALF = D / 2, PAIRS = HALF / LANES;
const int batches = x_shape[0], length = x_shape[1], heads = x_shape[2];
const int t = int(thread_position_in_grid.x) / LANES, lane = int(thread_position_in_grid.x) % LANES;
if (t >= length)
  return;
float cosines[PAIRS], sines[PAIRS];
angles<N, LANES, PAIRS>(frequencies, t, lane, cosines, sines);
for (int batch = int(threadgroup_position_in_grid.y); batch < batches; batch += int(threadgroups_per_grid.y)) {
  for (int head = 0; head < heads; head++) {
    const long row = ((long(batch) * length + t) * heads + head) * D;
    float a[PAIRS], b[PAIRS], squares = 0.0f;
    load_pairs<N, LANES, PAIRS, HALF>(x + row, lane, a, b);
#pragma unroll
    for (int j = 0; j < PAIRS; j++)
      squares += a[j] * a[j] + b[j] * b[j];
    squares = row_sum<LANES>(squares);
    const float r = metal::rsqrt(squares * (1.0f / D) + eps[0]);
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      const float turned = r * (a[j] * cosines[j] - b[j] * sines[j]);
      b[j] = r * (b[j] * cosines[j] + a[j] * sines[j]);
      a[j] = turned;
    }
    store_pairs<N, LANES, PAIRS, HALF>(y + row, lane, a, b);
  }
}
