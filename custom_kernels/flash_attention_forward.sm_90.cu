// Sliding-window flash attention, forward, of 16-bit elements by warpgroups. Mathematics: README.md.
#include "warpgroup.cuh"

// kernel body
// q out (B, T, H, D), k v (B, T, Hk, D), lse (B, H, T); sizes = {T, H, Hk, window}; 128 queries of a head a block, 64 a
// warpgroup, which computes weights while its last ones are multiplied by v
using namespace warpgroup;
constexpr int BQ = 128, BK = 128, TILE = BK * D * 2, THREADS = 256;
extern __shared__ char memory[];
char* Ks = memory + (1024 - address(memory) % 1024) % 1024;
char* Vs = Ks + 2 * TILE;
char* Qs = Vs + 2 * TILE;
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

load_tile<BQ, D, THREADS>(Qs, q + q_offset, q0, length, q_stride);
load_tile<BK, D, THREADS>(Ks, k + kv_offset, k_begin, k_end, kv_stride);
copies_arrive();
__syncthreads();
unsigned Q[D / 16][4];
for (int d = 0; d < D / 16; d++) load_left<BQ>(Q[d], Qs, threadIdx.x / 32 * 16, d);
load_tile<BK, D, THREADS>(Vs, v + kv_offset, k_begin, k_end, kv_stride);
if (tiles > 1) load_tile<BK, D, THREADS>(Ks + TILE, k + kv_offset, k_begin + BK, k_end, kv_stride);

float O[D / 2], S[BK / 2], m[2] = {-1e30f, -1e30f}, l[2] = {0.0f, 0.0f}, correction[2];
unsigned P[BK / 16][4];
for (int i = 0; i < D / 2; i++) O[i] = 0.0f;
const Descriptor K = descriptor(Ks), V = descriptor(Vs, BK * 128);

// The scores in S, of the tile that begins at key k0, become weights relative to the row's largest score so far.
auto weigh = [&](int k0) {
  if (k0 + BK - 1 > first_query || k0 < last_query - window) hide(S, k0 + column, first_key, last_key);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float top = S[2 * r];
#pragma unroll
    for (int i = 0; i < BK / 2; i++)
      if (i / 2 % 2 == r) top = fmaxf(top, S[i]);
    const float m_new = fmaxf(m[r], row_max(top) * scale_log2);
    correction[r] = fast_exp2(m[r] - m_new);
    m[r] = m_new;
    l[r] *= correction[r];
  }
#pragma unroll
  for (int i = 0; i < BK / 2; i++) {
    S[i] = fast_exp2(S[i] * scale_log2 - m[i / 2 % 2]);
    l[i / 2 % 2] += S[i];
  }
};

pin(S);
arrive();
row_products<BK, D, T>(S, Q, K);
commit();
wait<0>();
pin(S);
weigh(k_begin);
to_left<T>(P, S);
if (threadIdx.x >= 128) pass_turn();
for (int i = 0; i < tiles - 1; i++) {
  copies_arrive();
  __syncthreads();
  load_tile<BK, D, THREADS>(Vs + (i + 1) % 2 * TILE, v + kv_offset, k_begin + (i + 1) * BK, k_end, kv_stride);
  if (i + 2 < tiles)
    load_tile<BK, D, THREADS>(Ks + i % 2 * TILE, k + kv_offset, k_begin + (i + 2) * BK, k_end, kv_stride);
  pin(S);
  pin(O);
  take_turn();
  arrive();
  row_products<BK, D, T>(S, Q, advanced(K, (i + 1) % 2 * TILE));
  commit();
  add_products<T>(O, P, advanced(V, i % 2 * TILE));
  commit();
  pass_turn();
  wait<1>();
  pin(S);
  weigh(k_begin + (i + 1) * BK);
  wait<0>();
  pin(O);
#pragma unroll
  for (int j = 0; j < D / 2; j++) O[j] *= correction[j / 2 % 2];
  to_left<T>(P, S);
}
copies_arrive();
__syncthreads();
pin(O);
arrive();
add_products<T>(O, P, advanced(V, (tiles - 1) % 2 * TILE));
commit();
wait<0>();
pin(O);
float inverse[2];
#pragma unroll
for (int r = 0; r < 2; r++) {
  const float sum = row_sum(l[r]);
  inverse[r] = 1.0f / sum;
  if (column == 0 && query + r * 8 < length)
    lse[(long(batch) * heads + head) * length + query + r * 8] = m[r] * 0.69314718f + logf(sum);
}
const int first_row = threadIdx.x / 32 * 16;  // Q is in registers: each warp has its rows of that tile to itself
T* target = out + q_offset + (q0 + first_row) * q_stride;
store_rows<BQ>(Qs, first_row, target, q_stride, length - q0 - first_row, O, inverse[0], inverse[1]);
