// One launch: the grid cut into threadgroups, and each of them run to its end.
#include <algorithm>
#include <cstdint>

#include "image.h"
#include "machine.h"
#include "memory.h"
#include "rendezvous.h"
#include "report.h"
#include "scheduler.h"
#include "shadow.h"
#include "signals.h"

namespace sim {

Machine* machine = nullptr;

namespace {

unsigned char* slots() {
  alignas(64) static unsigned char memory[kMaxThreads * kSlotBytes];
  return memory;
}

struct Grid {
  uint32_t threadgroup[3], groups[3];
};

// As Metal does for dispatchThreads: the threadgroup is clamped to the grid, the last ones may be partial.
Grid cut(const MslLaunch& launch) {
  Grid grid;
  for (int k = 0; k < 3; k++) {
    grid.threadgroup[k] = std::min(launch.threadgroup[k], launch.grid[k]);
    grid.groups[k] = grid.threadgroup[k] ? (launch.grid[k] + grid.threadgroup[k] - 1) / grid.threadgroup[k] : 0;
  }
  return grid;
}

void set_attributes(MslThread& t, const MslLaunch& launch, const Grid& grid, const uint32_t (&group)[3],
                    const uint32_t (&size)[3], uint32_t i) {
  const uint32_t position[3] = {i % size[0], i / size[0] % size[1], i / size[0] / size[1]};
  for (int k = 0; k < 3; k++) {
    t.thread_position_in_threadgroup[k] = position[k];
    t.threadgroup_position_in_grid[k] = group[k];
    t.thread_position_in_grid[k] = group[k] * grid.threadgroup[k] + position[k];
    t.threads_per_threadgroup[k] = size[k];
    t.dispatch_threads_per_threadgroup[k] = grid.threadgroup[k];
    t.threads_per_grid[k] = launch.grid[k];
    t.threadgroups_per_grid[k] = grid.groups[k];
  }
  const uint32_t full = grid.threadgroup[0] * grid.threadgroup[1] * grid.threadgroup[2];
  t.thread_index_in_threadgroup = i;
  t.thread_index_in_simdgroup = i % kSimdWidth;
  t.simdgroup_index_in_threadgroup = i / kSimdWidth;
  t.simdgroups_per_threadgroup = (size[0] * size[1] * size[2] + kSimdWidth - 1) / kSimdWidth;
  t.dispatch_simdgroups_per_threadgroup = (full + kSimdWidth - 1) / kSimdWidth;
}

void begin_threadgroup(const MslLaunch& launch, const Grid& grid, uint32_t index) {
  const uint32_t group[3] = {index % grid.groups[0], index / grid.groups[0] % grid.groups[1],
                             index / grid.groups[0] / grid.groups[1]};
  uint32_t size[3];
  for (int k = 0; k < 3; k++) size[k] = std::min(grid.threadgroup[k], launch.grid[k] - group[k] * grid.threadgroup[k]);
  machine->n_threads = static_cast<int>(size[0] * size[1] * size[2]);
  machine->first_threadgroup_phase = ++machine->threadgroup_phase;
  machine->first_device_phase = ++machine->device_phase;
  for (int i = 0; i < machine->n_threads; i++)
    set_attributes(machine->threads[i].attributes, launch, grid, group, size, static_cast<uint32_t>(i));
  begin_meetings();
  reset_threadgroup_memory(launch.checked);
}

void run_threadgroups(MslLaunch& launch) {
  const Grid grid = cut(launch);
  for (uint32_t index : threadgroup_order(grid.groups[0] * grid.groups[1] * grid.groups[2])) {
    begin_threadgroup(launch, grid, index);
    run_threadgroup();
    if (!machine->stopped && machine->returned != machine->n_threads) report_threads_that_wait_forever();
    if (machine->threadgroup_phase > kLastPhase / 2 || machine->device_phase > kLastPhase / 2) {
      report_launch("timeout", "more than %lu barriers: simulate fewer threadgroups",
                    static_cast<unsigned long>(kLastPhase / 2));
      machine->stopped = true;
    }
    if (machine->stopped) return;
  }
}

bool check_size(const MslLaunch& launch) {
  const Grid grid = cut(launch);
  uint64_t threads = 1;
  for (uint32_t size : grid.threadgroup) threads = std::min<uint64_t>(threads * size, UINT32_MAX);
  if (!threads) {
    report_launch("threadgroup-size-limit", "the grid or the threadgroup is empty");
    return false;
  }
  if (threads > kMaxThreads) {
    report_launch("threadgroup-size-limit", "%llu threads in a threadgroup, the limit is %d",
                  static_cast<unsigned long long>(threads), kMaxThreads);
    return false;
  }
  return true;
}

void create_machine() {
  machine = new Machine;
  for (int s = 0; s < kMaxThreads / kSimdWidth; s++) machine->simdgroups[s].slots = slots() + s * kSimdWidth * kSlotBytes;
}

}  // namespace
}  // namespace sim

using namespace sim;

// Runs a launch. Not reentrant: one launch at a time in a process. Returns the number of findings.
extern "C" int msl_launch(MslLaunch* launch) {
  if (!machine) create_machine();
  begin_report(launch);
  machine->launch = launch;
  machine->stopped = machine->expired = false;
  machine->switches = machine->accesses = machine->collectives = 0;
  machine->threadgroup_phase = machine->device_phase = 1;
  launch->threadgroup_bytes = 0;
  if (check_size(*launch)) {
    set_order(launch->order);
    set_kernel_image(reinterpret_cast<const void*>(launch->entry));
    forget_threadgroup_memory();
    open_device_memory(*launch);
    machine->arguments = device_pointers();
    run_guarded(*launch, run_threadgroups);
    close_device_memory(*launch);
  }
  for (int i = 0; i < launch->n_findings; i++)
    if (launch->findings[i].address)
      launch->findings[i].address = const_cast<void*>(relative_to_image(launch->findings[i].address));
  launch->switches = machine->switches;
  launch->accesses = machine->accesses;
  launch->collectives = machine->collectives;
  return launch->n_findings;
}

extern "C" void msl_count(msl_u32 counter, int change) {
  if (counter < machine->launch->n_counters) machine->launch->counters[counter] += static_cast<msl_u64>(change);
}
