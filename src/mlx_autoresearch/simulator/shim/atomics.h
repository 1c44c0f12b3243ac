// Relaxed atomics on device and threadgroup memory.
#pragma once
#include "atomic_types.h"
#include "collectives.h"

namespace metal {
#define MSL_ATOMIC_UPDATE(name, result)                                                                        \
  template <class T, class U> MSL_OPERATION T name(volatile atomic<T>* p, U operand, memory_order, MSL_SITE) { \
    msl_atomic(const_cast<atomic<T>*>(p), sizeof(T), kAtomicUpdate, site);                                     \
    const T old = p->value, x = T(operand);                                                                    \
    p->value = result;                                                                                         \
    return old;                                                                                                \
  }
MSL_ATOMIC_UPDATE(atomic_fetch_add_explicit, T(old + x))
MSL_ATOMIC_UPDATE(atomic_fetch_sub_explicit, T(old - x))
MSL_ATOMIC_UPDATE(atomic_fetch_max_explicit, old < x ? x : old)
MSL_ATOMIC_UPDATE(atomic_fetch_min_explicit, x < old ? x : old)
MSL_ATOMIC_UPDATE(atomic_fetch_and_explicit, T(old & x))
MSL_ATOMIC_UPDATE(atomic_fetch_or_explicit, T(old | x))
MSL_ATOMIC_UPDATE(atomic_fetch_xor_explicit, T(old ^ x))
MSL_ATOMIC_UPDATE(atomic_exchange_explicit, x)
#undef MSL_ATOMIC_UPDATE

template <class T, class U> MSL_OPERATION void atomic_store_explicit(volatile atomic<T>* p, U operand, memory_order, MSL_SITE) {
  msl_atomic(const_cast<atomic<T>*>(p), sizeof(T), kAtomicStore, site);
  p->value = T(operand);
}
template <class T> MSL_OPERATION T atomic_load_explicit(const volatile atomic<T>* p, memory_order, MSL_SITE) {
  msl_atomic(const_cast<atomic<T>*>(p), sizeof(T), kAtomicLoad, site);
  return p->value;
}
template <class T, class U>
MSL_OPERATION bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* p, T* expected, U desired, memory_order,
                                                         memory_order, MSL_SITE) {
  msl_atomic(const_cast<atomic<T>*>(p), sizeof(T), kAtomicUpdate, site);
  const T old = p->value;
  const bool equal = old == *expected;
  if (equal) p->value = T(desired);
  *expected = old;
  return equal;
}
}  // namespace metal
