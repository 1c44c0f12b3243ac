// N neighbouring elements, loaded or stored at once, as float32 in registers; N is 1, 2 or 4 and divides the place.
template <typename T, int N> struct Pack {
  METAL_FUNC static void load(const device T* from, thread float* values) {
    const vec<T, N> x = *(const device vec<T, N>*)from;
#pragma unroll
    for (int e = 0; e < N; e++)
      values[e] = float(x[e]);
  }
  METAL_FUNC static void store(device T* to, const thread float* values) {
    vec<T, N> x;
#pragma unroll
    for (int e = 0; e < N; e++)
      x[e] = T(values[e]);
    *(device vec<T, N>*)to = x;
  }
};
template <typename T> struct Pack<T, 1> {
  METAL_FUNC static void load(const device T* from, thread float* values) { values[0] = float(from[0]); }
  METAL_FUNC static void store(device T* to, const thread float* values) { to[0] = T(values[0]); }
};
