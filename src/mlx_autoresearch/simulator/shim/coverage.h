// What instrumentation.py writes into a kernel whose coverage is measured. Every place has five counters: a condition's
// are false and true; a loop's are 0, 1, 2, 3 and more rounds, and runs whose number of rounds is a constant.
#pragma once
extern "C" void msl_count(unsigned counter, int change);  // runtime/launch.cpp

namespace msl {
// What the compiler evaluates is not counted; instrumentation.py has it evaluated at run time once more.
constexpr void count(unsigned counter, int change = 1) {
  if (!__builtin_is_constant_evaluated()) msl_count(counter, change);
}
constexpr bool seen(unsigned place, bool value) {
  count(place * 5 + value);
  return value;
}
// The number of rounds that have begun. It moves a run from one counter to the next, so that any way out is counted.
template <bool CONSTANT> constexpr int enter(unsigned place) {
  count(place * 5 + (CONSTANT ? 4 : 0));
  return CONSTANT ? 3 : 0;
}
constexpr void begin_round(unsigned place, int& rounds) {
  if (rounds >= 3) return;
  count(place * 5 + rounds, -1);
  count(place * 5 + ++rounds);
}
}  // namespace msl
