// Sliding-window flash attention, the gradients of k and v, in fewer registers. Mathematics and contract: README.md.
#include "fragments.h"
#include "flash_attention.h"

// kernel body
// q d_out (B, T, H, D), k v (B, T, Hk, D), lse delta (B, H, T); sizes = {T, H, Hk, window}; 64 keys a threadgroup.
// Rows are keys, columns are queries: S and dP are the transposed scores and their gradient. Two simdgroups share 16
// keys: the first holds k and sums dv, the second holds v and sums dk; P goes from one to the other.
constexpr int BK = 64, BQ = tile_rows(sizeof(T) * D) < 32 ? 16 : 32, LD = D + 8, NQ = BQ / 8, TILE = BQ * LD;
threadgroup uint4 q_tiles[STAGES * TILE * sizeof(T) / 16];
threadgroup uint4 d_out_tiles[STAGES * TILE * sizeof(T) / 16];
threadgroup float4 weights[4 * NQ * 32];
threadgroup float statistics[STAGES * 2 * BQ];
threadgroup T* Qs = (threadgroup T*)q_tiles;
threadgroup T* dOs = (threadgroup T*)d_out_tiles;
const int length = sizes[0], heads = sizes[1], kv_heads = sizes[2], window = sizes[3] < 0 ? length : sizes[3];
const int tid = int(thread_index_in_threadgroup), lane = int(thread_index_in_simdgroup);
const int part = int(threadgroup_position_in_grid.z), batch = part / kv_heads, kv_head = part % kv_heads;
const int k0 = int(threadgroup_position_in_grid.y) * BK, group = heads / kv_heads;
const int pair = int(simdgroup_index_in_threadgroup) / 2;
const bool holds_k = simdgroup_index_in_threadgroup % 2 == 0;
const int first_key = k0 + pair * 16, last_key = first_key + 15;
const int key = first_key + FRAG_ROW(lane), column = FRAG_COL(lane);
const int q_stride = heads * D, kv_stride = kv_heads * D;
const int first_query[2] = {key, key + 8};  // that sees it
const int last_query[2] = {min(key + window, length - 1), min(key + 8 + window, length - 1)};
const float scale_log2 = scale[0] * 1.44269504f;

// Lanes whose key lies behind the end compute with the last one and write nothing.
const long offset = (long(batch) * length * kv_heads + kv_head) * D + column;
const device T* held = (holds_k ? k : v) + offset;
Left<T> rows[D / 16];
Sum sums[D / 8];
load_rows<T, D>(held + long(min(key, length - 1)) * kv_stride, held + long(min(key + 8, length - 1)) * kv_stride, rows);
for (int d = 0; d < D / 8; d++)
  clear(sums[d]);

// The queries k0 ... q_end - 1 see a key of this threadgroup, in each head of the group.
const int q_end = min(k0 + BK + window, length), tiles = (q_end - k0 + BQ - 1) / BQ;
for (int i = 1 - STAGES; i < group * tiles; i++) {
  copies_arrive();
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const int next = i + STAGES - 1, q0 = k0 + i % tiles * BQ;
#ifdef MSL_CUDA
  if (next < group * tiles)
#endif
  {
    const int first = k0 + next % tiles * BQ, head = kv_head * group + next / tiles, at = next % STAGES;
    const long q_offset = (long(batch) * length * heads + head) * D;
    load_tile<T, BQ, D, LD, 256>(q + q_offset, Qs + at * TILE, first, q_end, q_stride, tid);
    load_tile<T, BQ, D, LD, 256>(d_out + q_offset, dOs + at * TILE, first, q_end, q_stride, tid);
    if (tid < BQ) {
      const long statistic = (long(batch) * heads + head) * length + min(first + tid, q_end - 1);
      statistics[at * 2 * BQ + tid] = lse[statistic] * 1.44269504f;
      statistics[at * 2 * BQ + BQ + tid] = delta[statistic];
    }
  }
#ifdef MSL_CUDA
  if (i < 0)
    continue;
#else
  threadgroup_barrier(mem_flags::mem_threadgroup);
#endif
  const threadgroup T* Q = Qs + i % STAGES * TILE;
  const threadgroup T* dO = dOs + i % STAGES * TILE;
  const threadgroup float* lse_log2 = statistics + i % STAGES * 2 * BQ;
  const threadgroup float* deltas = lse_log2 + BQ;
  const bool sees = q0 + BQ > first_key && q0 <= last_key + window;
  Sum S[NQ];
  if (sees)
    row_products<T, D, LD, NQ>(S, rows, holds_k ? Q : dO);
  if (sees && holds_k) {
    if (q0 < last_key || q0 + BQ - 1 > min(first_key + window, length - 1))
      hide<NQ>(S, q0 + column, first_query, last_query);
#pragma unroll
    for (int e = 0; e < NQ * 4; e++) {
      const float s = S[e / 4].m[e / 2 % 2].thread_elements()[e % 2] * scale_log2;
      S[e / 4].m[e / 2 % 2].thread_elements()[e % 2] = fast::exp2(s - lse_log2[e / 4 * 8 + column + e % 2]);
    }
#pragma unroll
    for (int n = 0; n < NQ; n++)
      weights[(pair * NQ + n) * 32 + lane] =
          float4(S[n].m[0].thread_elements()[0], S[n].m[0].thread_elements()[1], S[n].m[1].thread_elements()[0],
                 S[n].m[1].thread_elements()[1]);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (sees && !holds_k) {
#pragma unroll
    for (int n = 0; n < NQ; n++) {
      const float4 p = weights[(pair * NQ + n) * 32 + lane];
#pragma unroll
      for (int e = 0; e < 4; e++)
        S[n].m[e / 2].thread_elements()[e % 2] =
            p[e] * (S[n].m[e / 2].thread_elements()[e % 2] - deltas[n * 8 + column + e % 2]);
    }
  }
  if (sees) {
#pragma unroll
    for (int n = 0; n < NQ; n += 2) {
      Left<T> left;
      to_left<T>(left, S + n);
      add_products<T, D, LD>(sums, left, (holds_k ? dO : Q) + n * 8 * LD);
    }
  }
}
#pragma unroll
for (int r = 0; r < 2; r++) {
  if (key + r * 8 < length) {
    const long target = offset + long(key + r * 8) * kv_stride;
    if (holds_k)
      store_row<T, D>(dv + target, sums, r, 1.0f);
    else
      store_row<T, D>(dk + target, sums, r, scale[0]);
  }
}
