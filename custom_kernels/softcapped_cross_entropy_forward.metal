// Cross-entropy and log-sum-exp of softcapped logits. Mathematics and launch contract: README.md.
#include "packs.h"
#include "softcapped_cross_entropy.h"

// kernel body
threadgroup float tops[16];
threadgroup float sums[16];
const int V = logits_shape[1], row = int(threadgroup_position_in_grid.x), tid = int(thread_index_in_threadgroup);
const int n_threads = int(threads_per_threadgroup.x), stride = n_threads * N;
const float cap = CAPPED ? softcap[0] : 1.0f, rate = -2.0f * M_LOG2E_F / cap, log2_cap = cap * M_LOG2E_F;
const device T* z = logits + long(row) * V;

float v[VALUES], top = -1e30f, sum = 0.0f;  // finite, so that logits of -inf may be masked
for (int chunk = 0; chunk < CHUNKS; chunk++)
  visit_chunk<CAPPED, N, VALUES>(z, V, chunk * VALUES * n_threads + tid * N, stride, rate, log2_cap, v, top, sum);
reduce_row(top, sum, log2_cap, tops, sums, thread_index_in_simdgroup, simdgroup_index_in_threadgroup,
           simdgroups_per_threadgroup);
if (tid == 0) {
  const float log_sum = metal::log(sum);
  loss[row] = log_sum + cap * (top - in_caps<CAPPED>(float(z[labels[row]]), rate));
  lse[row] = log_sum + cap * top;
}
