// What the softcapped cross-entropy kernels share. A threadgroup has one row z of V logits and visits it in CHUNKS
// chunks, of which a thread holds VALUES elements in registers: packs of N, `stride` = N elements a thread apart.
// Logits are taken in units of the softcap: v = tanh(z / softcap), s = softcap v. Without a softcap v = s = z.

// Logits may be -infinity, as masked ones are, or no number. Of those Metal's fast:: functions promise nothing.
#ifdef MSL_CUDA
METAL_FUNC float power_of_two(float x) { return fast::exp2(x); }
METAL_FUNC float quotient(float a, float b) { return fast::divide(a, b); }
#else
METAL_FUNC float power_of_two(float x) { return metal::exp2(x); }
METAL_FUNC float quotient(float a, float b) { return a / b; }
#endif

// (1 - e) / (1 + e) with e = e^(-2 |z| / softcap): never overflows. rate = -2 log2(e) / softcap.
template <bool CAPPED> METAL_FUNC float in_caps(float z, float rate) {
  if (!CAPPED)
    return z;
  const float e = power_of_two(metal::abs(z) * rate);
  return metal::copysign(quotient(1.0f - e, 1.0f + e), z);
}
// ds / dz
template <bool CAPPED> METAL_FUNC float slope(float v) { return CAPPED ? 1.0f - v * v : 1.0f; }

// A thread's elements of a chunk, the first at `first`. Places behind the row's end repeat its last pack.
template <bool CAPPED, int N, int VALUES, typename T>
METAL_FUNC void load_chunk(const device T* z, int V, int first, int stride, float rate, thread float* v) {
#pragma unroll
  for (int j = 0; j < VALUES; j += N)
    Pack<T, N>::load(z + min(first + j / N * stride, V - N), v + j);
#pragma unroll
  for (int j = 0; j < VALUES; j++)
    v[j] = in_caps<CAPPED>(v[j], rate);
}

// Replaces v by e^(s - s_top) ds/dz, and returns the sum of e^(s - s_top) over the row's own elements.
// log2_cap = softcap log2(e).
template <bool CAPPED, int N, int VALUES>
METAL_FUNC float exponentials(thread float* v, float top, float log2_cap, int V, int first, int stride) {
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < VALUES; j += N) {
    float pack_sum = 0.0f;
#pragma unroll
    for (int k = j; k < j + N; k++) {
      const float e = power_of_two((v[k] - top) * log2_cap);
      pack_sum += e;
      v[k] = e * slope<CAPPED>(v[k]);
    }
    sum += first + j / N * stride < V ? pack_sum : 0.0f;
  }
  return sum;
}

// The largest v of what a thread has seen and its sum of e^(s - s_top), chunk by chunk.
template <bool CAPPED, int N, int VALUES, typename T>
METAL_FUNC void visit_chunk(const device T* z, int V, int first, int stride, float rate, float log2_cap,
                            thread float* v, thread float& top, thread float& sum) {
  load_chunk<CAPPED, N, VALUES>(z, V, first, stride, rate, v);
  const float before = top;
#pragma unroll
  for (int j = 0; j < VALUES; j++)
    top = metal::max(top, v[j]);
  sum = sum * power_of_two((before - top) * log2_cap) +
        exponentials<CAPPED, N, VALUES>(v, top, log2_cap, V, first, stride);
}

// Writes a thread's elements of a chunk.
template <int N, int VALUES, typename T>
METAL_FUNC void store_chunk(device T* d_z, int V, int first, int stride, const thread float* values) {
#pragma unroll
  for (int j = 0; j < VALUES; j += N) {
    const int i = first + j / N * stride;
    if (i < V)
      Pack<T, N>::store(d_z + i, values + j);
  }
}

// Turns every thread's top and sum into the row's. 16 floats of threadgroup memory each for tops and sums.
METAL_FUNC void reduce_row(thread float& top, thread float& sum, float log2_cap, threadgroup float* tops,
                           threadgroup float* sums, uint lane, uint simdgroup, uint simdgroups) {
  const float simdgroup_top = simd_max(top);
  const float simdgroup_sum = simd_sum(sum * power_of_two((top - simdgroup_top) * log2_cap));
  if (lane == 0) {
    tops[simdgroup] = simdgroup_top;
    sums[simdgroup] = simdgroup_sum;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const float other_top = lane < simdgroups ? tops[lane] : simdgroup_top;
  const float other_sum = lane < simdgroups ? sums[lane] : 0.0f;
  top = simd_max(other_top);
  sum = simd_sum(other_sum * power_of_two((other_top - top) * log2_cap));
}
