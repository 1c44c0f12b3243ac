// C = A B, a 16 x 16 tile for each threadgroup.
constexpr int TILE = 16;
threadgroup float As[TILE][BK + 1];
threadgroup float Bs[BK][TILE + 1];
const int M = A_shape[0], K = A_shape[1], N = B_shape[1];
const int tx = int(thread_position_in_threadgroup.x), ty = int(thread_position_in_threadgroup.y);
const int row = int(threadgroup_position_in_grid.y) * TILE + ty;
const int column = int(threadgroup_position_in_grid.x) * TILE + tx;
float sum = 0.0f;
for (int k0 = 0; k0 < K; k0 += BK) {
  for (int k = tx; k < BK; k += TILE)
    As[ty][k] = (row < M && k0 + k < K) ? A[row * K + k0 + k] : 0.0f;
  for (int k = ty; k < BK; k += TILE)
    Bs[k][tx] = (k0 + k < K && column < N) ? B[(k0 + k) * N + column] : 0.0f;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int k = 0; k < BK; k++)
    sum = fma(As[ty][k], Bs[k][tx], sum);
  threadgroup_barrier(mem_flags::mem_threadgroup);
}
if (row < M && column < N)
  C[row * N + column] = sum;
