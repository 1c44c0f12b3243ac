// Sliding-window flash attention, forward. Mathematics and launch contract: README.md.
#include "fragments.h"
#include "flash_attention.h"

// kernel body
// q (B, T, H, D), k v (B, T, Hk, D); sizes = {T, H, Hk, window}; 32 queries of a head a threadgroup
constexpr int BQ = 32, BK = sizeof(T) * D > 256 ? 16 : 32, LD = D + 8, ND = D / 8, NK = BK / 8;
constexpr float MASKED = -1e30f;  // finite: what a row sums before its first visible key is scaled by 2^(MASKED - m) = 0
threadgroup vec<T, 4> k_tile[BK * LD / 4];
threadgroup vec<T, 4> v_tile[BK * LD / 4];
threadgroup T* Ks = (threadgroup T*)k_tile;
threadgroup T* Vs = (threadgroup T*)v_tile;
const int length = sizes[0], heads = sizes[1], kv_heads = sizes[2], window = sizes[3] < 0 ? length : sizes[3];
const int tid = int(thread_index_in_threadgroup), lane = int(thread_index_in_simdgroup);
const int batch = int(threadgroup_position_in_grid.z) / heads, head = int(threadgroup_position_in_grid.z) % heads;
const int q0 = int(threadgroup_position_in_grid.y) * BQ;
const int query = q0 + int(simdgroup_index_in_threadgroup) * 8 + FRAG_ROW(lane), column = FRAG_COL(lane);
const int q_stride = heads * D, kv_stride = kv_heads * D;
const long q_offset = (long(batch) * length * heads + head) * D + column;
const long kv_offset = (long(batch) * length * kv_heads + head / (heads / kv_heads)) * D;
const float scale_log2 = scale[0] * 1.44269504f;

simdgroup_matrix<T, 8, 8> Q[ND];
simdgroup_matrix<float, 8, 8> O[ND];
load_row<T, ND>(q + q_offset + long(min(query, length - 1)) * q_stride, Q);
clear<ND>(O);
float m = MASKED, l = 0.0f;

// The same for the whole threadgroup: its queries see the keys k_begin ... k_end - 1 and no others.
const int k_begin = max(0, q0 - window), k_end = min(q0 + BQ, length);
for (int k0 = k_begin; k0 < k_end; k0 += BK) {
  threadgroup_barrier(mem_flags::mem_threadgroup);
  load_tile<T, BK, D, LD>(k + kv_offset, Ks, k0, k_end, kv_stride, tid);
  load_tile<T, BK, D, LD>(v + kv_offset, Vs, k0, k_end, kv_stride, tid);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  simdgroup_matrix<float, 8, 8> S[NK];
  float m_new = m;
#pragma unroll
  for (int n = 0; n < NK; n++) {
    S[n] = row_products<T, ND, LD>(Q, Ks + n * 8 * LD);
    for (int e = 0; e < 2; e++) {
      const int key = k0 + n * 8 + column + e;
      const bool visible = key <= query && key >= query - window;
      const float s = visible ? S[n].thread_elements()[e] * scale_log2 : MASKED;
      S[n].thread_elements()[e] = s;
      m_new = max(m_new, s);
    }
  }
  m_new = row_max(m_new);
  const float correction = fast::exp2(m - m_new);
  m = m_new;
  l *= correction;
#pragma unroll
  for (int d = 0; d < ND; d++) {
    O[d].thread_elements()[0] *= correction;
    O[d].thread_elements()[1] *= correction;
  }
#pragma unroll
  for (int n = 0; n < NK; n++) {
    simdgroup_matrix<T, 8, 8> P;
    for (int e = 0; e < 2; e++) {
      const float p = fast::exp2(S[n].thread_elements()[e] - m);
      P.thread_elements()[e] = T(p);
      l += p;
    }
    add_product<T, ND, LD>(O, P, Vs + n * 8 * LD);
  }
}
l = row_sum(l);
if (query < length) {
  store_row<T, ND>(out + q_offset + long(query) * q_stride, O, 1.0f / l);
  if (column == 0)
    lse[(long(batch) * heads + head) * length + query] = m * 0.69314718f + metal::log(l);
}
