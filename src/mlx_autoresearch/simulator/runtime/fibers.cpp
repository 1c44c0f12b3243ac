#include "fibers.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef SIM_NATIVE_SWITCH
#ifdef __APPLE__
#define SIM_SYMBOL "_msl_switch"
#define SIM_TYPE ""
#else
#define SIM_SYMBOL "msl_switch"
#define SIM_TYPE ".type msl_switch, %function\n"
#endif

extern "C" void msl_switch(void** save_stack_pointer, void* new_stack_pointer);

// Both push the callee-saved registers, exchange stacks, and pop the other fiber's.
#if defined(__x86_64__)
#undef SIM_TYPE
#define SIM_TYPE ""
asm(".text\n.globl " SIM_SYMBOL "\n" SIM_TYPE SIM_SYMBOL ":\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");
constexpr int kSavedWords = 6;  // then the return address
#else
asm(".text\n.globl " SIM_SYMBOL "\n.p2align 2\n" SIM_TYPE SIM_SYMBOL ":\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n"
    "  mov sp, x1\n"
    "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n");
constexpr int kSavedWords = 20;  // x30, the address that `ret` takes, is word 11
#endif
#endif

namespace sim {

void switch_context(Context& from, Context& to) {
#ifdef SIM_NATIVE_SWITCH
  msl_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
}

void prepare_context(Context& context, char* bottom, char* top, void (*entry)()) {
#if defined(SIM_NATIVE_SWITCH)
  (void)bottom;
  void** frame = reinterpret_cast<void**>(top - 64) - kSavedWords;
  memset(frame, 0, sizeof(void*) * kSavedWords);
#if defined(__x86_64__)
  frame[kSavedWords] = reinterpret_cast<void*>(entry);
  frame[kSavedWords + 1] = nullptr;  // where entry would return to; keeps the stack as after a call
#else
  frame[11] = reinterpret_cast<void*>(entry);
#endif
  context.stack_pointer = frame;
#else
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = bottom;
  context.context.uc_stack.ss_size = static_cast<size_t>(top - bottom);
  context.context.uc_link = nullptr;
  makecontext(&context.context, entry, 0);
#endif
}

StackPool::StackPool(int count) : base_(nullptr), bytes_(static_cast<size_t>(count + kLeadingSlots) * kStackSlot) {
  int flags = MAP_PRIVATE | MAP_ANON;
#ifdef MAP_NORESERVE
  flags |= MAP_NORESERVE;
#endif
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) {
    fprintf(stderr, "simulator: cannot map %zu bytes for fiber stacks\n", bytes_);
    abort();
  }
  base_ = static_cast<char*>(memory);
  mprotect(base_, static_cast<size_t>(kLeadingSlots) * kStackSlot, PROT_NONE);
  for (int i = 0; i < count; i++) mprotect(slot(i), kGuardBytes, PROT_NONE);
}

}  // namespace sim
