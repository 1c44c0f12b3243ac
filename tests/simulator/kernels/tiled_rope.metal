// Rotary position embedding of (B, T, H, D), as a subject for planted bugs.
// A tile of angles is computed once and used for every head: sin and cos are dear, multiplications are not.
constexpr int TILE = 16, PAIRS = D / 2;
threadgroup float cosines[TILE * PAIRS];
threadgroup float sines[TILE * PAIRS];
const int length = x_shape[1], heads = x_shape[2];
const int t0 = int(threadgroup_position_in_grid.x) * TILE;
const long batch = long(threadgroup_position_in_grid.y);
const int tid = int(thread_position_in_threadgroup.x), n_threads = int(threads_per_threadgroup.x);
const float log2_base = metal::log2(base[0]);

for (int i = tid; i < TILE * PAIRS; i += n_threads) {
  const float frequency = metal::exp2(-2.0f * float(i % PAIRS) / float(D) * log2_base);
  const float angle = float(t0 + i / PAIRS) * frequency;
  cosines[i] = metal::precise::cos(angle);
  sines[i] = metal::precise::sin(angle);
}
threadgroup_barrier(mem_flags::mem_threadgroup);

const int rows = min(TILE, length - t0);
for (int i = tid; i < rows * heads * PAIRS; i += n_threads) {
  const int pair = i % PAIRS, head = i / PAIRS % heads, row = i / PAIRS / heads;
  const long first = ((batch * length + t0 + row) * heads + head) * D + pair;
  const float a = float(x[first]), b = float(x[first + PAIRS]);
  const float c = cosines[row * PAIRS + pair], s = sines[row * PAIRS + pair];
  y[first] = T(a * c + b * s);
  y[first + PAIRS] = T(b * c - a * s);
}
