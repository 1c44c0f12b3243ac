#include "report.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "machine.h"
#include "scheduler.h"

namespace sim {
namespace {

MslLaunch* target = nullptr;

bool same_place(const MslFinding& f, const char* kind, const void* address, MslSite site) {
  return f.address == address && f.line == site.line && !strcmp(f.kind, kind) &&
         !strncmp(f.file, site.file ? site.file : "", sizeof f.file - 1);
}

void add(const char* kind, const void* address, MslSite site, const char* format, va_list values) {
  if (!target) return;
  for (int i = 0; i < target->n_findings; i++)
    if (same_place(target->findings[i], kind, address, site)) {
      target->findings[i].count++;
      return;
    }
  if (target->n_findings == target->max_findings) return;
  MslFinding& f = target->findings[target->n_findings++];
  memset(&f, 0, sizeof f);
  snprintf(f.kind, sizeof f.kind, "%s", kind);
  vsnprintf(f.message, sizeof f.message, format, values);
  snprintf(f.file, sizeof f.file, "%s", site.file ? site.file : "");
  f.address = const_cast<void*>(address);
  f.line = site.line;
  f.count = 1;
  if (machine->current) {
    const MslThread& t = machine->current->attributes;
    memcpy(f.thread, t.thread_position_in_threadgroup, sizeof f.thread);
    memcpy(f.threadgroup, t.threadgroup_position_in_grid, sizeof f.threadgroup);
  }
}

}  // namespace

void begin_report(MslLaunch* launch) {
  target = launch;
  launch->n_findings = 0;
}

void report_access(const char* kind, const void* address, const char* format, ...) {
  va_list values;
  va_start(values, format);
  add(kind, address, MslSite{}, format, values);
  va_end(values);
}

void report_at(const char* kind, MslSite site, Fatal fatal, const char* format, ...) {
  va_list values;
  va_start(values, format);
  add(kind, nullptr, site, format, values);
  va_end(values);
  if (fatal == Fatal::kYes) stop_everything();
}

void report_launch(const char* kind, const char* format, ...) {
  va_list values;
  va_start(values, format);
  add(kind, nullptr, MslSite{}, format, values);
  va_end(values);
}

}  // namespace sim
