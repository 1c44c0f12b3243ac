// fast:: and precise::, included where a kernel names one of them.
#pragma once
#include "math.h"

namespace metal {
#include "fast_and_precise.h"
#ifdef MSL_CHECKED
// fast:: functions of which Metal promises nothing where an argument is no number, and most also where it is infinite.
namespace detail {
template <class A> MSL_INLINED void promised(const A& a, bool of_infinities, const char* name, MslSite site) {
  if constexpr (operand<A>::n == 1) {
    msl_fast_argument(float(a), of_infinities, name, site);
  } else {
    for (int i = 0; i < operand<A>::n; i++) promised(a.v[i], of_infinities, name, site);
  }
}
}  // namespace detail
namespace fast {
#define MSL_FAST_1(of_infinities, name)                                                          \
  template <class A> MSL_INLINED auto name(const A& a, MSL_SITE) -> decltype(metal::name(a)) {   \
    detail::promised(a, of_infinities, "fast::" #name, site);                                    \
    return metal::name(a);                                                                       \
  }
#define MSL_FAST_2(of_infinities, name)                                                          \
  template <class A, class B>                                                                    \
  MSL_INLINED auto name(const A& a, const B& b, MSL_SITE) -> decltype(metal::name(a, b)) {       \
    detail::promised(a, of_infinities, "fast::" #name, site);                                    \
    detail::promised(b, of_infinities, "fast::" #name, site);                                    \
    return metal::name(a, b);                                                                    \
  }
#define MSL_FAST_3(of_infinities, name)                                                                          \
  template <class A, class B, class C>                                                                           \
  MSL_INLINED auto name(const A& a, const B& b, const C& c, MSL_SITE) -> decltype(metal::name(a, b, c)) {        \
    detail::promised(a, of_infinities, "fast::" #name, site);                                                    \
    detail::promised(b, of_infinities, "fast::" #name, site);                                                    \
    detail::promised(c, of_infinities, "fast::" #name, site);                                                    \
    return metal::name(a, b, c);                                                                                 \
  }
#define MSL_FLOAT_1(name, value) MSL_FAST_1(true, name)
#define MSL_FLOAT_2(name, value) MSL_FAST_2(true, name)
#define MSL_FLOAT_3(name, value) MSL_FAST_3(true, name)
#define MSL_FLOAT_1_FAST(name, value) MSL_FAST_1(false, name)
#define MSL_FLOAT_2_FAST(name, value) MSL_FAST_2(false, name)
#include "functions.def"
using metal::abs;
MSL_FAST_2(true, max)
MSL_FAST_2(true, min)
MSL_FAST_3(true, clamp)
#undef MSL_FAST_1
#undef MSL_FAST_2
#undef MSL_FAST_3
}  // namespace fast
#endif
}  // namespace metal
