// Softcapped cross-entropy and its gradient while the row is on chip. Mathematics and launch contract: README.md.
#include "packs.h"
#include "softcapped_cross_entropy.h"

// kernel body
threadgroup float tops[16];
threadgroup float sums[16];
const int V = logits_shape[1], row = int(threadgroup_position_in_grid.x), tid = int(thread_index_in_threadgroup);
const int n_threads = int(threads_per_threadgroup.x), stride = n_threads * N, label = labels[row];
const float cap = CAPPED ? softcap[0] : 1.0f, rate = -2.0f * M_LOG2E_F / cap, log2_cap = cap * M_LOG2E_F;
const device T* z = logits + long(row) * V;
device T* d_z = d_logits + long(row) * V;

float v[VALUES], own_top = -1e30f, own_sum = 0.0f;  // finite, so that logits of -inf may be masked
for (int chunk = 0; chunk < CHUNKS; chunk++)
  visit_chunk<CAPPED, N, VALUES>(z, V, chunk * VALUES * n_threads + tid * N, stride, rate, log2_cap, v, own_top,
                                 own_sum);
float top = own_top, sum = own_sum;
reduce_row(top, sum, log2_cap, tops, sums, thread_index_in_simdgroup, simdgroup_index_in_threadgroup,
           simdgroups_per_threadgroup);
const float v_label = in_caps<CAPPED>(float(z[label]), rate);
if (tid == 0)
  loss[row] = metal::log(sum) + cap * (top - v_label);

// A row of one chunk still lies in v, relative to the thread's own top; a longer one is read again, from the cache.
const float factor = scale[row] / sum * (CHUNKS == 1 ? power_of_two((own_top - top) * log2_cap) : 1.0f);
for (int chunk = 0; chunk < CHUNKS; chunk++) {
  const int first = chunk * VALUES * n_threads + tid * N;
  if (CHUNKS > 1) {
    load_chunk<CAPPED, N, VALUES>(z, V, first, stride, rate, v);
    exponentials<CAPPED, N, VALUES>(v, top, log2_cap, V, first, stride);
  }
#pragma unroll
  for (int j = 0; j < VALUES; j++)
    v[j] *= factor;
  store_chunk<N, VALUES>(d_z, V, first, stride, v);
}
// The label's own element again, by the thread that wrote it.
if (label / N % n_threads == tid) {
  const float softmax = power_of_two((v_label - top) * log2_cap) / sum;
  d_z[label] = T(scale[row] * (softmax - 1.0f) * slope<CAPPED>(v_label));
}
