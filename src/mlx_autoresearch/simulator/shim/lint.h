// Declarations for the static pass, in C++ for OpenCL: that has Metal's address spaces, by other names, and member
// functions whose implicit `this` is generic, as in Metal 4.1. Nothing here is ever run; metal_sim.h is what runs.
#pragma once
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
// Words that OpenCL reserves and Metal does not, and names that it gives itself.
#define global msl_global
#define local msl_local
#define generic msl_generic
#define pipe msl_pipe
#define read_only msl_read_only
#define write_only msl_write_only
#define read_write msl_read_write
#define atomic_int msl_atomic_int
#define atomic_uint msl_atomic_uint
#define atomic_ulong msl_atomic_ulong
#define atomic_float msl_atomic_float
#include "atomic_types.h"
#include "scalars.h"

typedef __bf16 bfloat;
typedef __bf16 bfloat16_t;
#define device __global
#define constant __constant
#define threadgroup __local
#define thread __private
#include "traits.h"

namespace metal {
template <class T, int N> using vec = T __attribute__((ext_vector_type(N)));
#define MSL_VEC_NAMES(T)                                                     \
  typedef vec<T, 2> T##2; typedef vec<T, 3> T##3; typedef vec<T, 4> T##4;    \
  typedef vec<T, 2> packed_##T##2; typedef vec<T, 3> packed_##T##3; typedef vec<T, 4> packed_##T##4;
MSL_VEC_NAMES(float) MSL_VEC_NAMES(half) MSL_VEC_NAMES(bfloat) MSL_VEC_NAMES(int) MSL_VEC_NAMES(uint)
MSL_VEC_NAMES(short) MSL_VEC_NAMES(ushort) MSL_VEC_NAMES(char) MSL_VEC_NAMES(uchar) MSL_VEC_NAMES(long)
MSL_VEC_NAMES(ulong)
// OpenCL compares vectors to vectors of integers, and has none of bool.
template <int N> struct bools {
  bool x, y, z, w;
  bools();
  template <class... A> bools(A...);
  bool operator[](int) const;
  bools operator!() const;
  template <class A> bools operator&&(A) const;
  template <class A> bools operator||(A) const;
};
typedef bools<2> bool2; typedef bools<3> bool3; typedef bools<4> bool4;
template <class V, class... A> V construct(A...);

template <class T> struct numeric_limits {
  static T max(), min(), lowest(), infinity(), quiet_NaN(), epsilon();
};
template <class D, class S> D as_type(S);

namespace detail {
#include "operands.h"
}

enum class mem_flags { mem_none, mem_device, mem_threadgroup, mem_texture };
mem_flags operator|(mem_flags, mem_flags);
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);

#define MSL_VECTORS_1(Result, name) template <class A, class V = detail::vector_1<A>> detail::with_type<Result, V> name(A);
#define MSL_VECTORS_2(Result, name) \
  template <class A, class B, class V = detail::vector_2<A, B>> detail::with_type<Result, V> name(A, B);
#define MSL_VECTORS_3(Result, name) \
  template <class A, class B, class C, class V = detail::vector_3<A, B, C>> detail::with_type<Result, V> name(A, B, C);
#define MSL_SAME detail::component<V>
#define MSL_FLOAT_1(name, value) float name(float); half name(half); bfloat name(bfloat); MSL_VECTORS_1(MSL_SAME, name)
#define MSL_FLOAT_2(name, value) \
  float name(float, float); half name(half, half); bfloat name(bfloat, bfloat); MSL_VECTORS_2(MSL_SAME, name)
#define MSL_FLOAT_3(name, value) float name(float, float, float); half name(half, half, half); \
  bfloat name(bfloat, bfloat, bfloat); MSL_VECTORS_3(MSL_SAME, name)
#define MSL_TEST_1(name, value) \
  bool name(float); template <class A, class V = detail::vector_1<A>> bools<detail::operand<V>::n> name(A);
#define MSL_TEST_2(name, value) bool name(float, float); \
  template <class A, class B, class V = detail::vector_2<A, B>> bools<detail::operand<V>::n> name(A, B);
#define MSL_INTEGER_1(name, value) template <class T> T name(T);
#define MSL_INTEGER_2(name, value) template <class T, enable_if_t<__is_integral(T), int> = 0> T name(T, T); MSL_VECTORS_2(MSL_SAME, name)
#define MSL_INTEGER_3(name, value) template <class T, enable_if_t<__is_integral(T), int> = 0> T name(T, T, T); MSL_VECTORS_3(MSL_SAME, name)
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
MSL_ORDERED(long) MSL_ORDERED(ulong) MSL_ORDERED(float) MSL_ORDERED(half) MSL_ORDERED(bfloat) MSL_ORDERED(int8_t)
MSL_VECTORS_1(MSL_SAME, abs) MSL_VECTORS_2(MSL_SAME, max) MSL_VECTORS_2(MSL_SAME, min) MSL_VECTORS_3(MSL_SAME, clamp)
MSL_VECTORS_3(MSL_SAME, max3) MSL_VECTORS_3(MSL_SAME, min3) MSL_VECTORS_3(MSL_SAME, median3)
MSL_VECTORS_2(MSL_SAME, nextafter) MSL_VECTORS_2(MSL_SAME, cross) MSL_VECTORS_2(MSL_SAME, reflect)
MSL_VECTORS_3(MSL_SAME, faceforward) MSL_VECTORS_1(MSL_SAME, normalize) MSL_VECTORS_2(MSL_SAME, absdiff)
namespace fast { using metal::max; using metal::min; using metal::clamp; using metal::abs; }
namespace precise { using metal::max; using metal::min; using metal::clamp; using metal::abs; }
template <class T> T extract_bits(T, uint, uint);
template <class T> T insert_bits(T, T, uint, uint);
template <class T, enable_if_t<__is_integral(T), int> = 0> T absdiff(T, T);
template <class T, enable_if_t<is_scalar_number<T>, int> = 0> T nextafter(T, T);
template <class T> T sincos(T, thread T&);
template <class T> T modf(T, thread T&);
template <class T, class N> T frexp(T, thread N&);
template <class T, class N> T ldexp(T, N);
int ilogb(float);
template <class A, class V = detail::vector_1<A>> detail::with_type<int, V> ilogb(A);
#define MSL_MEASURE_1(name) template <class A, class V = detail::vector_1<A>> detail::component<V> name(A);
#define MSL_MEASURE_2(name) template <class A, class B, class V = detail::vector_2<A, B>> detail::component<V> name(A, B);
MSL_MEASURE_1(length) MSL_MEASURE_1(length_squared) MSL_MEASURE_2(dot) MSL_MEASURE_2(distance) MSL_MEASURE_2(distance_squared)
template <class A, class B, class V = detail::vector_2<A, B>> V refract(A, B, detail::component<V>);
template <class A> bool any(A);
template <class A> bool all(A);
template <class T, class B> T select(T, T, B);

#define MSL_LANES(name) template <class T> T name(T);
#define MSL_GROUP(group, vote_type)                                                                             \
  MSL_LANES(group##_broadcast_first)                                                                            \
  MSL_LANES(group##_prefix_inclusive_sum) MSL_LANES(group##_prefix_exclusive_sum)                               \
  MSL_LANES(group##_prefix_inclusive_product) MSL_LANES(group##_prefix_exclusive_product)                       \
  template <class T> T group##_shuffle_and_fill_up(T, T, ushort, ushort = 0);                                   \
  template <class T> T group##_shuffle_and_fill_down(T, T, ushort, ushort = 0);                                 \
  struct group##_vote {                                                                                         \
    typedef vote_type vote_t;                                                                                   \
    explicit group##_vote(vote_t = 0);                                                                          \
    explicit operator vote_t() const;                                                                           \
    bool any() const, all() const;                                                                              \
  };                                                                                                            \
  group##_vote group##_ballot(bool);                                                                            \
  group##_vote group##_active_threads_mask();                                                                   \
  bool group##_any(bool), group##_all(bool), group##_is_first();
MSL_GROUP(simd, ulong) MSL_GROUP(quad, ushort)

template <class T, int R, int C = R> struct simdgroup_matrix {
  typedef vec<T, 2> storage_type;
  simdgroup_matrix();
  explicit simdgroup_matrix(T);
  storage_type& thread_elements();
  thread storage_type& thread_elements() thread;
  const thread storage_type& thread_elements() const thread;
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
template <class T, int R, int C = R> simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T);
#define MSL_MATRIX_MEMORY(SPACE)                                                                                        \
  template <class T> void simdgroup_load(thread simdgroup_matrix<T, 8, 8>&, const SPACE T*, ulong = 8, ulong2 = 0, bool = false); \
  template <class T> void simdgroup_store(const thread simdgroup_matrix<T, 8, 8>&, SPACE T*, ulong = 8, ulong2 = 0, bool = false);
MSL_MATRIX_MEMORY(device) MSL_MATRIX_MEMORY(threadgroup)
template <class D, class A, class B, class C>
void simdgroup_multiply_accumulate(thread simdgroup_matrix<D, 8, 8>&, const thread simdgroup_matrix<A, 8, 8>&,
                                   const thread simdgroup_matrix<B, 8, 8>&, const thread simdgroup_matrix<C, 8, 8>&);
template <class D, class A, class B>
void simdgroup_multiply(thread simdgroup_matrix<D, 8, 8>&, const thread simdgroup_matrix<A, 8, 8>&,
                        const thread simdgroup_matrix<B, 8, 8>&);

#define MSL_ATOMIC_1(SPACE, name) template <class T, class U> T name(volatile SPACE atomic<T>*, U, memory_order);
#define MSL_ATOMICS(SPACE)                                                                                       \
  MSL_ATOMIC_1(SPACE, atomic_fetch_add_explicit) MSL_ATOMIC_1(SPACE, atomic_fetch_sub_explicit)                  \
  MSL_ATOMIC_1(SPACE, atomic_fetch_max_explicit) MSL_ATOMIC_1(SPACE, atomic_fetch_min_explicit)                  \
  MSL_ATOMIC_1(SPACE, atomic_fetch_and_explicit) MSL_ATOMIC_1(SPACE, atomic_fetch_or_explicit)                   \
  MSL_ATOMIC_1(SPACE, atomic_fetch_xor_explicit) MSL_ATOMIC_1(SPACE, atomic_exchange_explicit)                   \
  template <class T, class U> void atomic_store_explicit(volatile SPACE atomic<T>*, U, memory_order);            \
  template <class T> T atomic_load_explicit(const volatile SPACE atomic<T>*, memory_order);                      \
  template <class T, class U>                                                                                    \
  bool atomic_compare_exchange_weak_explicit(volatile SPACE atomic<T>*, thread T*, U, memory_order, memory_order);
MSL_ATOMICS(device) MSL_ATOMICS(threadgroup)
}  // namespace metal
using namespace metal;

template <class U> struct Limits { static const U max, min, finite_max, finite_min; };
template <typename T, typename U> T ceildiv(T, U);
template <typename I = int64_t> I elem_to_loc(I, const constant int*, const constant int64_t*, int);
template <typename I = int64_t> I elem_to_loc(uint3, const constant int*, const constant int64_t*, int);
template <typename I = int64_t> I elem_to_loc_1(uint, const constant int64_t&);
template <typename I = int64_t> I elem_to_loc_2(uint2, const constant int64_t*);
template <typename I = int64_t> I elem_to_loc_3(uint3, const constant int64_t*);

#define kernel
#define MSL_BODY(...) ;
// What a threadgroup declaration becomes: a reference needs no constructor.
template <class T> threadgroup T& msl_declared();
