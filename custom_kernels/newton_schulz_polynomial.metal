// B = b A + c A A for each symmetric A. Mathematics and launch contract: README.md.
#include "fragments.h"
#include "newton_schulz.h"
// kernel body
// A, B (N, n, n); grid (128 * tiles, 1, N), threadgroup (128, 1, 1): tiles of B's lower triangle.
threadgroup vec<T, 4> Left[BLOCK / 4];  // which aligns it for vectors
threadgroup vec<T, 4> Right[BLOCK / 4];
threadgroup T* left = (threadgroup T*)Left;
threadgroup T* right = (threadgroup T*)Right;
const int n = A_shape[1], tid = int(thread_index_in_threadgroup);
const int2 tile = lower_tile(int(threadgroup_position_in_grid.x));
const long offset = long(threadgroup_position_in_grid.z) * n * n;
const device T* a = A + offset;

Quarter quarter(tile.x, tile.y, int(simdgroup_index_in_threadgroup), int(thread_index_in_simdgroup));
for (int k0 = 0; k0 < n; k0 += DEPTH) {
  threadgroup_barrier(mem_flags::mem_threadgroup);
  load_block<T, V, false>(a, left, tile.x * TILE, k0, n, n, tid);  // down its columns, which are its rows
  load_block<T, V, false>(a, right, tile.y * TILE, k0, n, n, tid);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  add_product<T, false, false>(quarter, left, right);
}
combine(quarter, coefficients[1], coefficients[0], a, n, n);
store(quarter, B + offset, n, n, tile.x != tile.y);  // on the diagonal the tile holds both halves
