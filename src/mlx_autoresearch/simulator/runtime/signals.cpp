#include "signals.h"

#include <pthread.h>
#include <csetjmp>
#include <csignal>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <sys/ucontext.h>

#include "image.h"
#include "machine.h"
#include "report.h"

namespace sim {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGALRM};
constexpr int kCount = sizeof kSignals / sizeof *kSignals;

sigjmp_buf escape;
volatile sig_atomic_t armed = 0;
pthread_t launching_thread;
volatile int caught_signal;
void* volatile caught_at;
void* volatile fault_address;
struct sigaction previous[kCount];

void* program_counter(void* context) {
  auto* machine_context = &static_cast<ucontext_t*>(context)->uc_mcontext;
#if defined(__APPLE__) && defined(__aarch64__)
  return reinterpret_cast<void*>((*machine_context)->__ss.__pc);
#elif defined(__APPLE__)
  return reinterpret_cast<void*>((*machine_context)->__ss.__rip);
#elif defined(__x86_64__)
  return reinterpret_cast<void*>(machine_context->gregs[16]);  // REG_RIP
#elif defined(__aarch64__)
  return reinterpret_cast<void*>(machine_context->pc);
#else
  (void)machine_context;
  return nullptr;
#endif
}

void on_signal(int signal_number, siginfo_t* info, void* context) {
  void* at = program_counter(context);
  if (signal_number == SIGALRM) {
    // Kernel code can be left anywhere; the runtime, which may hold the allocator's lock, sees the flag by itself.
    machine->expired = true;
    if (!armed || !pthread_equal(pthread_self(), launching_thread) || !in_kernel_image(at)) return;
  } else if (!armed || !pthread_equal(pthread_self(), launching_thread)) {
    signal(signal_number, SIG_DFL);
    raise(signal_number);
    return;
  }
  caught_signal = signal_number;
  caught_at = at;
  fault_address = info->si_addr;
  siglongjmp(escape, 1);
}

// Wakes the launching thread when its time is over, and again until it has noticed.
class Watchdog {
 public:
  explicit Watchdog(double seconds) : thread_([this, seconds] { watch(seconds); }) {}
  ~Watchdog() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      done_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

 private:
  void watch(double seconds) {
    std::unique_lock<std::mutex> lock(mutex_);
    auto wait = std::chrono::duration<double>(seconds);
    while (!changed_.wait_for(lock, wait, [this] { return done_; })) {
      pthread_kill(launching_thread, SIGALRM);
      wait = std::chrono::milliseconds(5);
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::thread thread_;
};

void report_caught(const MslLaunch& launch) {
  // Relative addresses are those that follow an instruction, as a call's return address does.
  const void* address = static_cast<char*>(caught_at) + 1;
  switch (caught_signal) {
    case SIGALRM:
      return report_access("timeout", address, "no end after %.3g s", launch.seconds);
    case SIGFPE:
      return report_access("undefined-arithmetic", address, "integer division by zero");
    case SIGILL:
    case SIGTRAP:
      return report_access("private-out-of-bounds", address, "access outside a private array");
    default:
      if (machine->stacks.contains(fault_address))
        return report_access("stack-overflow", address, "more than %zu bytes of private memory", kStackBytes);
      return report_access("wild-access", address, "the access crashed (signal %d)", caught_signal);
  }
}

}  // namespace

void run_guarded(MslLaunch& launch, void (*body)(MslLaunch&)) {
  static char alternate[64 << 10];  // the fibers' own stacks may be what overflowed
  stack_t stack{}, previous_stack;
  stack.ss_sp = alternate;
  stack.ss_size = sizeof alternate;
  sigaltstack(&stack, &previous_stack);
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < kCount; i++) sigaction(kSignals[i], &action, &previous[i]);
  launching_thread = pthread_self();
  {
    Watchdog watchdog(launch.seconds);
    if (sigsetjmp(escape, 1)) {
      report_caught(launch);
      machine->stopped = true;
    } else {
      armed = 1;
      body(launch);
    }
    armed = 0;
  }
  machine->current = nullptr;
  for (int i = 0; i < kCount; i++) sigaction(kSignals[i], &previous[i], nullptr);
  sigaltstack(&previous_stack, nullptr);
}

}  // namespace sim
