// Packed vectors, operators and names of vec<T, N>, in the simulator and in CUDA; beside what vector_members.h needs the
// including file gives MSL_SWIZZLE_OPERAND(Result, op), an operator's overload for swizzles, or nothing.

// packed_float3 and the like: the components without padding or alignment.
template <class T, int N> struct packed_vec {
  T v[N];
  packed_vec() = default;
  MSL_INLINED packed_vec(const vec<T, N>& o) {
    for (int i = 0; i < N; i++) v[i] = o[i];
  }
  MSL_INLINED operator vec<T, N>() const {
    vec<T, N> r;
    for (int i = 0; i < N; i++) r[i] = v[i];
    return r;
  }
  MSL_INLINED T& operator[](int i) { return v[i]; }
  MSL_INLINED const T& operator[](int i) const { return v[i]; }
};

// Componentwise: two vectors, a vector and a scalar, a scalar and a vector.
#define MSL_COMPONENTWISE(Result, op)                                                                        \
  template <class T, int N> MSL_INLINED vec<Result, N> operator op(const vec<T, N>& a, const vec<T, N>& b) { \
    vec<Result, N> r;                                                                                        \
    MSL_UNROLL for (int i = 0; i < N; i++) r.v[i] = Result(a.v[i] op b.v[i]);                                \
    return r;                                                                                                \
  }                                                                                                          \
  template <class T, int N, class S, enable_if_t<is_scalar_number<S>, int> = 0>                              \
  MSL_INLINED vec<Result, N> operator op(const vec<T, N>& a, S s) {                                          \
    return a op vec<T, N>(s);                                                                                \
  }                                                                                                          \
  template <class T, int N, class S, enable_if_t<is_scalar_number<S>, int> = 0>                              \
  MSL_INLINED vec<Result, N> operator op(S s, const vec<T, N>& a) {                                          \
    return vec<T, N>(s) op a;                                                                                \
  }                                                                                                          \
  MSL_SWIZZLE_OPERAND(Result, op)
#define MSL_BINARY(op)                                                                                 \
  MSL_COMPONENTWISE(T, op)                                                                             \
  template <class T, int N, class S> MSL_INLINED vec<T, N>& operator op##=(vec<T, N>& a, const S& s) { \
    return a = a op s;                                                                                 \
  }
MSL_BINARY(+)
MSL_BINARY(-)
MSL_BINARY(*)
MSL_BINARY(/)
MSL_BINARY(%)
MSL_BINARY(&)
MSL_BINARY(|)
MSL_BINARY(^)
MSL_BINARY(<<)
MSL_BINARY(>>)
MSL_COMPONENTWISE(bool, <)
MSL_COMPONENTWISE(bool, >)
MSL_COMPONENTWISE(bool, <=)
MSL_COMPONENTWISE(bool, >=)
MSL_COMPONENTWISE(bool, ==)
MSL_COMPONENTWISE(bool, !=)
#undef MSL_BINARY
#undef MSL_COMPONENTWISE

#define MSL_UNARY(Result, op)                                                            \
  template <class T, int N> MSL_INLINED vec<Result, N> operator op(const vec<T, N>& a) { \
    vec<Result, N> r;                                                                    \
    MSL_UNROLL for (int i = 0; i < N; i++) r.v[i] = Result(op a.v[i]);                   \
    return r;                                                                            \
  }
MSL_UNARY(T, -)
MSL_UNARY(T, ~)
MSL_UNARY(bool, !)
#undef MSL_UNARY

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
