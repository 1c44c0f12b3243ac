// What the flash attention kernels share. All of them take 128 threads: four simdgroups of 8 rows each.

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
template <typename T, int ROWS, int D, int LD>
METAL_FUNC void load_tile(const device T* source, threadgroup T* tile, int first, int end, int stride, int tid) {
  for (int i = tid; i < ROWS * D / 4; i += 128) {
    const int row = i / (D / 4), column = i % (D / 4) * 4;
    const long from = long(metal::min(first + row, end - 1)) * stride + column;
    *(threadgroup vec<T, 4>*)(tile + row * LD + column) = *(const device vec<T, 4>*)(source + from);
  }
}

// A lane's elements of its row of ND fragments, in registers: `source` points to the first.
template <typename T, int ND>
METAL_FUNC void load_row(const device T* source, thread simdgroup_matrix<T, 8, 8>* fragments) {
#pragma unroll
  for (int d = 0; d < ND; d++) {
    fragments[d].thread_elements()[0] = source[d * 8];
    fragments[d].thread_elements()[1] = source[d * 8 + 1];
  }
}
template <typename T, int ND>
METAL_FUNC void store_row(device T* target, thread simdgroup_matrix<float, 8, 8>* fragments, float factor) {
#pragma unroll
  for (int d = 0; d < ND; d++) {
    target[d * 8] = T(fragments[d].thread_elements()[0] * factor);
    target[d * 8 + 1] = T(fragments[d].thread_elements()[1] * factor);
  }
}
template <int ND>
METAL_FUNC void clear(thread simdgroup_matrix<float, 8, 8>* fragments) {
#pragma unroll
  for (int d = 0; d < ND; d++)
    fragments[d] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
}

// a bT: the product of 8 rows in registers and 8 rows of a tile.
template <typename T, int ND, int LD>
METAL_FUNC simdgroup_matrix<float, 8, 8> row_products(thread simdgroup_matrix<T, 8, 8>* a, const threadgroup T* b) {
  simdgroup_matrix<float, 8, 8> product = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
#pragma unroll
  for (int d = 0; d < ND; d++) {
    simdgroup_matrix<T, 8, 8> right;
    simdgroup_load(right, b + d * 8, LD, ulong2(0, 0), true);
    simdgroup_multiply_accumulate(product, a[d], right, product);
  }
  return product;
}
// sum += a b, with 8 rows b of a tile.
template <typename T, int ND, int LD>
METAL_FUNC void add_product(thread simdgroup_matrix<float, 8, 8>* sum, simdgroup_matrix<T, 8, 8> a,
                            const threadgroup T* b) {
#pragma unroll
  for (int d = 0; d < ND; d++) {
    simdgroup_matrix<T, 8, 8> right;
    simdgroup_load(right, b + d * 8, LD);
    simdgroup_multiply_accumulate(sum[d], a, right, sum[d]);
  }
}
