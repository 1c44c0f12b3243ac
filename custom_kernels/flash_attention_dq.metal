// Sliding-window flash attention, the gradient of q. Mathematics and launch contract: README.md.
#include "fragments.h"
#include "flash_attention.h"

// kernel body
// q out d_out (B, T, H, D), k v (B, T, Hk, D), lse d_lse (B, H, T); sizes = {T, H, Hk, window}; 64 queries of a head
constexpr int BQ = 64, BK = tile_rows(sizeof(T) * D), LD = D + 8, TILE = BK * LD;
constexpr bool HELD = are_held(sizeof(T) * D);  // d_out, in registers; else it lies in a tile
threadgroup uint4 k_tiles[STAGES * TILE * sizeof(T) / 16];
threadgroup uint4 v_tiles[STAGES * TILE * sizeof(T) / 16];
threadgroup uint4 d_out_tile[HELD ? 1 : BQ * LD * sizeof(T) / 16];
threadgroup T* Ks = (threadgroup T*)k_tiles;
threadgroup T* Vs = (threadgroup T*)v_tiles;
threadgroup T* dOs = (threadgroup T*)d_out_tile + int(simdgroup_index_in_threadgroup) * 16 * LD;
const int length = sizes[0], heads = sizes[1], kv_heads = sizes[2], window = sizes[3] < 0 ? length : sizes[3];
const int tid = int(thread_index_in_threadgroup), lane = int(thread_index_in_simdgroup);
const int batch = int(threadgroup_position_in_grid.z) / heads, head = int(threadgroup_position_in_grid.z) % heads;
// The last queries see the most keys: they come first.
const int q0 = int(threadgroups_per_grid.y - 1 - threadgroup_position_in_grid.y) * BQ;
const int first_query = q0 + int(simdgroup_index_in_threadgroup) * 16, last_query = first_query + 15;
const int query = first_query + FRAG_ROW(lane), column = FRAG_COL(lane);
const int q_stride = heads * D, kv_stride = kv_heads * D;
const long q_offset = (long(batch) * length * heads + head) * D + column;
const long kv_offset = (long(batch) * length * kv_heads + head / (heads / kv_heads)) * D;
const int first_key[2] = {query - window, query + 8 - window}, last_key[2] = {query, query + 8};  // that it sees
const float scale_log2 = scale[0] * 1.44269504f;

// Lanes whose query lies behind the end compute with the last one and write nothing.
const long row[2] = {q_offset + long(min(query, length - 1)) * q_stride,
                     q_offset + long(min(query + 8, length - 1)) * q_stride};
Left<T> Q[D / 16];
Left<T> dO[D / 16];
Sum dQ[D / 8];
load_rows<T, D>(q + row[0], q + row[1], Q);
if (HELD)
  load_rows<T, D>(d_out + row[0], d_out + row[1], dO);
else
  load_tile<T, BQ, D, LD, 128>(d_out + q_offset - column, (threadgroup T*)d_out_tile, q0, length, q_stride, tid);
for (int d = 0; d < D / 8; d++)
  clear(dQ[d]);
float delta_row[2], lse_log2[2];
for (int r = 0; r < 2; r++) {
  float sum = 0.0f;
  for (int i = 0; i < D / 4; i++)
    sum += float(d_out[row[r] + i / 2 * 8 + i % 2]) * float(out[row[r] + i / 2 * 8 + i % 2]);
  // where lse, d_lse and delta have this row
  const long statistic = (long(batch) * heads + head) * length + min(query + r * 8, length - 1);
  delta_row[r] = row_sum(sum) - d_lse[statistic];
  lse_log2[r] = lse[statistic] * 1.44269504f;
}

const int k_begin = max(0, q0 - window), k_end = min(q0 + BQ, length), tiles = (k_end - k_begin + BK - 1) / BK;
for (int i = 1 - STAGES; i < tiles; i++) {
  copies_arrive();
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const int next = i + STAGES - 1, k0 = k_begin + i * BK;
#ifdef MSL_CUDA
  if (next < tiles)
#endif
  {
    load_tile<T, BK, D, LD, 128>(k + kv_offset, Ks + next % STAGES * TILE, k_begin + next * BK, k_end, kv_stride, tid);
    load_tile<T, BK, D, LD, 128>(v + kv_offset, Vs + next % STAGES * TILE, k_begin + next * BK, k_end, kv_stride, tid);
  }
#ifdef MSL_CUDA
  if (i < 0)
    continue;
#else
  threadgroup_barrier(mem_flags::mem_threadgroup);
#endif
  const threadgroup T* K = Ks + i % STAGES * TILE;
  const threadgroup T* V = Vs + i % STAGES * TILE;
  if (k0 <= last_query && k0 + BK > first_query - window) {
    for (int n = 0; n < BK; n += 16) {
      Sum S[2];
      Sum dP[2];
      row_products<T, D, LD, 2>(S, Q, K + n * LD);
      if (HELD)
        row_products<T, D, LD, 2>(dP, dO, V + n * LD);
      else
        tile_products<T, D, LD, 2>(dP, dOs, V + n * LD);
      if (k0 + n + 15 > first_query || k0 + n < last_query - window)
        hide<2>(S, k0 + n + column, first_key, last_key);
#pragma unroll
      for (int e = 0; e < 8; e++) {
        const int r = e / 2 % 2;
        const float p = fast::exp2(S[e / 4].m[r].thread_elements()[e % 2] * scale_log2 - lse_log2[r]);
        S[e / 4].m[r].thread_elements()[e % 2] = p * (dP[e / 4].m[r].thread_elements()[e % 2] - delta_row[r]);
      }
      Left<T> dS;
      to_left<T>(dS, S);
      add_products<T, D, LD>(dQ, dS, K + n * LD);
    }
  }
}
#pragma unroll
for (int r = 0; r < 2; r++) {
  if (query + r * 8 < length) {
    store_row<T, D>(dq + row[r], dQ, r, scale[0]);
    if (column == 0)
      delta[(long(batch) * heads + head) * length + query + r * 8] = delta_row[r];
  }
}
