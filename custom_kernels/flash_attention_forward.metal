// Sliding-window flash attention, forward. Mathematics and launch contract: README.md.
#include "fragments.h"
#include "flash_attention.h"

// kernel body
// q (B, T, H, D), k v (B, T, Hk, D); sizes = {T, H, Hk, window}; 64 queries of a head a threadgroup
constexpr int BQ = 64, BK = tile_rows(sizeof(T) * D), LD = D + 8, NK = BK / 8, TILE = BK * LD;
threadgroup uint4 k_tiles[STAGES * TILE * sizeof(T) / 16];
threadgroup uint4 v_tiles[STAGES * TILE * sizeof(T) / 16];
threadgroup T* Ks = (threadgroup T*)k_tiles;
threadgroup T* Vs = (threadgroup T*)v_tiles;
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

Left<T> Q[D / 16];
Sum O[D / 8];
load_rows<T, D>(q + q_offset + long(min(query, length - 1)) * q_stride,
                q + q_offset + long(min(query + 8, length - 1)) * q_stride, Q);
for (int d = 0; d < D / 8; d++)
  clear(O[d]);
float m[2] = {MASKED, MASKED}, l[2] = {0.0f, 0.0f};

// The same for the whole threadgroup: its queries see the keys k_begin ... k_end - 1 and no others.
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
    Sum S[NK];
    row_products<T, D, LD, NK>(S, Q, K);
    if (k0 + BK - 1 > first_query || k0 < last_query - window)
      hide<NK>(S, k0 + column, first_key, last_key);
    float correction[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float top = S[0].m[r].thread_elements()[0];
#pragma unroll
      for (int e = 1; e < NK * 2; e++)
        top = max(top, S[e / 2].m[r].thread_elements()[e % 2]);
      const float m_new = max(m[r], row_max(top) * scale_log2);
      correction[r] = fast::exp2(m[r] - m_new);
      m[r] = m_new;
      l[r] *= correction[r];
    }
#pragma unroll
    for (int e = 0; e < D / 2; e++)
      O[e / 4].m[e / 2 % 2].thread_elements()[e % 2] *= correction[e / 2 % 2];
#pragma unroll
    for (int e = 0; e < NK * 4; e++) {
      const float p = fast::exp2(S[e / 4].m[e / 2 % 2].thread_elements()[e % 2] * scale_log2 - m[e / 2 % 2]);
      S[e / 4].m[e / 2 % 2].thread_elements()[e % 2] = p;
      l[e / 2 % 2] += p;
    }
#pragma unroll
    for (int n = 0; n < NK; n += 2) {
      Left<T> P;
      to_left<T>(P, S + n);
      add_products<T, D, LD>(O, P, V + n * 8 * LD);
    }
  }
}
#pragma unroll
for (int r = 0; r < 2; r++) {
  const float sum = row_sum(l[r]);
  if (query + r * 8 < length) {
    store_row<T, D>(out + q_offset + long(query + r * 8) * q_stride, O, r, 1.0f / sum);
    if (column == 0)
      lse[(long(batch) * heads + head) * length + query + r * 8] = m[r] * 0.69314718f + metal::log(sum);
  }
}
