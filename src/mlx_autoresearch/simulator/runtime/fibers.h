// Fibers: a GPU thread is a stack and a saved context that the CPU switches to and from.
#pragma once
#include <cstddef>

// Both of macOS's processors have code here, and its ucontext is deprecated: never used there.
#if (defined(__x86_64__) || defined(__aarch64__)) && (defined(__APPLE__) || !defined(SIM_USE_UCONTEXT))
#define SIM_NATIVE_SWITCH 1
#else
#include <ucontext.h>
#endif

namespace sim {

constexpr size_t kStackBytes = 192 << 10;
constexpr size_t kGuardBytes = 64 << 10;  // a multiple of every page size (4, 16 and 64 KiB)
constexpr size_t kStackSlot = kGuardBytes + kStackBytes;

struct Context {
#ifdef SIM_NATIVE_SWITCH
  void* stack_pointer;
#else
  ucontext_t context;
#endif
};

// Saves the caller in `from` and continues `to`.
void switch_context(Context& from, Context& to);

// Makes `context` start `entry` on the stack that ends at `top`; `entry` must never return.
void prepare_context(Context& context, char* bottom, char* top, void (*entry)());

// `count` stacks in one mapping, each above a guard that no access survives; the lowest above a very large one.
// Pages are touched on first use.
class StackPool {
 public:
  explicit StackPool(int count);
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;
  char* bottom(int i) const { return slot(i) + kGuardBytes; }
  char* top(int i) const { return slot(i + 1); }
  bool contains(const void* p) const { return offset(p) < bytes_; }
  // The index of the stack that p lies in or in the guard of; negative below the lowest.
  int owner(const void* p) const { return static_cast<int>(offset(p) / kStackSlot) - kLeadingSlots; }
  bool in_guard(const void* p) const { return contains(p) && offset(p) % kStackSlot < kGuardBytes; }

 private:
  static constexpr int kLeadingSlots = 64;
  char* slot(int i) const { return base_ + static_cast<size_t>(i + kLeadingSlots) * kStackSlot; }
  size_t offset(const void* p) const { return static_cast<size_t>(static_cast<const char*>(p) - base_); }
  char* base_;
  size_t bytes_;
};

}  // namespace sim
