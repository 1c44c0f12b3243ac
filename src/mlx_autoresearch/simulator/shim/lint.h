// Declarations for the static pass: the same language in clang's real address spaces, so that clang -fsyntax-only finds a
// pointer that points into the wrong one. Nothing here is ever run; metal_sim.h is what runs.
#pragma once
#include "atomic_types.h"
#include "scalars.h"

typedef __bf16 bfloat;
typedef __bf16 bfloat16_t;
#define MSL_CONSTANT __attribute__((address_space(2)))
#define MSL_DEVICE __attribute__((address_space(1)))
#define MSL_THREADGROUP __attribute__((address_space(3)))
#pragma clang diagnostic ignored "-Wuser-defined-literals"
#pragma clang diagnostic ignored "-Wreserved-user-defined-literal"
half operator""h(long double);
bfloat operator""bf(long double);

namespace metal {
template <class T, int N> using vec = T __attribute__((ext_vector_type(N)));
#define MSL_VEC_NAMES(T)                                                     \
  typedef vec<T, 2> T##2; typedef vec<T, 3> T##3; typedef vec<T, 4> T##4;    \
  typedef vec<T, 2> packed_##T##2; typedef vec<T, 3> packed_##T##3; typedef vec<T, 4> packed_##T##4;
MSL_VEC_NAMES(float) MSL_VEC_NAMES(half) MSL_VEC_NAMES(bfloat) MSL_VEC_NAMES(int) MSL_VEC_NAMES(uint)
MSL_VEC_NAMES(short) MSL_VEC_NAMES(ushort) MSL_VEC_NAMES(char) MSL_VEC_NAMES(uchar) MSL_VEC_NAMES(long)
MSL_VEC_NAMES(ulong) MSL_VEC_NAMES(bool)
template <class V, class... A> V construct(A...);

template <class A, class B> inline constexpr bool is_same_v = __is_same(A, B);
template <bool B, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <bool B, class T = void> using enable_if_t = typename enable_if<B, T>::type;
template <class T> struct numeric_limits {
  static T max(), min(), lowest(), infinity(), quiet_NaN(), epsilon();
};
template <class D, class S> D as_type(S);

enum class mem_flags { mem_none, mem_device, mem_threadgroup, mem_texture };
mem_flags operator|(mem_flags, mem_flags);
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);

#define MSL_FLOAT_1(name, value) float name(float); half name(half); bfloat name(bfloat); \
  template <class T, int N> vec<T, N> name(vec<T, N>);
#define MSL_FLOAT_2(name, value) float name(float, float); half name(half, half); bfloat name(bfloat, bfloat); \
  template <class T, int N> vec<T, N> name(vec<T, N>, vec<T, N>);
#define MSL_FLOAT_3(name, value) float name(float, float, float); half name(half, half, half); \
  bfloat name(bfloat, bfloat, bfloat); template <class T, int N> vec<T, N> name(vec<T, N>, vec<T, N>, vec<T, N>);
#define MSL_TEST(name, value) bool name(float);
#define MSL_INTEGER_1(name, value) template <class T> T name(T);
#define MSL_REDUCTION(name, value) template <class T> T simd_##name(T); template <class T> T quad_##name(T);
#define MSL_SHUFFLE(name, width) template <class T> T name(T, ushort);
#include "functions.def"
namespace fast {
#define MSL_FLOAT_1(name, value) using metal::name;
#define MSL_FLOAT_2(name, value) using metal::name;
#define MSL_FLOAT_3(name, value) using metal::name;
#include "functions.def"
}
namespace precise {
#define MSL_FLOAT_1(name, value) using metal::name;
#define MSL_FLOAT_2(name, value) using metal::name;
#define MSL_FLOAT_3(name, value) using metal::name;
#include "functions.def"
}
#define MSL_ORDERED(T) T max(T, T); T min(T, T); T clamp(T, T, T); T abs(T); T max3(T, T, T); T min3(T, T, T); T median3(T, T, T);
MSL_ORDERED(int) MSL_ORDERED(uint) MSL_ORDERED(short) MSL_ORDERED(ushort) MSL_ORDERED(char) MSL_ORDERED(uchar)
MSL_ORDERED(long) MSL_ORDERED(ulong) MSL_ORDERED(float) MSL_ORDERED(half) MSL_ORDERED(bfloat)
template <class T, int N> vec<T, N> max(vec<T, N>, vec<T, N>);
template <class T, int N> vec<T, N> min(vec<T, N>, vec<T, N>);
template <class T, int N> vec<T, N> abs(vec<T, N>);
namespace fast { using metal::max; using metal::min; using metal::clamp; using metal::abs; }
namespace precise { using metal::max; using metal::min; using metal::clamp; using metal::abs; }
uint mulhi(uint, uint);
uint reverse_bits(uint);
uint rotate(uint, uint);
uint extract_bits(uint, uint, uint);
float ldexp(float, int);
float sincos(float, float&);
template <class T, int N> T dot(vec<T, N>, vec<T, N>);
template <class T, int N> T length(vec<T, N>);
template <class T, int N> T length_squared(vec<T, N>);
template <class T, int N> T distance(vec<T, N>, vec<T, N>);
template <class T, int N> vec<T, N> normalize(vec<T, N>);
template <class T> vec<T, 3> cross(vec<T, 3>, vec<T, 3>);
template <int N> bool any(vec<bool, N>);
template <int N> bool all(vec<bool, N>);
template <class T, class B> T select(T, T, B);

#define MSL_LANES(name) template <class T> T name(T);
MSL_LANES(simd_broadcast_first) MSL_LANES(simd_prefix_inclusive_sum) MSL_LANES(simd_prefix_exclusive_sum)
MSL_LANES(simd_prefix_inclusive_product) MSL_LANES(simd_prefix_exclusive_product)
template <class T> T simd_shuffle_and_fill_up(T, T, ushort);
template <class T> T simd_shuffle_and_fill_down(T, T, ushort);
struct simd_vote { explicit operator ulong() const; bool any() const, all() const; };
simd_vote simd_ballot(bool);
simd_vote simd_active_threads_mask();
bool simd_any(bool), simd_all(bool), simd_is_first();

template <class T, int R, int C = R> struct simdgroup_matrix {
  typedef vec<T, 2> storage_type;
  simdgroup_matrix();
  explicit simdgroup_matrix(T);
  storage_type& thread_elements();
  const storage_type& thread_elements() const;
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
template <class T, int R, int C = R> simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T);
#define MSL_MATRIX_MEMORY(SPACE)                                                                                        \
  template <class T> void simdgroup_load(simdgroup_matrix<T, 8, 8>&, const SPACE T*, ulong = 8, ulong2 = 0, bool = false); \
  template <class T> void simdgroup_store(const simdgroup_matrix<T, 8, 8>&, SPACE T*, ulong = 8, ulong2 = 0, bool = false);
MSL_MATRIX_MEMORY(MSL_DEVICE) MSL_MATRIX_MEMORY(MSL_THREADGROUP)
template <class D, class A, class B, class C>
void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>&, const simdgroup_matrix<A, 8, 8>&,
                                   const simdgroup_matrix<B, 8, 8>&, const simdgroup_matrix<C, 8, 8>&);
template <class D, class A, class B>
void simdgroup_multiply(simdgroup_matrix<D, 8, 8>&, const simdgroup_matrix<A, 8, 8>&, const simdgroup_matrix<B, 8, 8>&);

#define MSL_ATOMIC_1(SPACE, name) template <class T, class U> T name(volatile SPACE atomic<T>*, U, memory_order);
#define MSL_ATOMICS(SPACE)                                                                                       \
  MSL_ATOMIC_1(SPACE, atomic_fetch_add_explicit) MSL_ATOMIC_1(SPACE, atomic_fetch_sub_explicit)                  \
  MSL_ATOMIC_1(SPACE, atomic_fetch_max_explicit) MSL_ATOMIC_1(SPACE, atomic_fetch_min_explicit)                  \
  MSL_ATOMIC_1(SPACE, atomic_fetch_and_explicit) MSL_ATOMIC_1(SPACE, atomic_fetch_or_explicit)                   \
  MSL_ATOMIC_1(SPACE, atomic_fetch_xor_explicit) MSL_ATOMIC_1(SPACE, atomic_exchange_explicit)                   \
  template <class T, class U> void atomic_store_explicit(volatile SPACE atomic<T>*, U, memory_order);            \
  template <class T> T atomic_load_explicit(const volatile SPACE atomic<T>*, memory_order);                      \
  template <class T, class U>                                                                                    \
  bool atomic_compare_exchange_weak_explicit(volatile SPACE atomic<T>*, T*, U, memory_order, memory_order);
MSL_ATOMICS(MSL_DEVICE) MSL_ATOMICS(MSL_THREADGROUP)
}  // namespace metal
using namespace metal;

template <class U> struct Limits { static const U max, min, finite_max, finite_min; };
template <typename T, typename U> T ceildiv(T, U);
template <typename I = int64_t> I elem_to_loc(I, const MSL_CONSTANT int*, const MSL_CONSTANT int64_t*, int);
template <typename I = int64_t> I elem_to_loc(uint3, const MSL_CONSTANT int*, const MSL_CONSTANT int64_t*, int);
template <typename I = int64_t> I elem_to_loc_1(uint, const MSL_CONSTANT int64_t&);
template <typename I = int64_t> I elem_to_loc_2(uint2, const MSL_CONSTANT int64_t*);
template <typename I = int64_t> I elem_to_loc_3(uint3, const MSL_CONSTANT int64_t*);

#define device MSL_DEVICE
#define constant MSL_CONSTANT
#define threadgroup MSL_THREADGROUP
#define thread
#define kernel
// A vector type's name followed by a parenthesis is a constructor, which clang's vectors do not have.
#define float2(...) metal::construct<float2>(__VA_ARGS__)
#define float3(...) metal::construct<float3>(__VA_ARGS__)
#define float4(...) metal::construct<float4>(__VA_ARGS__)
#define half2(...) metal::construct<half2>(__VA_ARGS__)
#define half3(...) metal::construct<half3>(__VA_ARGS__)
#define half4(...) metal::construct<half4>(__VA_ARGS__)
#define bfloat2(...) metal::construct<bfloat2>(__VA_ARGS__)
#define bfloat3(...) metal::construct<bfloat3>(__VA_ARGS__)
#define bfloat4(...) metal::construct<bfloat4>(__VA_ARGS__)
#define int2(...) metal::construct<int2>(__VA_ARGS__)
#define int3(...) metal::construct<int3>(__VA_ARGS__)
#define int4(...) metal::construct<int4>(__VA_ARGS__)
#define uint2(...) metal::construct<uint2>(__VA_ARGS__)
#define uint3(...) metal::construct<uint3>(__VA_ARGS__)
#define uint4(...) metal::construct<uint4>(__VA_ARGS__)
#define short2(...) metal::construct<short2>(__VA_ARGS__)
#define short3(...) metal::construct<short3>(__VA_ARGS__)
#define short4(...) metal::construct<short4>(__VA_ARGS__)
#define ushort2(...) metal::construct<ushort2>(__VA_ARGS__)
#define ushort3(...) metal::construct<ushort3>(__VA_ARGS__)
#define ushort4(...) metal::construct<ushort4>(__VA_ARGS__)
#define char2(...) metal::construct<char2>(__VA_ARGS__)
#define char3(...) metal::construct<char3>(__VA_ARGS__)
#define char4(...) metal::construct<char4>(__VA_ARGS__)
#define uchar2(...) metal::construct<uchar2>(__VA_ARGS__)
#define uchar3(...) metal::construct<uchar3>(__VA_ARGS__)
#define uchar4(...) metal::construct<uchar4>(__VA_ARGS__)
#define long2(...) metal::construct<long2>(__VA_ARGS__)
#define long3(...) metal::construct<long3>(__VA_ARGS__)
#define long4(...) metal::construct<long4>(__VA_ARGS__)
#define ulong2(...) metal::construct<ulong2>(__VA_ARGS__)
#define ulong3(...) metal::construct<ulong3>(__VA_ARGS__)
#define ulong4(...) metal::construct<ulong4>(__VA_ARGS__)
#define bool2(...) metal::construct<bool2>(__VA_ARGS__)
#define bool3(...) metal::construct<bool3>(__VA_ARGS__)
#define bool4(...) metal::construct<bool4>(__VA_ARGS__)
