// <metal_type_traits> and <metal_array>, for the simulator and its static pass. half and bfloat are declared before.
namespace metal {
template <class T, T v> struct integral_constant { static constexpr T value = v; };
template <bool v> using bool_constant = integral_constant<bool, v>;
struct true_type : bool_constant<true> {};
struct false_type : bool_constant<false> {};
template <class A, class B> inline constexpr bool is_same_v = false;
template <class A> inline constexpr bool is_same_v<A, A> = true;
template <bool B, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <bool B, class T = void> using enable_if_t = typename enable_if<B, T>::type;
template <bool B, class T, class F> struct conditional { typedef T type; };
template <class T, class F> struct conditional<false, T, F> { typedef F type; };
template <bool B, class T, class F> using conditional_t = typename conditional<B, T, F>::type;
template <class...> using void_t = void;
#define MSL_REMOVE(name, from)                                    \
  template <class T> struct remove_##name { typedef T type; };    \
  template <class T> struct remove_##name<from> { typedef T type; }; \
  template <class T> using remove_##name##_t = typename remove_##name<T>::type;
MSL_REMOVE(const, const T) MSL_REMOVE(volatile, volatile T) MSL_REMOVE(reference, T&) MSL_REMOVE(pointer, T*)
#undef MSL_REMOVE
template <class T> using remove_cv_t = remove_const_t<remove_volatile_t<T>>;
template <class T> struct remove_cv { typedef remove_cv_t<T> type; };
template <class T> using decay_t = remove_cv_t<remove_reference_t<T>>;  // but for arrays and functions

template <class T> inline constexpr bool is_integral_v =
    is_same_v<T, bool> || is_same_v<T, char> || is_same_v<T, signed char> || is_same_v<T, uchar> || is_same_v<T, short> ||
    is_same_v<T, ushort> || is_same_v<T, int> || is_same_v<T, uint> || is_same_v<T, long> || is_same_v<T, ulong>;
template <class T> inline constexpr bool is_floating_point_v = is_same_v<T, float> || is_same_v<T, half> || is_same_v<T, bfloat>;
template <class T> inline constexpr bool is_scalar_number = is_integral_v<T> || is_floating_point_v<T>;
template <class T> inline constexpr bool is_arithmetic_v = is_scalar_number<remove_cv_t<T>>;
template <class T> inline constexpr bool is_unsigned_v = is_integral_v<T> && T(-1) > T(0);
template <> inline constexpr bool is_unsigned_v<bfloat> = false;
template <class T> inline constexpr bool is_signed_v = is_scalar_number<T> && !is_unsigned_v<T>;
template <class T> inline constexpr bool is_pointer_v = false;
template <class T> inline constexpr bool is_pointer_v<T*> = true;
#define MSL_TRAIT(name) template <class T> struct name : bool_constant<name##_v<T>> {};
MSL_TRAIT(is_integral) MSL_TRAIT(is_floating_point) MSL_TRAIT(is_arithmetic) MSL_TRAIT(is_unsigned) MSL_TRAIT(is_signed)
MSL_TRAIT(is_pointer)
#undef MSL_TRAIT
template <class T> T&& declval();
namespace detail {
template <class B> void take(B);
template <class A, class B, class = decltype(take<B>(declval<A>()))> true_type converts(int);
template <class A, class B> false_type converts(long);
}  // namespace detail
template <class A, class B> struct is_convertible : decltype(detail::converts<A, B>(0)) {};
template <class A, class B> inline constexpr bool is_convertible_v = is_convertible<A, B>::value;
template <class A, class B> struct is_same : bool_constant<is_same_v<A, B>> {};

template <class T> struct make_unsigned { typedef T type; };
template <class T> struct make_signed { typedef T type; };
#define MSL_SIGNS(S, U)                                       \
  template <> struct make_unsigned<S> { typedef U type; };    \
  template <> struct make_signed<U> { typedef S type; };
MSL_SIGNS(char, uchar) MSL_SIGNS(short, ushort) MSL_SIGNS(int, uint) MSL_SIGNS(long, ulong)
#undef MSL_SIGNS
template <class T> using make_unsigned_t = typename make_unsigned<T>::type;
template <class T> using make_signed_t = typename make_signed<T>::type;

template <class T, size_t N> struct array {
  T elements[N];
  constexpr T& operator[](size_t i) { return elements[i]; }
  constexpr const T& operator[](size_t i) const { return elements[i]; }
  static constexpr size_t size() { return N; }
};
}  // namespace metal
