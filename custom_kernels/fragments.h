// Where a lane's two elements of an 8 x 8 matrix lie, and the lanes that share its row; products of 16 rows.
#ifdef MSL_CUDA  // the tensor cores' accumulator layout
#define FRAG_ROW(lane) ((lane) / 4)
#define FRAG_COL(lane) ((lane) % 4 * 2)
#define ROW_XOR_A 1
#define ROW_XOR_B 2
#else  // Apple's
#define FRAG_ROW(lane) ((lane) / 16 * 4 + (lane) / 2 % 4)
#define FRAG_COL(lane) ((lane) / 8 % 2 * 4 + (lane) % 2 * 2)
#define ROW_XOR_A 1
#define ROW_XOR_B 8
#endif

// A product of 16 x 16 by 16 x 8, summed in float32: what a tensor core multiplies at once, and four products of 8 x 8
// on Apple's GPUs, for which each half of the right factor is loaded once. Halves of the rows, then of the terms.
template <typename T>
struct Left {
  simdgroup_matrix<T, 8, 8> m[2][2];
};
template <typename T>
struct Right {  // on tensor cores of 16-bit elements each half lies transposed
  simdgroup_matrix<T, 8, 8> m[2];
};
struct Sum {
  simdgroup_matrix<float, 8, 8> m[2];
};

METAL_FUNC void clear(thread Sum& sum) {
  sum.m[0] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  sum.m[1] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
}

// sum += left right
template <typename T>
METAL_FUNC void multiply_add(thread Sum& sum, thread const Left<T>& left, thread const Right<T>& right) {
#ifdef MSL_TENSOR_CORES
  tensor_core_multiply_add(sum.m, left.m, right.m);
#else
#pragma unroll
  for (int k = 0; k < 2; k++) {
#pragma unroll
    for (int r = 0; r < 2; r++)
      simdgroup_multiply_accumulate(sum.m[r], left.m[r][k], right.m[k], sum.m[r]);
  }
#endif
}

// Two right factors of 8 columns each, from 16 rows of a tile that hold a column's terms, or from 16 rows that hold a
// term's columns. LD: elements from one row of the tile to the next.
template <typename T, int LD>
METAL_FUNC void load_right_from_rows(thread Right<T>* right, const threadgroup T* tile) {
#ifdef MSL_TENSOR_CORES
  tensor_core_load<false>(right[0].m, right[1].m, tile, LD);
#else
#pragma unroll
  for (int i = 0; i < 4; i++)
    simdgroup_load(right[i / 2].m[i % 2], tile + i / 2 * 8 * LD + i % 2 * 8, LD, ulong2(0, 0), true);
#endif
}
template <typename T, int LD>
METAL_FUNC void load_right_from_columns(thread Right<T>* right, const threadgroup T* tile) {
#ifdef MSL_TENSOR_CORES
  tensor_core_load<true>(right[0].m, right[1].m, tile, LD);
#else
#pragma unroll
  for (int i = 0; i < 4; i++)
    simdgroup_load(right[i / 2].m[i % 2], tile + i % 2 * 8 * LD + i / 2 * 8, LD);
#endif
}

// A left factor from 16 rows of a tile.
template <typename T, int LD>
METAL_FUNC void load_left(thread Left<T>& left, const threadgroup T* tile) {
#pragma unroll
  for (int i = 0; i < 4; i++)
    simdgroup_load(left.m[i / 2][i % 2], tile + i / 2 * 8 * LD + i % 2 * 8, LD);
}

// Two sums side by side, rounded, as the left factor of the next product: a lane's elements stay where they are.
template <typename T>
METAL_FUNC void to_left(thread Left<T>& left, thread const Sum* sums) {
#pragma unroll
  for (int i = 0; i < 8; i++)
    left.m[i / 2 % 2][i / 4].thread_elements()[i % 2] = T(sums[i / 4].m[i / 2 % 2].thread_elements()[i % 2]);
}

// 16 bytes into a tile. On CUDA they may arrive later: `copies_arrive` waits for all that this thread has asked for.
template <typename T>
METAL_FUNC void copy_pack(threadgroup T* target, const device T* source) {
#ifdef MSL_TENSOR_CORES
  copy_async(target, source);
#else
  *(threadgroup uint4*)target = *(const device uint4*)source;
#endif
}
METAL_FUNC void copies_arrive() {
#ifdef MSL_TENSOR_CORES
  wait_for_copies();
#endif
}
