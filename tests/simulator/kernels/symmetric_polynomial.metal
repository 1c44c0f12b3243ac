// B = b A + c A A for symmetric A (batched), as a subject for planted bugs.
#ifdef MSL_CUDA  // the tensor cores' accumulator layout
#define FRAG_ROW(lane) ((lane) / 4)
#define FRAG_COL(lane) ((lane) % 4 * 2)
#else  // Apple's
#define FRAG_ROW(lane) ((lane) / 16 * 4 + (lane) / 2 % 4)
#define FRAG_COL(lane) ((lane) / 8 % 2 * 4 + (lane) % 2 * 2)
#endif

// Rows first ... first + 32 and columns k0 ... k0 + BK of an n x n matrix, zeros outside it.
template <typename P, typename T, int BK, int LD>
METAL_FUNC void load_tile(P src, threadgroup T* dst, int first, int k0, int n, int thread_index, int n_threads) {
  for (int i = thread_index; i < 32 * BK; i += n_threads) {
    const int row = first + i / BK, column = k0 + i % BK;
    dst[i / BK * LD + i % BK] = (row < n && column < n) ? src[row * n + column] : T(0.0f);
  }
}

// kernel body
// A (N, n, n); grid (128 * tiles, 1, N), threadgroup (128, 1, 1), with m = ceil(n / 32) and tiles = m (m + 1) / 2.
constexpr int BK = 16, LD = BK + 4;
threadgroup T Rows[32 * LD];
threadgroup T Columns[32 * LD];
const int n = A_shape[1];
const int tid = int(thread_index_in_threadgroup), sg = int(simdgroup_index_in_threadgroup);
const int lane = int(thread_index_in_simdgroup);
const long matrix = long(threadgroup_position_in_grid.z) * n * n;

// The lower triangle's tiles in order: (0, 0), (1, 0), (1, 1), (2, 0) and so on
int i = 0, j = int(threadgroup_position_in_grid.x);
while (j > i) {
  i++;
  j -= i;
}

// Each simdgroup owns a quarter of the tile: 16 x 16, as 2 x 2 fragments. A is symmetric, so that column j is row j.
const int row0 = sg / 2 * 16, column0 = sg % 2 * 16;
simdgroup_matrix<float, 8, 8> acc[2][2];
for (int u = 0; u < 2; u++) {
  for (int w = 0; w < 2; w++)
    acc[u][w] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
}
for (int k0 = 0; k0 < n; k0 += BK) {
  threadgroup_barrier(mem_flags::mem_threadgroup);
  load_tile<decltype(A), T, BK, LD>(A + matrix, Rows, i * 32, k0, n, tid, 128);
  load_tile<decltype(A), T, BK, LD>(A + matrix, Columns, j * 32, k0, n, tid, 128);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int k = 0; k < BK; k += 8) {
    simdgroup_matrix<T, 8, 8> left[2], right[2];
    for (int u = 0; u < 2; u++) {
      simdgroup_load(left[u], Rows + (row0 + 8 * u) * LD + k, LD);
      simdgroup_load(right[u], Columns + (column0 + 8 * u) * LD + k, LD, ulong2(0, 0), true);
    }
    for (int u = 0; u < 2; u++) {
      for (int w = 0; w < 2; w++)
        simdgroup_multiply_accumulate(acc[u][w], left[u], right[w], acc[u][w]);
    }
  }
}
for (int u = 0; u < 2; u++) {
  for (int w = 0; w < 2; w++) {
    for (int e = 0; e < 2; e++) {
      const int row = i * 32 + row0 + 8 * u + FRAG_ROW(lane);
      const int column = j * 32 + column0 + 8 * w + FRAG_COL(lane) + e;
      if (row < n && column < n) {
        const T value = T(coefficients[0] * float(A[matrix + row * n + column]) +
                          coefficients[1] * acc[u][w].thread_elements()[e]);
        B[matrix + row * n + column] = value;
        if (i != j)  // the mirror image; on the diagonal the tile holds both halves itself
          B[matrix + column * n + row] = value;
      }
    }
  }
}
