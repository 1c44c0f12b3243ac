// Barriers, simdgroup and quad operations: each is a rendezvous in the runtime; the last lane to arrive computes for all.
#pragma once
#include "math.h"
#include "site.h"

// Not inlined, so that what it does to its own stack is not taken for the kernel's accesses.
#define MSL_OPERATION MSL_UNCHECKED __attribute__((noinline))

namespace metal {
enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
inline constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }

inline void threadgroup_barrier(mem_flags flags, MSL_SITE) { msl_threadgroup_barrier(int(flags), site); }
inline void simdgroup_barrier(mem_flags flags, MSL_SITE) { msl_simdgroup_barrier(int(flags), site); }

namespace detail {
template <class P> inline MSL_UNCHECKED P& slot(unsigned char* slots, int lane) {
  static_assert(sizeof(P) <= kSlotBytes, "too large for a simdgroup operation");
  return *reinterpret_cast<P*>(slots + lane * kSlotBytes);
}

// What each MSL_REDUCTION of functions.def combines two lanes' values to.
#define MSL_REDUCTION(name, value)                                                 \
  struct combine_##name {                                                          \
    template <class T> MSL_UNCHECKED static T apply(T a, T b) { return T(value); } \
  };
#include "functions.def"

// A tree over the active lanes, in the order of shuffles by 1, 2, 4, …
template <class T, class Operator, int W> MSL_UNCHECKED void reduce(unsigned char* slots, msl_u32 active) {
  T value[W];
  bool on[W];
  for (int i = 0; i < W; i++) {
    on[i] = active >> i & 1;
    if (on[i]) value[i] = slot<T>(slots, i);
  }
  for (int step = 1; step < W; step *= 2)
    for (int i = 0; i < W; i += 2 * step) {
      if (!on[i + step]) continue;
      value[i] = on[i] ? Operator::apply(value[i], value[i + step]) : value[i + step];
      on[i] = true;
    }
  for (int i = 0; i < W; i++) slot<T>(slots, i) = value[0];
}

template <class T, class Operator, bool inclusive, int W> MSL_UNCHECKED void scan(unsigned char* slots, msl_u32 active) {
  T total = T(is_same_v<Operator, combine_product> ? 1 : 0);
  for (int i = 0; i < W; i++) {
    if (!(active >> i & 1)) continue;
    T& value = slot<T>(slots, i);
    const T before = total;
    total = Operator::apply(total, value);
    value = inclusive ? total : before;
  }
}

constexpr int kKeep = -1;  // a lane that keeps its own value
template <class T> struct Exchange {
  T value;
  int lane;  // of the group that exchanges
  int inactive;
};
template <class T, int W> MSL_UNCHECKED void exchange(unsigned char* slots, msl_u32 active) {
  T value[W];
  for (int i = 0; i < W; i++)
    if (active >> i & 1) value[i] = slot<Exchange<T>>(slots, i).value;
  for (int i = 0; i < W; i++) {
    Exchange<T>& mine = slot<Exchange<T>>(slots, i);
    if (!(active >> i & 1) || mine.lane == kKeep) continue;
    mine.inactive = mine.lane < 0 || mine.lane >= W || !(active >> mine.lane & 1);
    if (!mine.inactive) mine.value = value[mine.lane];
  }
}
template <class T, int W> MSL_OPERATION T shuffle(T value, int lane, const char* what, MslSite site) {
  Exchange<T> mine;
  mine.value = value;
  mine.lane = lane;
  mine.inactive = 0;
  msl_collective(W, &mine, sizeof mine, 0, &exchange<T, W>, what, site);
  if (mine.inactive) {
    msl_inactive_lane(lane, what, site);
    __builtin_memset(static_cast<void*>(&mine.value), 0xFF, sizeof(T));
  }
  return mine.value;
}
template <class T, int W> MSL_UNCHECKED void take_first(unsigned char* slots, msl_u32 active) {
  const T first = slot<T>(slots, __builtin_ctz(active));
  for (int i = 0; i < W; i++)
    if (active >> i & 1) slot<T>(slots, i) = first;
}
template <int W> MSL_UNCHECKED void ballot(unsigned char* slots, msl_u32 active) {
  msl_u32 mask = 0;
  for (int i = 0; i < W; i++)
    if (active >> i & 1) mask |= msl_u32(slot<msl_u32>(slots, i) != 0) << i;
  for (int i = 0; i < W; i++) slot<msl_u32>(slots, i) = mask;
}
inline int down(int lane, int delta, int width) { return lane + delta < width ? lane + delta : kKeep; }
inline int up(int lane, int delta) { return lane >= delta ? lane - delta : kKeep; }
// The same within the `modulo` lanes that a lane is one of.
inline int down_within(int lane, int delta, int modulo) { return lane % modulo + delta < modulo ? lane + delta : kKeep; }
inline int up_within(int lane, int delta, int modulo) { return lane % modulo >= delta ? lane - delta : kKeep; }

// Which lane each MSL_SHUFFLE of functions.def reads.
inline int simd_shuffle(int, int n, int) { return n; }
inline int simd_broadcast(int, int n, int) { return n; }
inline int simd_shuffle_xor(int lane, int n, int) { return lane ^ n; }
inline int simd_shuffle_up(int lane, int n, int) { return up(lane, n); }
inline int simd_shuffle_down(int lane, int n, int width) { return down(lane, n, width); }
inline int simd_shuffle_rotate_up(int lane, int n, int width) { return (lane - n) & (width - 1); }
inline int simd_shuffle_rotate_down(int lane, int n, int width) { return (lane + n) & (width - 1); }
inline int quad_shuffle(int, int n, int) { return n; }
inline int quad_broadcast(int, int n, int) { return n; }
inline int quad_shuffle_xor(int lane, int n, int) { return lane ^ n; }
inline int quad_shuffle_up(int lane, int n, int) { return up(lane, n); }
inline int quad_shuffle_down(int lane, int n, int width) { return down(lane, n, width); }
inline int quad_shuffle_rotate_up(int lane, int n, int width) { return (lane - n) & (width - 1); }
inline int quad_shuffle_rotate_down(int lane, int n, int width) { return (lane + n) & (width - 1); }
}  // namespace detail

#define MSL_REDUCTION(name, value)                                                                                            \
  template <class T> MSL_OPERATION T simd_##name(T x, MSL_SITE) {                                                             \
    msl_collective(kSimdWidth, &x, sizeof x, 0, &detail::reduce<T, detail::combine_##name, kSimdWidth>, "simd_" #name, site); \
    return x;                                                                                                                 \
  }                                                                                                                           \
  template <class T> MSL_OPERATION T quad_##name(T x, MSL_SITE) {                                                             \
    msl_collective(kQuadWidth, &x, sizeof x, 0, &detail::reduce<T, detail::combine_##name, kQuadWidth>, "quad_" #name, site); \
    return x;                                                                                                                 \
  }
#define MSL_SHUFFLE(name, width)                                                                          \
  template <class T> inline T name(T x, ushort n, MSL_SITE) {                                             \
    const int lane = int(msl_lane()) % width;                                                             \
    return detail::shuffle<T, width>(x, detail::name(lane, n, width), #name, site);                       \
  }
#include "functions.def"

// Each of these for simdgroups and for quads: prefix, lanes, the operation.
#define MSL_SCAN(group, width, name, Operator, inclusive)                                                              \
  template <class T> MSL_OPERATION T group##_prefix_##name(T x, MSL_SITE) {                                            \
    msl_collective(width, &x, sizeof x, 0, &detail::scan<T, detail::Operator, inclusive, width>, #group "_prefix_" #name, site); \
    return x;                                                                                                          \
  }
#define MSL_FILL(group, width, name)                                                                           \
  template <class T>                                                                                           \
  inline T group##_shuffle_and_fill_##name(T x, T fill, ushort n, ushort modulo = width, MSL_SITE) {           \
    const int lane = detail::name##_within(int(msl_lane()) % width, n, modulo);                                \
    const T moved = detail::shuffle<T, width>(x, lane, #group "_shuffle_and_fill_" #name, site);               \
    return lane == detail::kKeep ? fill : moved;                                                               \
  }
#define MSL_GROUP(group, width, vote_type)                                                                             \
  MSL_SCAN(group, width, inclusive_sum, combine_sum, true)                                                             \
  MSL_SCAN(group, width, exclusive_sum, combine_sum, false)                                                            \
  MSL_SCAN(group, width, inclusive_product, combine_product, true)                                                     \
  MSL_SCAN(group, width, exclusive_product, combine_product, false)                                                    \
  MSL_FILL(group, width, up)                                                                                           \
  MSL_FILL(group, width, down)                                                                                         \
  template <class T> MSL_OPERATION T group##_broadcast_first(T x, MSL_SITE) {                                          \
    msl_collective(width, &x, sizeof x, 0, &detail::take_first<T, width>, #group "_broadcast_first", site);            \
    return x;                                                                                                          \
  }                                                                                                                    \
  struct group##_vote {                                                                                                \
    typedef vote_type vote_t;                                                                                          \
    msl_u32 mask;                                                                                                      \
    explicit group##_vote(vote_t v = 0) : mask(msl_u32(v)) {}                                                          \
    explicit operator vote_t() const { return mask; }                                                                  \
    bool any() const { return mask != 0; }                                                                             \
    bool all() const { return mask == ~0u >> (32 - width); }                                                           \
  };                                                                                                                   \
  MSL_OPERATION inline group##_vote group##_ballot(bool x, MSL_SITE) {                                                 \
    msl_u32 word = x;                                                                                                  \
    msl_collective(width, &word, sizeof word, 0, &detail::ballot<width>, #group "_ballot", site);                      \
    return group##_vote(word);                                                                                         \
  }                                                                                                                    \
  /* A meeting too: lanes run one after another here, so that only one that meets the others knows who is active. */   \
  inline group##_vote group##_active_threads_mask(MSL_SITE) { return group##_ballot(true, site); }                     \
  inline bool group##_any(bool x, MSL_SITE) { return group##_or(uint(x), site) != 0; }                                 \
  inline bool group##_all(bool x, MSL_SITE) { return group##_and(uint(x), site) != 0; }                                \
  inline bool group##_is_first(MSL_SITE) {                                                                             \
    return int(msl_lane()) % width == __builtin_ctz(group##_ballot(true, site).mask);                                  \
  }
MSL_GROUP(simd, kSimdWidth, ulong)  // quads: quads.h
}  // namespace metal
