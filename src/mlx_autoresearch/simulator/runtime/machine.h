// The simulated machine: the threads of the one threadgroup that runs, and who of them runs now.
#pragma once
#include <cstdint>
#include <vector>

#include "abi.h"
#include "fibers.h"

namespace sim {

struct Simdgroup;

enum class State : uint8_t { kReady, kWaiting, kReturned };

struct Thread {
  Context context;
  MslThread attributes;
  Simdgroup* simdgroup;
  State state;
  const char* waits_for;  // the MSL function, while waiting
  MslSite waits_at;
  uint32_t interval, uniform_count;  // see Simdgroup::log
  int index() const { return static_cast<int>(attributes.thread_index_in_threadgroup); }
  int lane() const { return static_cast<int>(attributes.thread_index_in_simdgroup); }
};

// Threads that have arrived at a barrier or collective and wait for the rest of their group.
struct Meeting {
  int arrived = 0;
  const char* what = nullptr;
  MslSite site{};
  uint32_t active = 0;  // lanes that arrived
};

struct Quad {
  int size = 0, returned = 0;
  Meeting meeting;
};

struct Simdgroup {
  int index = 0, size = 0, returned = 0;
  Meeting meeting;
  Quad quads[kSimdWidth / kQuadWidth];
  uint32_t threadgroup_phase = 1, device_phase = 1;  // simdgroup barriers passed that order each memory
  // Matrix loads and stores since the last meeting (an "interval"), in order. Every lane must do the same ones; comparing
  // with this log finds a lane that does not, without switching fibers at each load.
  struct Entry {
    const char* what;
    MslSite site;
  };
  std::vector<Entry> log;
  bool log_closed = false;  // a lane has arrived at the next meeting: the log is complete
  uint32_t interval = 0;
  unsigned char* slots = nullptr;  // one for each lane: what it brings to a collective, then what it takes away
};

struct Machine {
  StackPool stacks{kMaxThreads};
  Thread threads[kMaxThreads];
  Simdgroup simdgroups[kMaxThreads / kSimdWidth];
  Meeting barrier;
  Thread* current = nullptr;
  int n_threads = 0, returned = 0;
  // Barriers passed, plus one for each threadgroup begun, for each memory; and their values when this threadgroup began.
  uint32_t threadgroup_phase = 1, device_phase = 1, first_threadgroup_phase = 1, first_device_phase = 1;
  bool stopped = false;  // a fatal finding: nothing runs any more
  volatile bool expired = false;
  MslLaunch* launch = nullptr;
  void** arguments = nullptr;
  uint64_t switches = 0, accesses = 0, collectives = 0;
};

extern Machine* machine;

}  // namespace sim
