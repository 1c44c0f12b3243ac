// Y = a X + B X with symmetric B, or a X + X B if X is tall. Mathematics and launch contract: README.md.
#include "fragments.h"
#include "newton_schulz.h"
// kernel body
// X, Y (N, m, n), B (N, side, side) with side = min(m, n).
// grid (128 * ceil(n / 64), ceil(m / 64), N), threadgroup (128, 1, 1): tiles of Y.
threadgroup vec<T, 4> Left[BLOCK / 4];  // which aligns it for vectors
threadgroup vec<T, 4> Right[BLOCK / 4];
threadgroup T* left = (threadgroup T*)Left;
threadgroup T* right = (threadgroup T*)Right;
const int rows = X_shape[1], columns = X_shape[2], side = B_shape[1];
const int tid = int(thread_index_in_threadgroup);
const int row_tile = int(threadgroup_position_in_grid.y), column_tile = int(threadgroup_position_in_grid.x);
const long matrix = long(threadgroup_position_in_grid.z), offset = matrix * rows * columns;
const device T* x = X + offset;
const device T* b = B + matrix * side * side;

Quarter quarter(row_tile, column_tile, int(simdgroup_index_in_threadgroup), int(thread_index_in_simdgroup));
for (int k0 = 0; k0 < side; k0 += DEPTH) {
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (TALL) {
    load_block<T, V, true>(x, left, row_tile * TILE, k0, rows, columns, tid);
    load_block<T, V, false>(b, right, column_tile * TILE, k0, side, side, tid);
  } else {
    load_block<T, V, false>(b, left, row_tile * TILE, k0, side, side, tid);  // down its columns, which are its rows
    load_block<T, V, false>(x, right, column_tile * TILE, k0, rows, columns, tid);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  add_product<T, TALL, false>(quarter, left, right);
}
combine(quarter, 1.0f, a[0], x, rows, columns);
store(quarter, Y + offset, rows, columns, false);
