// A row of C elements shared by the 32 lanes of a simdgroup, visited in chunks of which a lane holds VALUES elements:
// packs of N, 32 N elements apart, the first at `first`. Places behind the row's end are zeros, and are not written.
template <int N, int VALUES, typename T>
METAL_FUNC void load_part(const device T* row, int C, int first, thread float* v) {
#pragma unroll
  for (int j = 0; j < VALUES; j += N) {
    const int i = first + j * 32;
    if (i < C) {
      Pack<T, N>::load(row + i, v + j);
    } else {
#pragma unroll
      for (int e = 0; e < N; e++)
        v[j + e] = 0.0f;
    }
  }
}
template <int N, int VALUES, typename T>
METAL_FUNC void store_part(device T* row, int C, int first, const thread float* v) {
#pragma unroll
  for (int j = 0; j < VALUES; j += N) {
    const int i = first + j * 32;
    if (i < C)
      Pack<T, N>::store(row + i, v + j);
  }
}

// s = a x + b y in the place of x; y stays.
template <int VALUES> METAL_FUNC void mix(float a, float b, thread float* x, const thread float* y) {
#pragma unroll
  for (int j = 0; j < VALUES; j++)
    x[j] = a * x[j] + b * y[j];
}
