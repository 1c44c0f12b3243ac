// What the flash attention kernels share. A simdgroup works on 16 rows, of which a lane has two: `row` and `row + 8`.
// By the bytes of a row: how many rows a tile of the other side has, and whether all 16 rows stay in registers where a
// simdgroup needs those of two arrays.
#ifdef MSL_CUDA  // tiles are copied while the ones before are worked on
constexpr constant int STAGES = 2;
METAL_FUNC constexpr int tile_rows(int bytes) { return bytes > 256 ? 16 : bytes > 128 ? 32 : 64; }
METAL_FUNC constexpr bool are_held(int) { return true; }
#else  // a thread of an Apple GPU has 128 registers
constexpr constant int STAGES = 1;
METAL_FUNC constexpr int tile_rows(int bytes) { return bytes > 128 ? 16 : 32; }
METAL_FUNC constexpr bool are_held(int bytes) { return bytes != 256; }  // more would not fit into threadgroup memory
#endif

// Of a score that is hidden. Finite: what a row sums before its first visible key is scaled by 2^(MASKED - m) = 0.
constexpr constant float MASKED = -1e30f;

// The four lanes that share a row of a fragment reduce among themselves.
METAL_FUNC float row_max(float x) {
  x = metal::max(x, simd_shuffle_xor(x, ushort(ROW_XOR_A)));
  return metal::max(x, simd_shuffle_xor(x, ushort(ROW_XOR_B)));
}
METAL_FUNC float row_sum(float x) {
  x += simd_shuffle_xor(x, ushort(ROW_XOR_A));
  return x + simd_shuffle_xor(x, ushort(ROW_XOR_B));
}

// ROWS rows of one head from `first` on, the row before `end` instead of those behind it; `stride` from row to row.
template <typename T, int ROWS, int D, int LD, int THREADS>
METAL_FUNC void load_tile(const device T* source, threadgroup T* tile, int first, int end, int stride, int tid) {
  // Of 96 elements a row, threads have no column of their own; then STEP does not divide ROWS, a power of two, either.
  constexpr int N = 16 / sizeof(T), PACKS = D / N, STEP = THREADS / PACKS;
  if (ROWS % STEP == 0 && first + ROWS <= end) {
    const device T* from = source + long(first + tid / PACKS) * stride + tid % PACKS * N;
#pragma unroll
    for (int row = 0; row < ROWS; row += STEP) {
      copy_pack(tile + (row + tid / PACKS) * LD + tid % PACKS * N, from);
      from += long(STEP) * stride;
    }
  } else {
    for (int i = tid; i < ROWS * PACKS; i += THREADS) {
      const long row = metal::min(first + i / PACKS, end - 1);
      copy_pack(tile + i / PACKS * LD + i % PACKS * N, source + row * stride + i % PACKS * N);
    }
  }
}

// A lane's elements of its two rows: `first` and `second` point to the first of each.
template <typename T, int D>
METAL_FUNC void load_rows(const device T* first, const device T* second, thread Left<T>* rows) {
#pragma unroll
  for (int d = 0; d < D / 16; d++) {
#pragma unroll
    for (int k = 0; k < 2; k++) {
      const vec<T, 2> one = *(const device vec<T, 2>*)(first + d * 16 + k * 8);
      const vec<T, 2> other = *(const device vec<T, 2>*)(second + d * 16 + k * 8);
      for (int e = 0; e < 2; e++) {
        rows[d].m[0][k].thread_elements()[e] = one[e];
        rows[d].m[1][k].thread_elements()[e] = other[e];
      }
    }
  }
}
// One of the two, times a factor.
template <typename T, int D>
METAL_FUNC void store_row(device T* target, thread Sum* sums, int which, float factor) {
#pragma unroll
  for (int d = 0; d < D / 8; d++) {
    vec<T, 2> pair;
    for (int e = 0; e < 2; e++)
      pair[e] = T(sums[d].m[which].thread_elements()[e] * factor);
    *(device vec<T, 2>*)(target + d * 8) = pair;
  }
}

// sums = rows tileT, of the N x 8 rows of a tile.
template <typename T, int D, int LD, int N>
METAL_FUNC void row_products(thread Sum* sums, thread Left<T>* rows, const threadgroup T* tile) {
#pragma unroll
  for (int n = 0; n < N; n++)
    clear(sums[n]);
#pragma unroll
  for (int d = 0; d < D / 16; d++) {
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      Right<T> right[2];
      load_right_from_rows<T, LD>(right, tile + n * 8 * LD + d * 16);
      multiply_add(sums[n], rows[d], right[0]);
      multiply_add(sums[n + 1], rows[d], right[1]);
    }
  }
}
// The same of 16 rows that lie in a tile, too.
template <typename T, int D, int LD, int N>
METAL_FUNC void tile_products(thread Sum* sums, const threadgroup T* rows, const threadgroup T* tile) {
#pragma unroll
  for (int n = 0; n < N; n++)
    clear(sums[n]);
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    Left<T> left;
    load_left<T, LD>(left, rows + d);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      Right<T> right[2];
      load_right_from_rows<T, LD>(right, tile + n * 8 * LD + d);
      multiply_add(sums[n], left, right[0]);
      multiply_add(sums[n + 1], left, right[1]);
    }
  }
}
// Hides what lies outside the columns first ... last of a row. `column` is that of the lane's first score.
template <int N>
METAL_FUNC void hide(thread Sum* scores, int column, thread const int* first, thread const int* last) {
#pragma unroll
  for (int e = 0; e < N * 4; e++) {
    const int at = column + e / 4 * 8 + e % 2, r = e / 2 % 2;
    if (at < first[r] || at > last[r])
      scores[e / 4].m[r].thread_elements()[e % 2] = MASKED;
  }
}
// sums += left tile, with 16 rows of a tile.
template <typename T, int D, int LD>
METAL_FUNC void add_products(thread Sum* sums, thread const Left<T>& left, const threadgroup T* tile) {
#pragma unroll
  for (int d = 0; d < D / 8; d += 2) {
    Right<T> right[2];
    load_right_from_columns<T, LD>(right, tile + d * 8);
    multiply_add(sums[d], left, right[0]);
    multiply_add(sums[d + 1], left, right[1]);
  }
}
