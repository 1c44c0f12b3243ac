// Sliding-window flash attention, forward, as a subject for planted bugs.
#ifdef MSL_CUDA  // the tensor cores' accumulator layout
#define FRAG_ROW(lane) ((lane) / 4)
#define FRAG_COL(lane) ((lane) % 4 * 2)
#define ROW_XOR_A 1
#define ROW_XOR_B 2
#else  // Apple's
#define FRAG_ROW(lane) ((lane) / 16 * 4 + (lane) / 2 % 4)
#define FRAG_COL(lane) ((lane) / 8 % 2 * 4 + (lane) % 2 * 2)
#define ROW_XOR_A 1
#define ROW_XOR_B 8
#endif

// The four lanes that share a row of a fragment reduce among themselves.
METAL_FUNC float row_max(float x) {
  x = metal::max(x, simd_shuffle_xor(x, ushort(ROW_XOR_A)));
  return metal::max(x, simd_shuffle_xor(x, ushort(ROW_XOR_B)));
}
METAL_FUNC float row_sum(float x) {
  x += simd_shuffle_xor(x, ushort(ROW_XOR_A));
  return x + simd_shuffle_xor(x, ushort(ROW_XOR_B));
}

// Rows first ... first + ROWS of one head, zeros beyond `limit`; `stride` lies between two rows of a head.
template <typename T, int ROWS, int D, int LD>
METAL_FUNC void load_tile(const device T* src, threadgroup T* dst, int first, int limit, int stride, uint thread_index,
                          uint n_threads) {
  for (int i = int(thread_index); i < ROWS * D; i += int(n_threads)) {
    const int row = i / D, column = i % D;
    dst[row * LD + column] = first + row < limit ? src[long(first + row) * stride + column] : T(0.0f);
  }
}

// kernel body
// q (B, T, H, D), k v (B, T, Hk, D); sizes = {T, H, Hk, window}; grid (128, ceil(T / 32), B * H), threadgroup (128, 1, 1)
constexpr int SIMDGROUPS = 4, BQ = 8 * SIMDGROUPS, LD = D + 8, ND = D / 8, NK = BK / 8;
threadgroup T Qs[BQ * LD];
threadgroup T Ks[BK * LD];
threadgroup T Vs[BK * LD];
const int length = sizes[0], heads = sizes[1], kv_heads = sizes[2], window = sizes[3];
const uint tid = thread_index_in_threadgroup, lane = thread_index_in_simdgroup, sg = simdgroup_index_in_threadgroup;
const int batch = int(threadgroup_position_in_grid.z) / heads, head = int(threadgroup_position_in_grid.z) % heads;
const int q0 = int(threadgroup_position_in_grid.y) * BQ;
const int q_stride = heads * D, kv_stride = kv_heads * D;
const long q_offset = (long(batch) * length * heads + head) * D;
const long kv_offset = (long(batch) * length * kv_heads + head / (heads / kv_heads)) * D;
const int row = FRAG_ROW(int(lane)), column = FRAG_COL(int(lane));
const int query = q0 + int(sg) * 8 + row;  // of this lane
const float scale_log2 = scale[0] * 1.44269504f;

load_tile<T, BQ, D, LD>(q + q_offset, Qs, q0, length, q_stride, tid, 32 * SIMDGROUPS);
threadgroup_barrier(mem_flags::mem_threadgroup);
simdgroup_matrix<T, 8, 8> Q[ND];
for (int d = 0; d < ND; d++)
  simdgroup_load(Q[d], Qs + int(sg) * 8 * LD + d * 8, LD);
simdgroup_matrix<float, 8, 8> O[ND];
for (int d = 0; d < ND; d++)
  O[d] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
float m = -1e30f, l = 0.0f;

// The same for every thread of the threadgroup: its queries see the keys k_begin ... k_end - 1 and no others.
const int k_end = min(q0 + BQ, length);
const int k_begin = window >= 0 ? max(0, q0 - window) / BK * BK : 0;
for (int k0 = k_begin; k0 < k_end; k0 += BK) {
  threadgroup_barrier(mem_flags::mem_threadgroup);
  load_tile<T, BK, D, LD>(k + kv_offset, Ks, k0, length, kv_stride, tid, 32 * SIMDGROUPS);
  load_tile<T, BK, D, LD>(v + kv_offset, Vs, k0, length, kv_stride, tid, 32 * SIMDGROUPS);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  simdgroup_matrix<float, 8, 8> S[NK];
  float m_new = m;
  for (int n = 0; n < NK; n++) {
    S[n] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    for (int d = 0; d < ND; d++) {
      simdgroup_matrix<T, 8, 8> K;
      simdgroup_load(K, Ks + n * 8 * LD + d * 8, LD, ulong2(0, 0), true);
      simdgroup_multiply_accumulate(S[n], Q[d], K, S[n]);
    }
    for (int e = 0; e < 2; e++) {
      const int key = k0 + n * 8 + column + e;
      const bool visible = key <= query && (window < 0 || key >= query - window);
      const float s = visible ? S[n].thread_elements()[e] * scale_log2 : -1e30f;
      S[n].thread_elements()[e] = s;
      m_new = max(m_new, s);
    }
  }
  m_new = row_max(m_new);
  const float correction = fast::exp2(m - m_new);
  float sum = 0.0f;
  simdgroup_matrix<T, 8, 8> P[NK];
  for (int n = 0; n < NK; n++) {
    for (int e = 0; e < 2; e++) {
      const float p = fast::exp2(S[n].thread_elements()[e] - m_new);
      sum += p;
      P[n].thread_elements()[e] = T(p);
    }
  }
  l = l * correction + row_sum(sum);
  m = m_new;
  for (int d = 0; d < ND; d++) {
    O[d].thread_elements()[0] *= correction;
    O[d].thread_elements()[1] *= correction;
    for (int n = 0; n < NK; n++) {
      simdgroup_matrix<T, 8, 8> V;
      simdgroup_load(V, Vs + n * 8 * LD + d * 8, LD);
      simdgroup_multiply_accumulate(O[d], P[n], V, O[d]);
    }
  }
}
if (query < length) {
  for (int d = 0; d < ND; d++) {
    for (int e = 0; e < 2; e++)
      out[q_offset + long(query) * q_stride + d * 8 + column + e] = T(O[d].thread_elements()[e] / l);
  }
  if (column == 0)
    lse[(long(batch) * heads + head) * length + query] = m * 0.69314718f + metal::log(l);
}
