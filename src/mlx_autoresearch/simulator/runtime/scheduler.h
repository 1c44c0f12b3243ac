// Which thread runs next. A thread runs until it waits or returns; the order in which threads and threadgroups get their
// turn is ascending, descending, or random by seed.
#pragma once
#include <cstdint>
#include <vector>

#include "machine.h"

namespace sim {

void set_order(int order);
std::vector<uint32_t> threadgroup_order(uint32_t count);

// Runs machine->threads[0 … n_threads) until each has returned or none can go on.
void run_threadgroup();

// Called by the running thread.
void wait_at(const char* what, MslSite site);  // until somebody wakes it
void yield();                                  // lets others go first, in random orders
[[noreturn]] void leave();                     // for good: it has returned
void stop_everything();                        // after a fatal finding; does not return to a thread

// Makes the waiting ones of a range of threads ready.
void wake(Thread* first, Thread* last);

}  // namespace sim
