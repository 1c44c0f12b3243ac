// What numbers and vectors make together, as operands of one function: in the simulator, its static pass and CUDA. The
// including file gives the namespace, vec<T, N>, is_scalar_number, is_same_v, enable_if and enable_if_t.

// The type and the number of an operand's components: 1 of a number, 0 of what is neither number nor vector.
template <class A> struct operand {
  typedef A type;
  static constexpr int n = is_scalar_number<A>;
};
template <class T, int N> struct operand<vec<T, N>> {
  typedef T type;
  static constexpr int n = N;
};
template <class A> using component = typename operand<A>::type;

// The vector that operands make together: vectors of one type, and numbers, which take that type.
template <class A, class B, int a = operand<A>::n, int b = operand<B>::n> struct joined {};
template <class A, class B> struct joined<A, B, 1, 1> { typedef A type; };
template <class A, class B, int n> struct joined<A, B, n, 1> { typedef vec<component<A>, n> type; };
template <class A, class B, int n> struct joined<A, B, 1, n> { typedef vec<component<B>, n> type; };
template <class A, class B, int n> struct joined<A, B, n, n>
    : enable_if<is_same_v<component<A>, component<B>>, vec<component<A>, n>> {};
template <class V> using vector_only = enable_if_t<(operand<V>::n > 1), V>;
template <class A> using vector_1 = vector_only<vec<component<A>, operand<A>::n>>;
template <class A, class B> using vector_2 = vector_only<typename joined<A, B>::type>;
template <class A, class B, class C> using vector_3 = vector_2<typename joined<A, B>::type, C>;
// Vectors of another type, as comparisons give.
template <class T, class V> using with_type = vec<T, operand<V>::n>;
