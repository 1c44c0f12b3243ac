// Crashes and endless loops of kernel code end the launch, not the process.
#pragma once
#include "abi.h"

namespace sim {

// Runs `body`; if a signal ends it, reports a crash, stack overflow or timeout instead.
void run_guarded(MslLaunch& launch, void (*body)(MslLaunch&));

}  // namespace sim
