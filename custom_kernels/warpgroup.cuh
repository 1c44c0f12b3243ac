// Products of a warpgroup, four warps whose 64 rows the tensor cores of compute capability 9.0a multiply at once (wgmma;
// PTX ISA 8.0): asynchronous, summed in float32; the right factor is read from shared memory, the left one too, or else
// from registers.
//
// A tile lies in shared memory as panels of 64 columns, rows of 128 bytes, whose 16-byte chunks are permuted so that
// neither copies nor products meet in a bank: chunk c of row r is at r * 128 + (c ^ r % 8) * 16. Its base is a multiple
// of 1024. A thread's part of a sum of 64 x N is float s[N / 2]: s[4 j + 2 r + e] in row lane / 4 + 8 r of its warp's 16,
// column 8 j + lane % 4 * 2 + e.
namespace warpgroup {
using Descriptor = unsigned long long;

__device__ inline unsigned address(const void* p) { return unsigned(__cvta_generic_to_shared(p)); }

// Where a factor's tile begins. Its rows are the product's columns, or the left factor's rows; or they are terms, and the
// columns those of the product, with `panel` bytes from 64 of them to the next.
__device__ inline Descriptor descriptor(const void* tile, int panel = 0) {
  return Descriptor((address(tile) & 0x3ffff) >> 4) | Descriptor(panel >> 4) << 16 | Descriptor(1024 >> 4) << 32 |
         Descriptor(1) << 62;
}
// The same further on in shared memory.
__device__ inline Descriptor advanced(Descriptor d, int bytes) { return d + (bytes >> 4); }

__device__ inline void arrive() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until no more than PENDING of the products that were committed, the last ones, are under way.
template <int PENDING> __device__ inline void wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// No access of a sum's registers is moved across this place: it stands before a product that adds to them, and after the
// wait for it.
template <int N> __device__ inline void pin(float (&s)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(s[i])::"memory");
}

#define ELEMENTS_4(s, i) "+f"(s[i]), "+f"(s[i + 1]), "+f"(s[i + 2]), "+f"(s[i + 3])
#define ELEMENTS_16(s, i) ELEMENTS_4(s, i), ELEMENTS_4(s, i + 4), ELEMENTS_4(s, i + 8), ELEMENTS_4(s, i + 12)
#define ELEMENTS_32(s) ELEMENTS_16(s, 0), ELEMENTS_16(s, 16)
#define ELEMENTS_64(s) ELEMENTS_32(s), ELEMENTS_16(s, 32), ELEMENTS_16(s, 48)
#define OPERANDS_32                                                                                       \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
  "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define OPERANDS_64                                                                                      \
  OPERANDS_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, " \
  "%49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// s = left right, or += where `add`, for 16 terms. DOWN: the rows of the right tile are terms. HALF: N / 2 elements of s;
// the operands after those are numbered.
#define PRODUCTS(T, name, N, HALF, left, right, add, down)                                                             \
  template <bool DOWN>                                                                                                 \
  __device__ inline void multiply(float (&s)[HALF], const unsigned (&a)[4], Descriptor b, bool adds, T) {              \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " add ", 0; wgmma.mma_async.sync.aligned.m64n" N "k16.f32." name "."   \
                 name " {" OPERANDS_##HALF "}, {" left "}, " right ", p, 1, 1, " down ";}"                             \
                 : ELEMENTS_##HALF(s)                                                                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(adds)), "n"(int(DOWN))                  \
                 : "memory");                                                                                          \
  }
// The same with a left factor from shared memory.
#define TILE_PRODUCTS(T, name, N, HALF, left, right, add, down)                                                        \
  template <bool DOWN>                                                                                                 \
  __device__ inline void multiply(float (&s)[HALF], Descriptor a, Descriptor b, bool adds, T) {                        \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " add ", 0; wgmma.mma_async.sync.aligned.m64n" N "k16.f32." name "."   \
                 name " {" OPERANDS_##HALF "}, " left ", " right ", p, 1, 1, 0, " down ";}"                            \
                 : ELEMENTS_##HALF(s)                                                                                  \
                 : "l"(a), "l"(b), "r"(int(adds)), "n"(int(DOWN))                                                      \
                 : "memory");                                                                                          \
  }
#define ALL_PRODUCTS(T, name)                                                                \
  PRODUCTS(T, name, "64", 32, "%32, %33, %34, %35", "%36", "%37", "%38")                     \
  PRODUCTS(T, name, "128", 64, "%64, %65, %66, %67", "%68", "%69", "%70")                    \
  TILE_PRODUCTS(T, name, "64", 32, "%32", "%33", "%34", "%35")                               \
  TILE_PRODUCTS(T, name, "128", 64, "%64", "%65", "%66", "%67")
ALL_PRODUCTS(__nv_bfloat16, "bf16")
ALL_PRODUCTS(__half, "f16")

__device__ inline unsigned pack(float x, float y, __nv_bfloat16) {
  unsigned r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(y), "f"(x));
  return r;
}
__device__ inline unsigned pack(float x, float y, __half) {
  unsigned r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(y), "f"(x));
  return r;
}
// An accumulator, rounded, as left factors of 16 terms each: a thread's elements stay where they are.
template <class T, int N> __device__ inline void to_left(unsigned (&left)[N / 8][4], const float (&s)[N]) {
#pragma unroll
  for (int i = 0; i < N / 2; i++) left[i / 4][i % 4] = pack(s[2 * i], s[2 * i + 1], T());
}
// A left factor from 16 rows of a tile, those of this warp: columns 16 d ... 16 d + 15.
template <int ROWS> __device__ inline void load_left(unsigned (&left)[4], const char* tile, int first_row, int d) {
  const int lane = threadIdx.x % 32, row = first_row + lane % 16, chunk = d * 2 + lane / 16;
  const char* p = tile + chunk / 8 * ROWS * 128 + row * 128 + ((chunk % 8) ^ (row % 8)) * 16;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(left[0]), "=r"(left[1]), "=r"(left[2]), "=r"(left[3]) : "r"(address(p)));
}

__device__ inline void copy_chunk(char* target, const void* source) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address(target)), "l"(__cvta_generic_to_global(source)) : "memory");
}
// ROWS rows of D elements of 16 bits, from row `first` on, the row before `end` in the place of those behind it.
template <int ROWS, int D, int THREADS, class T>
__device__ inline void load_tile(char* tile, const T* source, int first, int end, long stride) {
  constexpr int CHUNKS = D / 8, STEP = THREADS / CHUNKS;
  const int chunk = threadIdx.x % CHUNKS, mine = threadIdx.x / CHUNKS;
  char* to = tile + chunk / 8 * ROWS * 128 + mine * 128 + ((chunk % 8) ^ (mine % 8)) * 16;  // STEP is a multiple of 8
  if (first + ROWS <= end) {
    const T* from = source + long(first + mine) * stride + chunk * 8;
#pragma unroll
    for (int row = 0; row < ROWS; row += STEP) {
      copy_chunk(to + row * 128, from);
      from += STEP * stride;
    }
  } else {
#pragma unroll
    for (int row = 0; row < ROWS; row += STEP)
      copy_chunk(to + row * 128, source + long(min(first + row + mine, end - 1)) * stride + chunk * 8);
  }
}
// All copies of this thread have arrived, and the tensor cores see them after the next barrier.
__device__ inline void copies_arrive() { asm volatile("cp.async.wait_all;\n\tfence.proxy.async.shared::cta;" ::: "memory"); }

// The four lanes that share a row.
__device__ inline float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}
__device__ inline float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Hides what lies outside the columns first ... last of either row. `column`: of the thread's first score.
template <int N> __device__ inline void hide(float (&s)[N], int column, const int (&first)[2], const int (&last)[2]) {
#pragma unroll
  for (int i = 0; i < N; i++) {
    const int at = column + i / 4 * 8 + i % 2, r = i / 2 % 2;
    if (at < first[r] || at > last[r]) s[i] = -1e30f;
  }
}
// sum = left right^T for D terms: the right tile has a row for each column.
template <int ROWS, int D, class T, int N>
__device__ inline void row_products(float (&s)[N], const unsigned (&left)[D / 16][4], Descriptor tile) {
#pragma unroll
  for (int d = 0; d < D / 16; d++)
    multiply<false>(s, left[d], advanced(tile, d / 4 * ROWS * 128 + d % 4 * 32), d > 0, T());
}
template <int LEFT_ROWS, int ROWS, int D, class T, int N>
__device__ inline void tile_products(float (&s)[N], Descriptor left, Descriptor tile) {
#pragma unroll
  for (int d = 0; d < D / 16; d++)
    multiply<false>(s, advanced(left, d / 4 * LEFT_ROWS * 128 + d % 4 * 32),
                    advanced(tile, d / 4 * ROWS * 128 + d % 4 * 32), d > 0, T());
}
// sum += left right for K * 16 terms: the right tile has a row for each term.
template <class T, int K, int N>
__device__ inline void add_products(float (&s)[N], const unsigned (&left)[K][4], Descriptor tile) {
#pragma unroll
  for (int k = 0; k < K; k++) multiply<true>(s, left[k], advanced(tile, k * 2048), true, T());
}
// A warp's 16 rows, times a factor each, by way of shared memory: whole rows leave the chip 16 bytes a thread. `tile` has
// ROWS rows, of which the warp's begin at `first_row`; `target` is the first of them, `rows` how many there are.
template <int ROWS, class T, int N>
__device__ inline void store_rows(char* tile, int first_row, T* target, long stride, int rows, const float (&s)[N],
                                  float factor, float factor_below) {
  constexpr int CHUNKS = N / 4;
  const int lane = threadIdx.x % 32;
  auto chunk_at = [&](int row, int chunk) {
    return tile + chunk / 8 * ROWS * 128 + (first_row + row) * 128 + ((chunk % 8) ^ (row % 8)) * 16;
  };
#pragma unroll
  for (int i = 0; i < N / 2; i++) {
    const float f = i % 2 ? factor_below : factor;
    *reinterpret_cast<unsigned*>(chunk_at(lane / 4 + i % 2 * 8, i / 2) + lane % 4 * 4) = pack(s[2 * i] * f, s[2 * i + 1] * f, T());
  }
  __syncwarp();
#pragma unroll
  for (int i = lane; i < 16 * CHUNKS; i += 32)
    if (i / CHUNKS < rows)
      *reinterpret_cast<uint4*>(target + i / CHUNKS * stride + i % CHUNKS * 8) =
          *reinterpret_cast<const uint4*>(chunk_at(i / CHUNKS, i % CHUNKS));
}

// Two warpgroups take turns at giving products to the tensor cores, so that one computes while the other multiplies.
// The second passes the first turn before it waits for one.
__device__ inline void pass_turn() { asm volatile("bar.arrive %0, 256;" ::"r"(2 - int(threadIdx.x / 128)) : "memory"); }
__device__ inline void take_turn() { asm volatile("bar.sync %0, 256;" ::"r"(1 + int(threadIdx.x / 128)) : "memory"); }
}  // namespace warpgroup
