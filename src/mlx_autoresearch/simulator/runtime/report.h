// Findings: collected without allocation, counted when they repeat, handed to Python at the end of the launch.
#pragma once
#include "abi.h"

namespace sim {

enum class Fatal : bool { kNo, kYes };

void begin_report(MslLaunch* launch);

// `address`: the instruction that follows the access, which Python turns into a line.
__attribute__((format(printf, 3, 4))) void report_access(const char* kind, const void* address, const char* format, ...);
__attribute__((format(printf, 4, 5))) void report_at(const char* kind, MslSite site, Fatal fatal, const char* format, ...);
// A finding about the launch as a whole.
__attribute__((format(printf, 2, 3))) void report_launch(const char* kind, const char* format, ...);

}  // namespace sim
