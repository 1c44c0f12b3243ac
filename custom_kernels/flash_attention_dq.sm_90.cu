// Sliding-window flash attention, the gradient of q, of 16-bit elements by warpgroups. Mathematics: README.md.
#include "warpgroup.cuh"

// kernel body
// q out d_out dq (B, T, H, D), k v (B, T, Hk, D), lse d_lse delta (B, H, T); sizes = {T, H, Hk, window}; 128 queries of
// a head a block, 64 a warpgroup. Of k three tiles are kept: one is on its way, scores need the next, dq the one before.
using namespace warpgroup;
constexpr int BQ = 128, BK = 64, TILE = BK * D * 2, THREADS = 256;
extern __shared__ char memory[];
char* Ks = memory + (1024 - address(memory) % 1024) % 1024;
char* Vs = Ks + 3 * TILE;
const int length = sizes[0], heads = sizes[1], kv_heads = sizes[2], window = sizes[3] < 0 ? length : sizes[3];
const int lane = threadIdx.x % 32, batch = blockIdx.z / heads, head = blockIdx.z % heads;
const int q0 = (gridDim.y - 1 - blockIdx.y) * BQ;  // the last queries see the most keys: they come first
const int first_query = q0 + threadIdx.x / 128 * 64, last_query = first_query + 63;  // of the warpgroup
const int query = q0 + threadIdx.x / 32 * 16 + lane / 4, column = lane % 4 * 2;
const long q_stride = heads * D, kv_stride = kv_heads * D;
const long q_offset = (long(batch) * length * heads + head) * D;
const long kv_offset = (long(batch) * length * kv_heads + head / (heads / kv_heads)) * D;
const int first_key[2] = {query - window, query + 8 - window}, last_key[2] = {query, query + 8};  // that it sees
const float scale_log2 = scale[0] * 1.44269504f;
const int k_begin = max(0, q0 - window), k_end = min(q0 + BQ, length), tiles = (k_end - k_begin + BK - 1) / BK;

load_tile<BQ, D, THREADS>(Ks, q + q_offset, q0, length, q_stride);
load_tile<BQ, D, THREADS>(Vs, d_out + q_offset, q0, length, q_stride);
float delta_row[2], lse_log2[2];
for (int r = 0; r < 2; r++) {
  const long at = min(query + r * 8, length - 1), row = q_offset + at * q_stride + column;
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < D / 8; j++) {
#pragma unroll
    for (int e = 0; e < 2; e++) sum += float(d_out[row + j * 8 + e]) * float(out[row + j * 8 + e]);
  }
  const long statistic = (long(batch) * heads + head) * length + at;
  delta_row[r] = row_sum(sum) - d_lse[statistic];
  lse_log2[r] = lse[statistic] * 1.44269504f;
}
copies_arrive();
__syncthreads();
unsigned Q[D / 16][4], dO[D / 16][4], dS[BK / 16][4];
for (int d = 0; d < D / 16; d++) {
  load_left<BQ>(Q[d], Ks, threadIdx.x / 32 * 16, d);
  load_left<BQ>(dO[d], Vs, threadIdx.x / 32 * 16, d);
}
__syncthreads();
load_tile<BK, D, THREADS>(Ks, k + kv_offset, k_begin, k_end, kv_stride);
load_tile<BK, D, THREADS>(Vs, v + kv_offset, k_begin, k_end, kv_stride);
copies_arrive();
__syncthreads();
if (tiles > 1) {
  load_tile<BK, D, THREADS>(Ks + TILE, k + kv_offset, k_begin + BK, k_end, kv_stride);
  load_tile<BK, D, THREADS>(Vs + TILE, v + kv_offset, k_begin + BK, k_end, kv_stride);
}

float dQ[D / 2], S[BK / 2], dP[BK / 2];
for (int i = 0; i < D / 2; i++) dQ[i] = 0.0f;
// K twice: its rows are the columns of the scores, and the terms of dq.
const Descriptor K = descriptor(Ks), V = descriptor(Vs), K_down = descriptor(Ks, BK * 128);
auto gradient_of_scores = [&](int k0) {
  if (k0 + BK - 1 > first_query || k0 < last_query - window) hide(S, k0 + column, first_key, last_key);
#pragma unroll
  for (int i = 0; i < BK / 2; i++)
    S[i] = fast_exp2(S[i] * scale_log2 - lse_log2[i / 2 % 2]) * (dP[i] - delta_row[i / 2 % 2]);
};

pin(S);
pin(dP);
arrive();
row_products<BK, D, T>(S, Q, K);
row_products<BK, D, T>(dP, dO, V);
commit();
wait<0>();
pin(S);
pin(dP);
gradient_of_scores(k_begin);
to_left<T>(dS, S);
if (threadIdx.x >= 128) pass_turn();
for (int i = 0; i < tiles - 1; i++) {
  copies_arrive();
  __syncthreads();
  if (i + 2 < tiles) {
    load_tile<BK, D, THREADS>(Ks + (i + 2) % 3 * TILE, k + kv_offset, k_begin + (i + 2) * BK, k_end, kv_stride);
    load_tile<BK, D, THREADS>(Vs + i % 2 * TILE, v + kv_offset, k_begin + (i + 2) * BK, k_end, kv_stride);
  }
  pin(S);
  pin(dP);
  pin(dQ);
  take_turn();
  arrive();
  row_products<BK, D, T>(S, Q, advanced(K, (i + 1) % 3 * TILE));
  row_products<BK, D, T>(dP, dO, advanced(V, (i + 1) % 2 * TILE));
  commit();
  add_products<T>(dQ, dS, advanced(K_down, i % 3 * TILE));
  commit();
  pass_turn();
  wait<1>();
  pin(S);
  pin(dP);
  gradient_of_scores(k_begin + (i + 1) * BK);
  wait<0>();
  pin(dQ);
  to_left<T>(dS, S);
}
pin(dQ);
arrive();
add_products<T>(dQ, dS, advanced(K_down, (tiles - 1) % 3 * TILE));
commit();
wait<0>();
pin(dQ);
#pragma unroll
for (int r = 0; r < 2; r++)
  if (column == 0 && query + r * 8 < length)
    delta[(long(batch) * heads + head) * length + query + r * 8] = delta_row[r];
const int first_row = threadIdx.x / 32 * 16;
__syncthreads();  // until no warp reads a tile
T* target = dq + q_offset + (q0 + first_row) * q_stride;
store_rows<BQ>(Vs, first_row, target, q_stride, length - q0 - first_row, dQ, scale[0], scale[0]);
