// The gradient of y = rope(x / sqrt(mean(x^2) + eps)) in x. Mathematics and launch contract: README.md.
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
    float a[PAIRS], b[PAIRS], da[PAIRS], db[PAIRS], squares = 0.0f, products = 0.0f;
    load_pairs<N, LANES, PAIRS, HALF>(x + row, lane, a, b);
    load_pairs<N, LANES, PAIRS, HALF>(dy + row, lane, da, db);
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      const float turned_back = da[j] * cosines[j] + db[j] * sines[j];
      db[j] = db[j] * cosines[j] - da[j] * sines[j];
      da[j] = turned_back;
      squares += a[j] * a[j] + b[j] * b[j];
      products += a[j] * da[j] + b[j] * db[j];
    }
    squares = row_sum<LANES>(squares);
    products = row_sum<LANES>(products);
    const float r = metal::rsqrt(squares * (1.0f / D) + eps[0]);
    const float along = r * r * products * (1.0f / D);  // the part of the gradient that only lengthens x
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
      a[j] = r * (da[j] - a[j] * along);
      b[j] = r * (db[j] - b[j] * along);
    }
    store_pairs<N, LANES, PAIRS, HALF>(dx + row, lane, a, b);
  }
}
