// 8x8 simdgroup matrices. Each lane holds two neighbouring elements of a row, in Apple's layout.
#pragma once
#include "collectives.h"

namespace metal {
namespace detail {
#ifdef MSL_CUDA_LAYOUT  // the tensor cores' layout: shows whether a kernel depends on Apple's
inline int fragment_row(int lane) { return lane / 4; }
inline int fragment_column(int lane) { return lane % 4 * 2; }
#else
inline int fragment_row(int lane) { return lane / 16 * 4 + lane / 2 % 4; }
inline int fragment_column(int lane) { return lane / 8 % 2 * 4 + lane % 2 * 2; }
#endif

template <class D, class A, class B, class C> struct Product8 {
  A a[2];
  B b[2];
  C c[2];
  D d[2];
};
// Operands of any type, products and sums in float, as the hardware does for half and bfloat operands.
template <class D, class A, class B, class C> MSL_UNCHECKED void multiply(unsigned char* slots, msl_u32) {
  float a[8][8], b[8][8], c[8][8];
  for (int lane = 0; lane < kSimdWidth; lane++) {
    const auto& p = slot<Product8<D, A, B, C>>(slots, lane);
    const int row = fragment_row(lane), column = fragment_column(lane);
    for (int e = 0; e < 2; e++) {
      a[row][column + e] = float(p.a[e]);
      b[row][column + e] = float(p.b[e]);
      c[row][column + e] = float(p.c[e]);
    }
  }
  for (int i = 0; i < 8; i++)
    for (int k = 0; k < 8; k++)
      for (int j = 0; j < 8; j++) c[i][j] += a[i][k] * b[k][j];
  for (int lane = 0; lane < kSimdWidth; lane++) {
    auto& p = slot<Product8<D, A, B, C>>(slots, lane);
    for (int e = 0; e < 2; e++) p.d[e] = D(c[fragment_row(lane)][fragment_column(lane) + e]);
  }
}
}  // namespace detail

template <class T, int Rows, int Columns = Rows> struct simdgroup_matrix {
  static_assert(Rows == 8 && Columns == 8, "simdgroup matrices are 8x8");
  typedef vec<T, 2> storage_type;
  storage_type elements;
  simdgroup_matrix() { __builtin_memset(static_cast<void*>(&elements), 0xFF, sizeof elements); }  // garbage: NaN
  explicit simdgroup_matrix(T diagonal) {
    const int lane = int(msl_lane());
    for (int e = 0; e < 2; e++)
      elements[e] = detail::fragment_row(lane) == detail::fragment_column(lane) + e ? diagonal : T(0);
  }
  storage_type& thread_elements() { return elements; }
  const storage_type& thread_elements() const { return elements; }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;

template <class T, int Rows, int Columns = Rows> inline simdgroup_matrix<T, Rows, Columns> make_filled_simdgroup_matrix(T x) {
  simdgroup_matrix<T, Rows, Columns> m;
  m.elements = vec<T, 2>(x);
  return m;
}

// Inlined, so that each lane's two accesses are checked at the kernel's line.
template <class T>
MSL_INLINED void simdgroup_load(simdgroup_matrix<T, 8, 8>& m, const T* source, ulong elements_per_row = 8,
                                ulong2 origin = ulong2(0ul), bool transpose = false, MSL_SITE) {
  msl_uniform("simdgroup_load", site);
  const int lane = int(msl_lane());
  for (int e = 0; e < 2; e++) {
    const ulong row = ulong(detail::fragment_row(lane)), column = ulong(detail::fragment_column(lane) + e);
    m.elements[e] = source[(origin.y + (transpose ? column : row)) * elements_per_row + origin.x + (transpose ? row : column)];
  }
}
template <class T>
MSL_INLINED void simdgroup_store(const simdgroup_matrix<T, 8, 8>& m, T* target, ulong elements_per_row = 8,
                                 ulong2 origin = ulong2(0ul), bool transpose = false, MSL_SITE) {
  msl_uniform("simdgroup_store", site);
  const int lane = int(msl_lane());
  for (int e = 0; e < 2; e++) {
    const ulong row = ulong(detail::fragment_row(lane)), column = ulong(detail::fragment_column(lane) + e);
    target[(origin.y + (transpose ? column : row)) * elements_per_row + origin.x + (transpose ? row : column)] = m.elements[e];
  }
}
template <class D, class A, class B, class C>
MSL_OPERATION void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                                                 const simdgroup_matrix<B, 8, 8>& b, const simdgroup_matrix<C, 8, 8>& c,
                                                 MSL_SITE) {
  detail::Product8<D, A, B, C> p;
  for (int e = 0; e < 2; e++) {
    p.a[e] = a.elements.v[e];
    p.b[e] = b.elements.v[e];
    p.c[e] = c.elements.v[e];
  }
  msl_collective(kSimdWidth, &p, sizeof p, 1, &detail::multiply<D, A, B, C>, "simdgroup_multiply_accumulate", site);
  for (int e = 0; e < 2; e++) d.elements.v[e] = p.d[e];
}
template <class D, class A, class B>
inline void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                               const simdgroup_matrix<B, 8, 8>& b, MSL_SITE) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>(D(0)), site);
}
}  // namespace metal
