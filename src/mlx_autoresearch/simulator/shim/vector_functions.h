// Operators and names of vectors, in the simulator and in CUDA, behind vector_members.h.

// Componentwise: vectors of one type, vectors and numbers.
#define MSL_COMPONENTWISE(Result, op, value)                                      \
  template <class A, class B, class V = detail::vector_2<A, B>>                   \
  MSL_INLINED detail::with_type<Result, V> operator op(const A& x, const B& y) {  \
    typedef detail::component<V> T;                                               \
    detail::with_type<Result, V> r;                                               \
    MSL_UNROLL for (int i = 0; i < detail::operand<V>::n; i++) {                  \
      const T a = detail::at<T>(x, i), b = detail::at<T>(y, i);                   \
      r.v[i] = Result(value);                                                     \
    }                                                                             \
    return r;                                                                     \
  }
#define MSL_BINARY(op, value)                                                                          \
  MSL_COMPONENTWISE(detail::component<V>, op, value)                                                   \
  template <class T, int N, class B> MSL_INLINED vec<T, N>& operator op##=(vec<T, N>& a, const B& b) { \
    return a = a op b;                                                                                 \
  }                                                                                                    \
  template <class T, int N, class B>                                                                   \
  MSL_INLINED packed_vec<T, N>& operator op##=(packed_vec<T, N>& a, const B& b) {                      \
    return a = a op b;                                                                                 \
  }
MSL_BINARY(+, a + b)
MSL_BINARY(-, a - b)
MSL_BINARY(*, a * b)
MSL_BINARY(/, a / b)
MSL_BINARY(%, a % b)
MSL_BINARY(&, a & b)
MSL_BINARY(|, a | b)
MSL_BINARY(^, a ^ b)
// A shift's count is taken modulo the component's bits.
MSL_BINARY(<<, a << (b & T(8 * sizeof(T) - 1)))
MSL_BINARY(>>, a >> (b & T(8 * sizeof(T) - 1)))
MSL_COMPONENTWISE(bool, <, a < b)
MSL_COMPONENTWISE(bool, >, a > b)
MSL_COMPONENTWISE(bool, <=, a <= b)
MSL_COMPONENTWISE(bool, >=, a >= b)
MSL_COMPONENTWISE(bool, ==, a == b)
MSL_COMPONENTWISE(bool, !=, a != b)
MSL_COMPONENTWISE(bool, &&, a && b)
MSL_COMPONENTWISE(bool, ||, a || b)
#undef MSL_BINARY
#undef MSL_COMPONENTWISE

#define MSL_UNARY(Result, op)                                                          \
  template <class A, class V = detail::vector_1<A>>                                    \
  MSL_INLINED detail::with_type<Result, V> operator op(const A& a) {                   \
    detail::with_type<Result, V> r;                                                    \
    MSL_UNROLL for (int i = 0; i < detail::operand<V>::n; i++) r.v[i] = Result(op a.v[i]); \
    return r;                                                                          \
  }
MSL_UNARY(detail::component<V>, -)
MSL_UNARY(detail::component<V>, +)
MSL_UNARY(detail::component<V>, ~)
MSL_UNARY(bool, !)
#undef MSL_UNARY

#define MSL_STEP(op, by)                                                          \
  template <class T, int N> MSL_INLINED vec<T, N>& operator op(vec<T, N>& a) {    \
    return a = a by T(1);                                                         \
  }                                                                               \
  template <class T, int N> MSL_INLINED vec<T, N> operator op(vec<T, N>& a, int) { \
    const vec<T, N> before = a;                                                   \
    a = a by T(1);                                                                \
    return before;                                                                \
  }
MSL_STEP(++, +)
MSL_STEP(--, -)
#undef MSL_STEP

#define MSL_VEC_NAMES(T)         \
  typedef metal::vec<T, 2> T##2; \
  typedef metal::vec<T, 3> T##3; \
  typedef metal::vec<T, 4> T##4;
#define MSL_PACKED_NAMES(T)                      \
  typedef metal::packed_vec<T, 2> packed_##T##2; \
  typedef metal::packed_vec<T, 3> packed_##T##3; \
  typedef metal::packed_vec<T, 4> packed_##T##4;
#define MSL_NUMBERS(M) M(float) M(half) M(bfloat) M(int) M(uint) M(short) M(ushort) M(char) M(uchar) M(long) M(ulong)
// float2, packed_float2 and all the others, in the namespace where this stands.
#define MSL_VECTOR_NAMES MSL_NUMBERS(MSL_VEC_NAMES) MSL_VEC_NAMES(bool) MSL_NUMBERS(MSL_PACKED_NAMES)
