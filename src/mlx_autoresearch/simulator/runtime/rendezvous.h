// Where threads meet: threadgroup barriers (all threads), simdgroup operations (32 lanes) and quad operations (4 lanes).
// Every live member must arrive, and at the same place in the source; anything else is divergence.
#pragma once
#include "machine.h"

namespace sim {

void begin_meetings();                  // at the start of a threadgroup
void thread_returned(Thread& thread);   // a returned thread is one that will never arrive
void report_threads_that_wait_forever();

}  // namespace sim
