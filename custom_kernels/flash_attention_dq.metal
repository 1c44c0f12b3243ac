// Sliding-window flash attention, the gradient of q. Mathematics and launch contract: README.md.
#include "fragments.h"
#include "flash_attention.h"

// kernel body
// q out d_out (B, T, H, D), k v (B, T, Hk, D), lse d_lse (B, H, T); sizes = {T, H, Hk, window}; 32 queries a threadgroup
constexpr int BQ = 32, BK = sizeof(T) * D > 256 ? 16 : 32, LD = D + 8, ND = D / 8;
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

// Lanes whose query lies behind the end compute with the last one and write nothing.
const int last = min(query, length - 1);
const long row = q_offset + long(last) * q_stride;
const long statistic = (long(batch) * heads + head) * length + last;  // where lse, d_lse and delta have this row
simdgroup_matrix<T, 8, 8> Q[ND];
simdgroup_matrix<T, 8, 8> dO[ND];
simdgroup_matrix<float, 8, 8> dQ[ND];
load_row<T, ND>(q + row, Q);
load_row<T, ND>(d_out + row, dO);
clear<ND>(dQ);
float sum = 0.0f;
for (int d = 0; d < ND; d++) {
  for (int e = 0; e < 2; e++)
    sum += float(dO[d].thread_elements()[e]) * float(out[row + d * 8 + e]);
}
const float delta_row = row_sum(sum) - d_lse[statistic];
const float lse_log2 = lse[statistic] * 1.44269504f;

const int k_begin = max(0, q0 - window), k_end = min(q0 + BQ, length);
for (int k0 = k_begin; k0 < k_end; k0 += BK) {
  threadgroup_barrier(mem_flags::mem_threadgroup);
  load_tile<T, BK, D, LD>(k + kv_offset, Ks, k0, k_end, kv_stride, tid);
  load_tile<T, BK, D, LD>(v + kv_offset, Vs, k0, k_end, kv_stride, tid);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int n = 0; n < BK; n += 8) {
    simdgroup_matrix<float, 8, 8> S = row_products<T, ND, LD>(Q, Ks + n * LD);
    simdgroup_matrix<float, 8, 8> dP = row_products<T, ND, LD>(dO, Vs + n * LD);
    simdgroup_matrix<T, 8, 8> dS;
    for (int e = 0; e < 2; e++) {
      const int key = k0 + n + column + e;
      const bool visible = key <= query && key >= query - window;
      const float p = visible ? fast::exp2(S.thread_elements()[e] * scale_log2 - lse_log2) : 0.0f;
      dS.thread_elements()[e] = T(p * (dP.thread_elements()[e] - delta_row));
    }
    add_product<T, ND, LD>(dQ, dS, Ks + n * LD);
  }
}
if (query < length) {
  store_row<T, ND>(dq + row, dQ, scale[0]);
  if (column == 0)
    delta[statistic] = delta_row;
}
