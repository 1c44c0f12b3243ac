// Sliding-window flash attention, the gradients of k and v, of 16-bit elements by warpgroups. Mathematics: README.md.
#include "warpgroup.cuh"

// kernel body
// q d_out (B, T, H, D), k v dk dv (B, T, Hk, D), lse delta (B, H, T); sizes = {T, H, Hk, window}; 128 keys a block,
// 64 a warpgroup. Rows are keys, columns are queries: S and dP are the transposed scores and their gradient. Three tiles of
// queries are kept: one is on its way, one is worked on, the one before may still be added to dk.
using namespace warpgroup;
constexpr int BK = 128, BQ = 64, TILE = BQ * D * 2, THREADS = 256;
extern __shared__ char memory[];
char* Ks = memory + (1024 - address(memory) % 1024) % 1024;
char* Vs = Ks + BK * D * 2;
char* Qs = Vs + BK * D * 2;
char* dOs = Qs + 3 * TILE;
float* statistics = reinterpret_cast<float*>(dOs + 3 * TILE);
const int length = sizes[0], heads = sizes[1], kv_heads = sizes[2], window = sizes[3] < 0 ? length : sizes[3];
const int lane = threadIdx.x % 32, batch = blockIdx.z / kv_heads, kv_head = blockIdx.z % kv_heads;
const int k0 = blockIdx.y * BK, group = heads / kv_heads;
const int first_key = k0 + threadIdx.x / 128 * 64, last_key = first_key + 63;  // of the warpgroup
const int key = k0 + threadIdx.x / 32 * 16 + lane / 4, column = lane % 4 * 2;
const long q_stride = heads * D, kv_stride = kv_heads * D;
const long kv_offset = (long(batch) * length * kv_heads + kv_head) * D;
const int first_query[2] = {key, key + 8};  // that sees it
const int last_query[2] = {min(key + window, length - 1), min(key + 8 + window, length - 1)};
const float scale_log2 = scale[0] * 1.44269504f;
// The queries k0 ... q_end - 1 see a key of this threadgroup, in each head of the group.
const int q_end = min(k0 + BK + window, length), tiles = (q_end - k0 + BQ - 1) / BQ;

auto load_queries = [&](int i) {
  const int first = k0 + i % tiles * BQ, head = kv_head * group + i / tiles, at = i % 3;
  const long q_offset = (long(batch) * length * heads + head) * D;
  load_tile<BQ, D, THREADS>(Qs + at * TILE, q + q_offset, first, q_end, q_stride);
  load_tile<BQ, D, THREADS>(dOs + at * TILE, d_out + q_offset, first, q_end, q_stride);
  if (threadIdx.x < BQ) {
    const long statistic = (long(batch) * heads + head) * length + min(first + int(threadIdx.x), q_end - 1);
    statistics[at * 2 * BQ + threadIdx.x] = lse[statistic] * 1.44269504f;
    statistics[at * 2 * BQ + BQ + threadIdx.x] = delta[statistic];
  }
};
load_tile<BK, D, THREADS>(Ks, k + kv_offset, k0, length, kv_stride);
load_tile<BK, D, THREADS>(Vs, v + kv_offset, k0, length, kv_stride);
load_queries(0);

float dK[D / 2], dV[D / 2], S[BQ / 2], dP[BQ / 2];
unsigned P[BQ / 16][4], dS[BQ / 16][4];
for (int i = 0; i < D / 2; i++) dK[i] = dV[i] = 0.0f;
const Descriptor K = descriptor(Ks + threadIdx.x / 128 * 8192), V = descriptor(Vs + threadIdx.x / 128 * 8192);
// Their rows are the columns of the scores, and then, "down", the terms of the gradients.
const Descriptor Q = descriptor(Qs), dO = descriptor(dOs);
const Descriptor Q_down = descriptor(Qs, BQ * 128), dO_down = descriptor(dOs, BQ * 128);
for (int i = 0; i < group * tiles; i++) {
  copies_arrive();
  __syncthreads();
  if (i + 1 < group * tiles) load_queries(i + 1);
  const int q0 = k0 + i % tiles * BQ, at = i % 3 * TILE;
  const float* lse_log2 = statistics + i % 3 * 2 * BQ + column;
  pin(S);
  pin(dP);
  arrive();
  tile_products<BK, BQ, D, T>(S, K, advanced(Q, at));
  commit();
  tile_products<BK, BQ, D, T>(dP, V, advanced(dO, at));
  commit();
  wait<1>();
  pin(S);
  pin(dV);
  pin(dK);
  if (q0 < last_key || q0 + BQ - 1 > min(first_key + window, length - 1)) hide(S, q0 + column, first_query, last_query);
#pragma unroll
  for (int i = 0; i < BQ / 2; i++) S[i] = fast_exp2(S[i] * scale_log2 - lse_log2[i / 4 * 8 + i % 2]);
  to_left<T>(P, S);
  arrive();
  add_products<T>(dV, P, advanced(dO_down, at));
  commit();
  wait<1>();
  pin(dP);
#pragma unroll
  for (int i = 0; i < BQ / 2; i++) dP[i] = S[i] * (dP[i] - lse_log2[BQ + i / 4 * 8 + i % 2]);
  to_left<T>(dS, dP);
  arrive();
  add_products<T>(dK, dS, advanced(Q_down, at));
  commit();
}
wait<0>();
pin(dK);
pin(dV);
const int first_row = threadIdx.x / 32 * 16;
const long target = kv_offset + (k0 + first_row) * kv_stride;
__syncthreads();  // until no warp reads a tile
store_rows<BK>(Ks, first_row, dk + target, kv_stride, length - k0 - first_row, dK, scale[0], scale[0]);
store_rows<BK>(Vs, first_row, dv + target, kv_stride, length - k0 - first_row, dV, 1.0f, 1.0f);
