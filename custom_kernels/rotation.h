// The angles by which a lane turns its pairs at position t: t * frequencies[i] / 2^64 turns, in integers, so that whole
// turns drop out as overflow and no angle is rounded, however far the position; what is left lies within an eighth of a
// turn of a quadrant. Pairs come in packs of N, LANES packs apart.
template <int N, int LANES, int PAIRS, typename P>
METAL_FUNC void angles(P frequencies, int t, int lane, thread float* cosines, thread float* sines) {
#pragma unroll
  for (int j = 0; j < PAIRS; j++) {
    const int i = j / N * N * LANES + lane * N + j % N;
    const uint phase = uint((ulong(t) * frequencies[i]) >> 32);
    const uint quadrant = (phase + (1u << 29)) >> 30;
    const float angle = float(int(phase - (quadrant << 30))) * 1.46291808e-9f;  // 2 pi / 2^32
    const float u = angle * angle;  // the polynomials of Cephes' sinf and cosf, exact to a rounding up to pi / 4
    const float s = angle + angle * u * (-1.6666654611e-1f + u * (8.3321608736e-3f - u * 1.9515295891e-4f));
    const float c = 1.0f - 0.5f * u +
                    u * u * (4.166664568e-2f - u * (1.388731625e-3f - u * 2.443315712e-5f));
    const float sign = quadrant < 2 ? 1.0f : -1.0f;
    cosines[j] = sign * (quadrant % 2 == 0 ? c : -s);
    sines[j] = sign * (quadrant % 2 == 0 ? s : c);
  }
}

// A lane's part of a row: a[j] and b[j] are a pair, HALF elements apart.
template <int N, int LANES, int PAIRS, int HALF, typename T>
METAL_FUNC void load_pairs(const device T* row, int lane, thread float* a, thread float* b) {
#pragma unroll
  for (int j = 0; j < PAIRS; j += N) {
    const device T* from = row + j * LANES + lane * N;
    Pack<T, N>::load(from, a + j);
    Pack<T, N>::load(from + HALF, b + j);
  }
}
template <int N, int LANES, int PAIRS, int HALF, typename T>
METAL_FUNC void store_pairs(device T* row, int lane, const thread float* a, const thread float* b) {
#pragma unroll
  for (int j = 0; j < PAIRS; j += N) {
    device T* to = row + j * LANES + lane * N;
    Pack<T, N>::store(to, a + j);
    Pack<T, N>::store(to + HALF, b + j);
  }
}

// The sum over the LANES lanes that share a row.
template <int LANES> METAL_FUNC float row_sum(float x) {
#pragma unroll
  for (int step = 1; step < LANES; step *= 2)
    x += simd_shuffle_xor(x, ushort(step));
  return x;
}
