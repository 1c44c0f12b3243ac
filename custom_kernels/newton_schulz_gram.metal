// The smaller Gram matrix of each X: A = X XT, or XT X if X is tall. Mathematics and launch contract: README.md.
#include "fragments.h"
#include "newton_schulz.h"
// kernel body
// X (N, m, n), A (N, side, side); grid (128 * tiles, 1, N), threadgroup (128, 1, 1): tiles of A's lower triangle.
constexpr bool ACROSS = !TALL;
threadgroup vec<T, 4> Left[BLOCK / 4];  // which aligns it for vectors
threadgroup vec<T, 4> Right[BLOCK / 4];
threadgroup T* left = (threadgroup T*)Left;
threadgroup T* right = (threadgroup T*)Right;
const int rows = X_shape[1], columns = X_shape[2], side = TALL ? columns : rows, terms = TALL ? rows : columns;
const int tid = int(thread_index_in_threadgroup);
const int2 tile = lower_tile(int(threadgroup_position_in_grid.x));
const long matrix = long(threadgroup_position_in_grid.z);
const device T* x = X + matrix * rows * columns;

Quarter quarter(tile.x, tile.y, int(simdgroup_index_in_threadgroup), int(thread_index_in_simdgroup));
for (int k0 = 0; k0 < terms; k0 += DEPTH) {
  threadgroup_barrier(mem_flags::mem_threadgroup);
  load_block<T, V, ACROSS>(x, left, tile.x * TILE, k0, rows, columns, tid);
  load_block<T, V, ACROSS>(x, right, tile.y * TILE, k0, rows, columns, tid);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  add_product<T, ACROSS, ACROSS>(quarter, left, right);
}
store(quarter, A + matrix * side * side, side, side, tile.x != tile.y);  // on the diagonal the tile holds both halves
