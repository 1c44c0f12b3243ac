// Sliding-window flash attention, the gradients of k and v. Mathematics and launch contract: README.md.
#include "fragments.h"
#include "flash_attention.h"

// kernel body
// q d_out (B, T, H, D), k v (B, T, Hk, D), lse delta (B, H, T); sizes = {T, H, Hk, window}; 32 keys a threadgroup.
// Rows of a fragment are keys, columns are queries: S and dP are the transposed scores and their gradient.
constexpr int BK = 32, BQ = sizeof(T) * D > 256 ? 16 : 32, LD = D + 8, ND = D / 8;
threadgroup vec<T, 4> q_tile[BQ * LD / 4];
threadgroup vec<T, 4> d_out_tile[BQ * LD / 4];
threadgroup float lse_log2[BQ];
threadgroup float deltas[BQ];
threadgroup T* Qs = (threadgroup T*)q_tile;
threadgroup T* dOs = (threadgroup T*)d_out_tile;
const int length = sizes[0], heads = sizes[1], kv_heads = sizes[2], window = sizes[3] < 0 ? length : sizes[3];
const int tid = int(thread_index_in_threadgroup), lane = int(thread_index_in_simdgroup);
const int batch = int(threadgroup_position_in_grid.z) / kv_heads, kv_head = int(threadgroup_position_in_grid.z) % kv_heads;
const int k0 = int(threadgroup_position_in_grid.y) * BK, group = heads / kv_heads;
const int key = k0 + int(simdgroup_index_in_threadgroup) * 8 + FRAG_ROW(lane), column = FRAG_COL(lane);
const int q_stride = heads * D;
const float scale_log2 = scale[0] * 1.44269504f;

// Lanes whose key lies behind the end compute with the last one and write nothing.
const long row = ((long(batch) * length + min(key, length - 1)) * kv_heads + kv_head) * D + column;
simdgroup_matrix<T, 8, 8> K[ND];
simdgroup_matrix<T, 8, 8> V[ND];
simdgroup_matrix<float, 8, 8> dK[ND];
simdgroup_matrix<float, 8, 8> dV[ND];
load_row<T, ND>(k + row, K);
load_row<T, ND>(v + row, V);
clear<ND>(dK);
clear<ND>(dV);

// The queries k0 ... q_end - 1 see a key of this threadgroup, key ... last_query see this lane's.
const int q_end = min(k0 + BK + window, length), last_query = min(key + window, length - 1);
for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
  const long q_offset = (long(batch) * length * heads + head) * D;
  const long statistics = (long(batch) * heads + head) * length;
  for (int q0 = k0; q0 < q_end; q0 += BQ) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    load_tile<T, BQ, D, LD>(q + q_offset, Qs, q0, q_end, q_stride, tid);
    load_tile<T, BQ, D, LD>(d_out + q_offset, dOs, q0, q_end, q_stride, tid);
    if (tid < BQ) {
      const long statistic = statistics + min(q0 + tid, q_end - 1);
      lse_log2[tid] = lse[statistic] * 1.44269504f;
      deltas[tid] = delta[statistic];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int n = 0; n < BQ; n += 8) {
      simdgroup_matrix<float, 8, 8> S = row_products<T, ND, LD>(K, Qs + n * LD);
      simdgroup_matrix<float, 8, 8> dP = row_products<T, ND, LD>(V, dOs + n * LD);
      simdgroup_matrix<T, 8, 8> P, dS;
      for (int e = 0; e < 2; e++) {
        const int i = n + column + e, query = q0 + i;
        const bool visible = query >= key && query <= last_query;
        const float p = visible ? fast::exp2(S.thread_elements()[e] * scale_log2 - lse_log2[i]) : 0.0f;
        P.thread_elements()[e] = T(p);
        dS.thread_elements()[e] = T(p * (dP.thread_elements()[e] - deltas[i]));
      }
      add_product<T, ND, LD>(dV, P, dOs + n * LD);
      add_product<T, ND, LD>(dK, dS, Qs + n * LD);
    }
  }
}
if (key < length) {
  store_row<T, ND>(dk + row, dK, scale[0]);
  store_row<T, ND>(dv + row, dV, 1.0f);
}
