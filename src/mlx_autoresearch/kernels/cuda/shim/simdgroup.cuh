// Barriers and simdgroup operations. A simdgroup is a warp, all of whose lanes must take part.
namespace mlx::core::cu {
inline namespace metal {
enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
METAL_FUNC constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }

METAL_FUNC void threadgroup_barrier(mem_flags) { __syncthreads(); }
METAL_FUNC void simdgroup_barrier(mem_flags) { __syncwarp(); }

namespace detail {
METAL_FUNC int lane() {
  int lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

// A shuffle in words of 32 bits, for any type.
template <class T, class Shuffle> METAL_FUNC T exchange(T x, Shuffle shuffle) {
  constexpr int words = (sizeof(T) + 3) / 4;
  uint w[words] = {};
  memcpy(w, &x, sizeof x);
#pragma unroll
  for (int i = 0; i < words; i++) w[i] = shuffle(w[i]);
  memcpy(&x, w, sizeof x);
  return x;
}
}  // namespace detail

#define MSL_SHUFFLE(name, intrinsic, operand, width)                                               \
  template <class T> METAL_FUNC T name(T x, ushort n) {                                            \
    return detail::exchange(x, [=](uint w) { return intrinsic(0xffffffffu, w, operand, width); }); \
  }
MSL_SHUFFLE(simd_shuffle, __shfl_sync, n, 32)
MSL_SHUFFLE(simd_broadcast, __shfl_sync, n, 32)
MSL_SHUFFLE(simd_shuffle_xor, __shfl_xor_sync, n, 32)
MSL_SHUFFLE(simd_shuffle_up, __shfl_up_sync, n, 32)
MSL_SHUFFLE(simd_shuffle_down, __shfl_down_sync, n, 32)
MSL_SHUFFLE(simd_shuffle_rotate_up, __shfl_sync, (detail::lane() - n) & 31, 32)
MSL_SHUFFLE(simd_shuffle_rotate_down, __shfl_sync, (detail::lane() + n) & 31, 32)
MSL_SHUFFLE(quad_shuffle, __shfl_sync, n, 4)
MSL_SHUFFLE(quad_broadcast, __shfl_sync, n, 4)
MSL_SHUFFLE(quad_shuffle_xor, __shfl_xor_sync, n, 4)
MSL_SHUFFLE(quad_shuffle_up, __shfl_up_sync, n, 4)
MSL_SHUFFLE(quad_shuffle_down, __shfl_down_sync, n, 4)
MSL_SHUFFLE(quad_shuffle_rotate_up, __shfl_sync, (detail::lane() - n) & 3, 4)
MSL_SHUFFLE(quad_shuffle_rotate_down, __shfl_sync, (detail::lane() + n) & 3, 4)
#undef MSL_SHUFFLE

// Every lane gets the same bits: at each step both lanes of a pair combine the same two values.
#define MSL_REDUCTION(name, value)                              \
  template <class T> METAL_FUNC T simd_##name(T a) {            \
    _Pragma("unroll") for (int step = 1; step < 32; step *= 2) { \
      const T b = simd_shuffle_xor(a, ushort(step));            \
      a = T(value);                                             \
    }                                                           \
    return a;                                                   \
  }                                                             \
  template <class T> METAL_FUNC T quad_##name(T a) {            \
    _Pragma("unroll") for (int step = 1; step < 4; step *= 2) { \
      const T b = simd_shuffle_xor(a, ushort(step));            \
      a = T(value);                                             \
    }                                                           \
    return a;                                                   \
  }
#include "functions.def"

#define MSL_SCAN(name, op, neutral)                                          \
  template <class T> METAL_FUNC T simd_prefix_inclusive_##name(T x) {        \
    _Pragma("unroll") for (int step = 1; step < 32; step *= 2) {             \
      const T below = simd_shuffle_up(x, ushort(step));                      \
      if (detail::lane() >= step) x = below op x;                            \
    }                                                                        \
    return x;                                                                \
  }                                                                          \
  template <class T> METAL_FUNC T simd_prefix_exclusive_##name(T x) {        \
    const T below = simd_shuffle_up(simd_prefix_inclusive_##name(x), ushort(1)); \
    return detail::lane() == 0 ? T(neutral) : below;                         \
  }
MSL_SCAN(sum, +, 0)
MSL_SCAN(product, *, 1)
#undef MSL_SCAN

template <class T> METAL_FUNC T simd_broadcast_first(T x) { return simd_broadcast(x, ushort(0)); }
template <class T> METAL_FUNC T simd_shuffle_and_fill_down(T x, T fill, ushort n) {
  const T moved = simd_shuffle_down(x, n);
  return detail::lane() + n < 32 ? moved : fill;
}
template <class T> METAL_FUNC T simd_shuffle_and_fill_up(T x, T fill, ushort n) {
  const T moved = simd_shuffle_up(x, n);
  return detail::lane() >= n ? moved : fill;
}

struct simd_vote {
  uint mask;
  METAL_FUNC explicit operator ulong() const { return mask; }
  METAL_FUNC bool any() const { return mask != 0; }
  METAL_FUNC bool all() const { return mask == ~0u; }
};
METAL_FUNC simd_vote simd_ballot(bool x) { return {__ballot_sync(0xffffffffu, x)}; }
METAL_FUNC simd_vote simd_active_threads_mask() { return {0xffffffffu}; }
METAL_FUNC bool simd_any(bool x) { return __any_sync(0xffffffffu, x); }
METAL_FUNC bool simd_all(bool x) { return __all_sync(0xffffffffu, x); }
METAL_FUNC bool simd_is_first() { return detail::lane() == 0; }
}  // namespace metal
}  // namespace mlx::core::cu
