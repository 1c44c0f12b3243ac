// 8x8 simdgroup matrices in the tensor cores' accumulator layout: columns lane % 4 * 2 + {0, 1} of row lane / 4.
namespace mlx::core::cu {
inline namespace metal {
namespace detail {
METAL_FUNC int fragment_row() { return lane() / 4; }
METAL_FUNC int fragment_column() { return lane() % 4 * 2; }

// The transpose of a fragment of 16-bit elements.
METAL_FUNC uint transposed(uint pair) {
  uint result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}
// Whether both elements of a lane can be accessed at once, in every row. Mostly known when compiling: of an address in
// threadgroup memory, unlike one that may be anywhere, the compiler knows the lowest bits.
template <class T> METAL_FUNC bool pairs_are_aligned(const T* p, ulong elements_per_row) {
  const ulong address = __isShared(p) ? __cvta_generic_to_shared(p) : reinterpret_cast<ulong>(p);
  return (address | elements_per_row * sizeof(T)) % sizeof(vec<T, 2>) == 0;
}
}  // namespace detail

template <class T, int Rows, int Columns = Rows> struct simdgroup_matrix {
  static_assert(Rows == 8 && Columns == 8, "simdgroup matrices are 8x8");
  using storage_type = vec<T, 2>;
  storage_type elements;
  simdgroup_matrix() = default;
  METAL_FUNC explicit simdgroup_matrix(T diagonal) {
    for (int e = 0; e < 2; e++)
      elements[e] = detail::fragment_row() == detail::fragment_column() + e ? diagonal : T(0.0f);
  }
  METAL_FUNC storage_type& thread_elements() { return elements; }
  METAL_FUNC const storage_type& thread_elements() const { return elements; }
};
using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;

template <class T, int Rows, int Columns = Rows>
METAL_FUNC simdgroup_matrix<T, Rows, Columns> make_filled_simdgroup_matrix(T x) {
  simdgroup_matrix<T, Rows, Columns> m;
  m.elements = vec<T, 2>(x);
  return m;
}

template <class T>
METAL_FUNC void simdgroup_load(simdgroup_matrix<T, 8, 8>& m, const T* source, ulong elements_per_row = 8,
                               ulong2 origin = ulong2(0), bool transpose = false) {
  source += origin.y * elements_per_row + origin.x;
  const int row = detail::fragment_row(), column = detail::fragment_column();
  const bool at_once = detail::pairs_are_aligned(source, elements_per_row);
  if (at_once && (!transpose || sizeof(T) == 2)) {
    m.elements = *reinterpret_cast<const vec<T, 2>*>(source + row * elements_per_row + column);
    if constexpr (sizeof(T) == 2) {
      if (transpose) m.elements = as_type<vec<T, 2>>(detail::transposed(as_type<uint>(m.elements)));
    }
  } else {
#pragma unroll
    for (int e = 0; e < 2; e++)
      m.elements[e] = source[transpose ? (column + e) * elements_per_row + row : row * elements_per_row + column + e];
  }
}

template <class T>
METAL_FUNC void simdgroup_store(const simdgroup_matrix<T, 8, 8>& m, T* target, ulong elements_per_row = 8,
                                ulong2 origin = ulong2(0), bool transpose = false) {
  target += origin.y * elements_per_row + origin.x;
  const int row = detail::fragment_row(), column = detail::fragment_column();
  if (!transpose && detail::pairs_are_aligned(target, elements_per_row)) {
    *reinterpret_cast<vec<T, 2>*>(target + row * elements_per_row + column) = m.elements;
  } else {
#pragma unroll
    for (int e = 0; e < 2; e++)
      target[transpose ? (column + e) * elements_per_row + row : row * elements_per_row + column + e] = m.elements[e];
  }
}

// In float32 throughout: tensor cores would round the operands to 10 bits.
METAL_FUNC void simdgroup_multiply_accumulate(simdgroup_float8x8& d, const simdgroup_float8x8& a,
                                              const simdgroup_float8x8& b, const simdgroup_float8x8& c) {
  const int lane = detail::lane();
  float2 sum = c.elements;
#pragma unroll
  for (int k = 0; k < 8; k++) {
    const float left = __shfl_sync(0xffffffffu, a.elements[k % 2], lane / 4 * 4 + k / 2);
#pragma unroll
    for (int e = 0; e < 2; e++)
      sum[e] = ::fmaf(left, __shfl_sync(0xffffffffu, b.elements[e], k * 4 + lane % 4), sum[e]);
  }
  d.elements = sum;
}

// The same of 16-bit elements that no tensor core multiplies. Called, since hundreds of them in a row compile for minutes.
__device__ __noinline__ float2 product_of_widened(float2 a, float2 b, float2 c) {
  simdgroup_float8x8 left, right, sum;
  left.elements = a, right.elements = b, sum.elements = c;
  simdgroup_multiply_accumulate(sum, left, right, sum);
  return sum.elements;
}
template <class T>
METAL_FUNC void simdgroup_multiply_accumulate(simdgroup_float8x8& d, const simdgroup_matrix<T, 8, 8>& a,
                                              const simdgroup_matrix<T, 8, 8>& b, const simdgroup_float8x8& c) {
  d.elements = product_of_widened(float2(float(a.elements[0]), float(a.elements[1])),
                                  float2(float(b.elements[0]), float(b.elements[1])), c.elements);
}

// On tensor cores, whose product has 16 rows: the lower 8 are zeros. They want the right operand transposed.
#define MSL_MULTIPLY(T, ptx)                                                                                        \
  METAL_FUNC void simdgroup_multiply_accumulate(simdgroup_float8x8& d, const simdgroup_matrix<T, 8, 8>& a,          \
                                                const simdgroup_matrix<T, 8, 8>& b, const simdgroup_float8x8& c) {  \
    float sum[4];                                                                                                   \
    asm("mma.sync.aligned.m16n8k8.row.col.f32." ptx "." ptx ".f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %9};" \
        : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])                                                    \
        : "r"(as_type<uint>(a.elements)), "r"(0u), "r"(detail::transposed(as_type<uint>(b.elements))),              \
          "f"(c.elements[0]), "f"(c.elements[1]), "f"(0.0f));                                                       \
    d.elements = float2(sum[0], sum[1]);                                                                            \
  }
MSL_MULTIPLY(half, "f16")
#if __CUDA_ARCH__ >= 800
MSL_MULTIPLY(bfloat, "bf16")
#endif
#undef MSL_MULTIPLY

template <class D, class T>
METAL_FUNC void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<T, 8, 8>& a,
                                   const simdgroup_matrix<T, 8, 8>& b) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>(D(0.0f)));
}

// What custom_kernels/fragments.h takes in the place of Metal's own operations: 16 x 16 by 16 x 8 in one instruction,
// whose right factor lies transposed, four 8 x 8 matrices loaded at once, and copies into threadgroup memory that go on
// meanwhile. float32 is multiplied as above, and its right factors lie as they are.
#define MSL_TENSOR_CORES 1
#if __CUDA_ARCH__ >= 800
#define MSL_MULTIPLY_ADD(T, ptx)                                                                                       \
  METAL_FUNC void tensor_core_multiply_add(simdgroup_float8x8 (&sum)[2], const simdgroup_matrix<T, 8, 8> (&left)[2][2], \
                                           const simdgroup_matrix<T, 8, 8> (&right)[2]) {                              \
    float c[4] = {sum[0].elements[0], sum[0].elements[1], sum[1].elements[0], sum[1].elements[1]};                     \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." ptx "." ptx                                                           \
        ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                         \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                               \
        : "r"(as_type<uint>(left[0][0].elements)), "r"(as_type<uint>(left[1][0].elements)),                            \
          "r"(as_type<uint>(left[0][1].elements)), "r"(as_type<uint>(left[1][1].elements)),                            \
          "r"(as_type<uint>(right[0].elements)), "r"(as_type<uint>(right[1].elements)));                               \
    sum[0].elements = float2(c[0], c[1]);                                                                              \
    sum[1].elements = float2(c[2], c[3]);                                                                              \
  }
MSL_MULTIPLY_ADD(half, "f16")
MSL_MULTIPLY_ADD(bfloat, "bf16")
#undef MSL_MULTIPLY_ADD
#else  // whose products have 8 terms, of half alone
template <class T>
METAL_FUNC void tensor_core_multiply_add(simdgroup_float8x8 (&sum)[2], const simdgroup_matrix<T, 8, 8> (&left)[2][2],
                                         const simdgroup_matrix<T, 8, 8> (&right)[2]) {
#pragma unroll
  for (int k = 0; k < 2; k++) {
    simdgroup_matrix<T, 8, 8> upright;
    upright.elements = as_type<vec<T, 2>>(detail::transposed(as_type<uint>(right[k].elements)));
#pragma unroll
    for (int r = 0; r < 2; r++) simdgroup_multiply_accumulate(sum[r], left[r][k], upright, sum[r]);
  }
}
#endif
METAL_FUNC void tensor_core_multiply_add(simdgroup_float8x8 (&sum)[2], const simdgroup_float8x8 (&left)[2][2],
                                         const simdgroup_float8x8 (&right)[2]) {
#pragma unroll
  for (int i = 0; i < 4; i++) simdgroup_multiply_accumulate(sum[i % 2], left[i % 2][i / 2], right[i / 2], sum[i % 2]);
}

// Two right factors; DOWN: their terms run down the tile's columns.
template <bool DOWN, class T>
METAL_FUNC void tensor_core_load(simdgroup_matrix<T, 8, 8> (&first)[2], simdgroup_matrix<T, 8, 8> (&second)[2],
                                 const T* tile, int stride) {
  if constexpr (sizeof(T) == 2) {
    const int lane = detail::lane(), term = lane / 8 % 2 * 8, line = lane / 16 * 8;
    const T* row = tile + ((DOWN ? term : line) + lane % 8) * stride + (DOWN ? line : term);
    uint m[4];
    if constexpr (DOWN)
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(uint(__cvta_generic_to_shared(row))));
    else
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(uint(__cvta_generic_to_shared(row))));
#pragma unroll
    for (int i = 0; i < 2; i++) {
      first[i].elements = as_type<vec<T, 2>>(m[i]);
      second[i].elements = as_type<vec<T, 2>>(m[2 + i]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      simdgroup_load(first[i], tile + (DOWN ? i * 8 * stride : i * 8), stride, ulong2(0), !DOWN);
      simdgroup_load(second[i], tile + (DOWN ? i * 8 * stride + 8 : 8 * stride + i * 8), stride, ulong2(0), !DOWN);
    }
  }
}

template <class T> METAL_FUNC void copy_async(T* target, const T* source) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :: "r"(uint(__cvta_generic_to_shared(target))), "l"(__cvta_generic_to_global(source)) : "memory");
#else
  *reinterpret_cast<uint4*>(target) = *reinterpret_cast<const uint4*>(source);
#endif
}
METAL_FUNC void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
}  // namespace metal
}  // namespace mlx::core::cu
