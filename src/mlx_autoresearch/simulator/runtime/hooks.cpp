// What an instrumented kernel calls. Kernels are compiled with -fsanitize=thread and -fsanitize=… (undefined behaviour), but
// linked with neither library: the functions are these.
#include <cstdint>
#include <cstring>

#include "abi.h"
#include "memory.h"
#include "report.h"

using namespace sim;

#define CALLER __builtin_return_address(0)

extern "C" {

// ---- -fsanitize=thread: one call for each memory access -------------------------------------------------------------

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

#define HOOKS_FOR_SIZE(N)                                                                                \
  void __tsan_read##N(void* p) { check_access(p, N, Kind::kRead, true, CALLER); }                        \
  void __tsan_write##N(void* p) { check_access(p, N, Kind::kWrite, true, CALLER); }                      \
  void __tsan_unaligned_read##N(void* p) { check_access(p, N, Kind::kRead, false, CALLER); }             \
  void __tsan_unaligned_write##N(void* p) { check_access(p, N, Kind::kWrite, false, CALLER); }           \
  void __tsan_volatile_read##N(void* p) { check_access(p, N, Kind::kRead, true, CALLER); }               \
  void __tsan_volatile_write##N(void* p) { check_access(p, N, Kind::kWrite, true, CALLER); }             \
  void __tsan_unaligned_volatile_read##N(void* p) { check_access(p, N, Kind::kRead, false, CALLER); }    \
  void __tsan_unaligned_volatile_write##N(void* p) { check_access(p, N, Kind::kWrite, false, CALLER); }
HOOKS_FOR_SIZE(1)
HOOKS_FOR_SIZE(2)
HOOKS_FOR_SIZE(4)
HOOKS_FOR_SIZE(8)
HOOKS_FOR_SIZE(16)

void __tsan_read_range(void* p, size_t n) { check_access(p, n, Kind::kRead, false, CALLER); }
void __tsan_write_range(void* p, size_t n) { check_access(p, n, Kind::kWrite, false, CALLER); }

void* __tsan_memset(void* to, int value, size_t n) {
  if (n) check_access(to, n, Kind::kWrite, false, CALLER);
  return memset(to, value, n);
}
void* __tsan_memcpy(void* to, const void* from, size_t n) {
  if (n) check_access(from, n, Kind::kRead, false, CALLER);
  if (n) check_access(to, n, Kind::kWrite, false, CALLER);
  return memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, size_t n) {
  if (n) check_access(from, n, Kind::kRead, false, CALLER);
  if (n) check_access(to, n, Kind::kWrite, false, CALLER);
  return memmove(to, from, n);
}

// ---- -fsanitize=bounds,object-size,alignment,null,shift,…: one call for each violation -------------------------------

struct SourceLocation {
  const char* file;
  uint32_t line, column;
};
struct TypeMismatch {
  SourceLocation location;
  const void* type;
  unsigned char log_alignment, check;
};

static MslSite site_of(const SourceLocation* location) { return {location->file, location->line, location->column}; }

#define ARITHMETIC(NAME, TEXT)                                                    \
  void __ubsan_handle_##NAME(SourceLocation* location, uintptr_t, uintptr_t) {    \
    report_at("undefined-arithmetic", site_of(location), Fatal::kNo, "%s", TEXT); \
  }
ARITHMETIC(add_overflow, "signed overflow in an addition")
ARITHMETIC(sub_overflow, "signed overflow in a subtraction")
ARITHMETIC(mul_overflow, "signed overflow in a multiplication")
ARITHMETIC(negate_overflow, "signed overflow in a negation")
ARITHMETIC(divrem_overflow, "integer division by zero, or its overflow")

struct TypeDescriptor {
  unsigned short kind, info;  // of integers: twice the logarithm of their bits, and whether they have a sign
};
struct Shift {
  SourceLocation location;
  const TypeDescriptor *shifted, *count;
};
void __ubsan_handle_shift_out_of_bounds(Shift* data, uintptr_t, uintptr_t count) {
  report_at("shift-count", site_of(&data->location), Fatal::kNo, "a number of %d bits is shifted by %d",
            1 << (data->shifted->info >> 1), static_cast<int>(count));
}

void __ubsan_handle_out_of_bounds(SourceLocation* location, uintptr_t index) {
  report_at("private-out-of-bounds", site_of(location), Fatal::kNo, "index %ld is outside the array",
            static_cast<long>(index));
}

void __ubsan_handle_type_mismatch_v1(TypeMismatch* data, uintptr_t pointer) {
  const MslSite site = site_of(&data->location);
  const uintptr_t alignment = uintptr_t{1} << data->log_alignment;
  if (!pointer)
    report_at("wild-access", site, Fatal::kYes, "access through a null pointer");
  else if (pointer & (alignment - 1))
    report_at("misaligned-access", site, Fatal::kNo, "the address is not a multiple of %lu bytes",
              static_cast<unsigned long>(alignment));
  else
    report_at("private-out-of-bounds", site, Fatal::kNo, "access outside the variable that the pointer points into");
}

void __ubsan_handle_missing_return(SourceLocation* location) {
  report_at("undefined-arithmetic", site_of(location), Fatal::kYes, "a function with a result ends without returning one");
}
void __ubsan_handle_builtin_unreachable(SourceLocation* location) {
  report_at("undefined-arithmetic", site_of(location), Fatal::kYes, "a place is reached that was declared unreachable");
}

void msl_fast_argument(float argument, int of_infinities, const char* what, MslSite site) {
  if (argument != argument || (!of_infinities && argument - argument != 0))
    report_at("fast-math", site, Fatal::kNo, "%s of %g", what, static_cast<double>(argument));
}
}
