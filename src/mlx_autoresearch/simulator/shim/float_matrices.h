// float2x2 to float4x4 and half2x2 to half4x4, included where a kernel names one: columns of vectors. One text for the
// simulator and, without the bodies (MSL_BODY), for its static pass.
#pragma once

namespace metal {
template <class T, int C, int R> struct matrix {
  typedef vec<T, R> column;
  column columns[C];
  matrix() = default;
  explicit matrix(T diagonal) MSL_BODY({
    for (int i = 0; i < C; i++)
      for (int j = 0; j < R; j++) columns[i][j] = i == j ? diagonal : T(0);
  })
  template <class U, enable_if_t<!is_same_v<T, U>, int> = 0> explicit matrix(const matrix<U, C, R>& m) MSL_BODY({
    for (int i = 0; i < C; i++) columns[i] = column(m.columns[i]);
  })
  // C columns, or C R numbers, column by column.
  template <class A, class B, class... D> matrix(A a, B b, D... more) MSL_BODY({
    static_assert(sizeof...(D) + 2 == C || sizeof...(D) + 2 == C * R, "a matrix is made of its columns or its elements");
    if constexpr (sizeof...(D) + 2 == C) {
      const column all[] = {column(a), column(b), column(more)...};
      for (int i = 0; i < C; i++) columns[i] = all[i];
    } else if constexpr (sizeof...(D) + 2 == C * R) {
      const T all[] = {T(a), T(b), T(more)...};
      for (int i = 0; i < C * R; i++) columns[i / R][i % R] = all[i];
    }
  })
  column& operator[](int i) MSL_BODY({ return columns[i]; })
  const column& operator[](int i) const MSL_BODY({ return columns[i]; })
};

#define MSL_EACH_COLUMN(value)                          \
  matrix<T, C, R> r;                                    \
  for (int i = 0; i < C; i++) r.columns[i] = value;     \
  return r;
#define MSL_MATRIX template <class T, int C, int R>
#define MSL_M const matrix<T, C, R>&
MSL_MATRIX inline matrix<T, C, R> operator+(MSL_M a, MSL_M b) MSL_BODY({ MSL_EACH_COLUMN(a.columns[i] + b.columns[i]) })
MSL_MATRIX inline matrix<T, C, R> operator-(MSL_M a, MSL_M b) MSL_BODY({ MSL_EACH_COLUMN(a.columns[i] - b.columns[i]) })
MSL_MATRIX inline matrix<T, C, R> operator-(MSL_M a) MSL_BODY({ MSL_EACH_COLUMN(-a.columns[i]) })
template <class T, int C, int R, class S, enable_if_t<is_scalar_number<S>, int> = 0>
inline matrix<T, C, R> operator*(MSL_M a, S s) MSL_BODY({ MSL_EACH_COLUMN(a.columns[i] * T(s)) })
template <class T, int C, int R, class S, enable_if_t<is_scalar_number<S>, int> = 0>
inline matrix<T, C, R> operator*(S s, MSL_M a) MSL_BODY({ MSL_EACH_COLUMN(a.columns[i] * T(s)) })
MSL_MATRIX inline vec<T, R> operator*(MSL_M a, vec<T, C> v) MSL_BODY({
  vec<T, R> r = a.columns[0] * v[0];
  for (int i = 1; i < C; i++) r += a.columns[i] * v[i];
  return r;
})
MSL_MATRIX inline vec<T, C> operator*(vec<T, R> v, MSL_M a) MSL_BODY({
  vec<T, C> r;
  for (int i = 0; i < C; i++) r[i] = dot(v, a.columns[i]);
  return r;
})
template <class T, int C, int K, int R>
inline matrix<T, C, R> operator*(const matrix<T, K, R>& a, const matrix<T, C, K>& b) MSL_BODY({ MSL_EACH_COLUMN(a * b.columns[i]) })
template <class T, int C, int R, class B> inline matrix<T, C, R>& operator+=(matrix<T, C, R>& a, B b) MSL_BODY({ return a = a + b; })
template <class T, int C, int R, class B> inline matrix<T, C, R>& operator-=(matrix<T, C, R>& a, B b) MSL_BODY({ return a = a - b; })
template <class T, int C, int R, class B> inline matrix<T, C, R>& operator*=(matrix<T, C, R>& a, B b) MSL_BODY({ return a = a * b; })
MSL_MATRIX inline bool operator==(MSL_M a, MSL_M b) MSL_BODY({
  bool r = true;
  for (int i = 0; i < C; i++) r &= all(a.columns[i] == b.columns[i]);
  return r;
})
MSL_MATRIX inline bool operator!=(MSL_M a, MSL_M b) MSL_BODY({ return !(a == b); })
MSL_MATRIX inline matrix<T, R, C> transpose(MSL_M a) MSL_BODY({
  matrix<T, R, C> r;
  for (int i = 0; i < C; i++)
    for (int j = 0; j < R; j++) r.columns[j][i] = a.columns[i][j];
  return r;
})
template <class T> inline T determinant(const matrix<T, 2, 2>& m) MSL_BODY({ return m[0][0] * m[1][1] - m[1][0] * m[0][1]; })
template <class T> inline T determinant(const matrix<T, 3, 3>& m) MSL_BODY({
  const vec<T, 3> a = m[1], b = m[2];
  return dot(m[0], vec<T, 3>(a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]));
})
template <class T> inline T determinant(const matrix<T, 4, 4>& m) MSL_BODY({
  T r = T(0);
  for (int i = 0; i < 4; i++) {  // along the first row
    matrix<T, 3, 3> minor;
    for (int c = 0, to = 0; c < 4; c++)
      if (c != i) minor.columns[to++] = vec<T, 3>(m.columns[c][1], m.columns[c][2], m.columns[c][3]);
    const T term = m.columns[i][0] * determinant(minor);
    r = i % 2 ? r - term : r + term;
  }
  return r;
})
#undef MSL_EACH_COLUMN
#undef MSL_MATRIX
#undef MSL_M

#define MSL_MATRIX_NAMES(T)                                                                              \
  typedef matrix<T, 2, 2> T##2x2; typedef matrix<T, 2, 3> T##2x3; typedef matrix<T, 2, 4> T##2x4;        \
  typedef matrix<T, 3, 2> T##3x2; typedef matrix<T, 3, 3> T##3x3; typedef matrix<T, 3, 4> T##3x4;        \
  typedef matrix<T, 4, 2> T##4x2; typedef matrix<T, 4, 3> T##4x3; typedef matrix<T, 4, 4> T##4x4;
MSL_MATRIX_NAMES(float) MSL_MATRIX_NAMES(half)
#undef MSL_MATRIX_NAMES
}  // namespace metal
