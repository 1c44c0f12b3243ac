// The gradient of softcapped cross-entropy in the logits. Mathematics and launch contract: README.md.
#include "packs.h"
#include "softcapped_cross_entropy.h"

// kernel body
const int V = logits_shape[1], row = int(threadgroup_position_in_grid.x), tid = int(thread_index_in_threadgroup);
const int n_threads = int(threads_per_threadgroup.x), stride = n_threads * N, label = labels[row];
const float cap = CAPPED ? softcap[0] : 1.0f, rate = -2.0f * M_LOG2E_F / cap, log2_cap = cap * M_LOG2E_F;
const float d_sum = d_loss[row] + d_lse[row], top = lse[row] / cap;
const device T* z = logits + long(row) * V;
device T* d_z = d_logits + long(row) * V;
for (int chunk = 0; chunk < CHUNKS; chunk++) {
  const int first = chunk * VALUES * n_threads + tid * N;
  float v[VALUES];
  load_chunk<CAPPED, N, VALUES>(z, V, first, stride, rate, v);
#pragma unroll
  for (int j = 0; j < VALUES; j++) {
    const float softmax = power_of_two((v[j] - top) * log2_cap);
    v[j] = d_sum * softmax * slope<CAPPED>(v[j]);
  }
  store_chunk<N, VALUES>(d_z, V, first, stride, v);
}
// The label's own element again, by the thread that wrote it.
if (label / N % n_threads == tid) {
  const float v = in_caps<CAPPED>(float(z[label]), rate);
  d_z[label] = T((d_sum * power_of_two((v - top) * log2_cap) - d_loss[row]) * slope<CAPPED>(v));
}
