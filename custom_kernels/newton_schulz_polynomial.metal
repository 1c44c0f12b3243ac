// B = b A + c A A for each symmetric A. Mathematics and launch contract: README.md.
#include "fragments.h"
#include "newton_schulz.h"
// kernel body
// A, B (N, n, n); grid (128 * tiles, 1, N), threadgroup (128, 1, 1): tiles of B's lower triangle.
threadgroup T Left[BLOCK];
threadgroup T Right[BLOCK];
const int n = A_shape[1], tid = int(thread_index_in_threadgroup);
const int2 tile = lower_tile(int(threadgroup_position_in_grid.x));
const long offset = long(threadgroup_position_in_grid.z) * n * n;
const device T* a = A + offset;

Quarter quarter(tile.x, tile.y, int(simdgroup_index_in_threadgroup), int(thread_index_in_simdgroup));
for (int k0 = 0; k0 < n; k0 += DEPTH) {
  threadgroup_barrier(mem_flags::mem_threadgroup);
  load_block<T, V, false>(a, Left, tile.x * TILE, k0, n, n, tid);  // down its columns, which are its rows
  load_block<T, V, false>(a, Right, tile.y * TILE, k0, n, n, tid);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  quarter.add_product<T, false, false>(Left, Right);
}
quarter.combine(coefficients[1], coefficients[0], a, n, n);
quarter.store(B + offset, n, n, tile.x != tile.y);  // on the diagonal the tile holds both halves
