#include "rendezvous.h"

#include <cstdio>
#include <cstring>

#include "report.h"
#include "scheduler.h"

namespace sim {
namespace {

constexpr char kBarrier[] = "barrier-divergence";
constexpr char kSimdgroup[] = "simdgroup-divergence";

bool same(MslSite a, MslSite b) {
  return a.line == b.line && a.column == b.column && (a.file == b.file || !strcmp(a.file, b.file));
}

void check_expired(MslSite site) {
  if (machine->expired) report_at("timeout", site, Fatal::kYes, "no end after %.3g s", machine->launch->seconds);
}

// What the lanes of a simdgroup did before they met must agree; then a new interval begins.
void close_interval(Simdgroup& simdgroup) {
  simdgroup.interval++;
  simdgroup.log.clear();
  simdgroup.log_closed = false;
}

void check_interval(Thread& thread, MslSite site) {
  Simdgroup& simdgroup = *thread.simdgroup;
  const uint32_t done = thread.interval == simdgroup.interval ? thread.uniform_count : 0;
  if (done < simdgroup.log.size()) {
    const auto& missed = simdgroup.log[done];
    char where[40] = "returned";
    if (site.line) snprintf(where, sizeof where, "went on to line %u", site.line);
    report_at(kSimdgroup, missed.site, Fatal::kYes, "%s is not reached by every lane: lane %d %s", missed.what,
              thread.lane(), where);
  }
  simdgroup.log_closed = true;
}

// Joins a meeting: true for the last to arrive. Arriving at another place than the first did is divergence.
bool arrive(Meeting& meeting, int expected, const char* what, MslSite site, const char* kind, const char* whose) {
  if (!meeting.arrived) {
    meeting.site = site;
    meeting.what = what;
  } else if (!same(meeting.site, site)) {
    report_at(kind, site, Fatal::kYes, "%s of one %s wait at different places: %s at line %u and %s at line %u",
              whose[0] == 't' ? "threads" : "lanes", whose, meeting.what, meeting.site.line, what, site.line);
  }
  return ++meeting.arrived == expected;
}

Thread* first_of(const Simdgroup& simdgroup) { return machine->threads + simdgroup.index * kSimdWidth; }

void finish(Meeting& meeting, Thread* first, Thread* last) {
  meeting.arrived = 0;
  meeting.active = 0;
  wake(first, last);
}

// A pending operation, kept by the simdgroup or quad so that a returning lane can complete it.
struct Pending {
  MslCombine combine;
  int whole, orders;
};
Pending pending_simdgroup[kMaxThreads / kSimdWidth];
Pending pending_quad[kMaxThreads / kQuadWidth];

void finish_simdgroup(Simdgroup& simdgroup) {
  const Pending& pending = pending_simdgroup[simdgroup.index];
  Meeting& meeting = simdgroup.meeting;
  if (pending.combine) pending.combine(simdgroup.slots, meeting.active);
  if (pending.orders & kOrdersThreadgroup) simdgroup.threadgroup_phase++;
  if (pending.orders & kOrdersDevice) simdgroup.device_phase++;
  close_interval(simdgroup);
  finish(meeting, first_of(simdgroup), first_of(simdgroup) + simdgroup.size);
}

void finish_quad(Simdgroup& simdgroup, int q) {
  Quad& quad = simdgroup.quads[q];
  const Pending& pending = pending_quad[simdgroup.index * (kSimdWidth / kQuadWidth) + q];
  Meeting& meeting = quad.meeting;
  pending.combine(simdgroup.slots + q * kQuadWidth * kSlotBytes, meeting.active);
  Thread* first = first_of(simdgroup) + q * kQuadWidth;
  finish(meeting, first, first + quad.size);
}

void meet_simdgroup(void* payload, int bytes, const Pending& pending, const char* what, MslSite site) {
  check_expired(site);
  machine->collectives++;
  Thread& me = *machine->current;
  Simdgroup& simdgroup = *me.simdgroup;
  Meeting& meeting = simdgroup.meeting;
  const int live = simdgroup.size - simdgroup.returned;
  if (pending.whole && live != kSimdWidth)
    report_at("inactive-lane", site, Fatal::kYes, "%s in a simdgroup with %d live lanes: it needs 32", what, live);
  check_interval(me, site);
  // A lane alone writes and reads its slot; the next combine cannot run before it has arrived again.
  unsigned char* slot = simdgroup.slots + me.lane() * kSlotBytes;
  memcpy(slot, payload, static_cast<size_t>(bytes));
  meeting.active |= 1u << me.lane();
  pending_simdgroup[simdgroup.index] = pending;
  if (arrive(meeting, live, what, site, kSimdgroup, "simdgroup"))
    finish_simdgroup(simdgroup);
  else
    wait_at(what, site);
  memcpy(payload, slot, static_cast<size_t>(bytes));
}

void meet_quad(void* payload, int bytes, MslCombine combine, const char* what, MslSite site) {
  check_expired(site);
  machine->collectives++;
  Thread& me = *machine->current;
  Simdgroup& simdgroup = *me.simdgroup;
  const int q = me.lane() / kQuadWidth;
  Quad& quad = simdgroup.quads[q];
  unsigned char* slot = simdgroup.slots + me.lane() * kSlotBytes;
  memcpy(slot, payload, static_cast<size_t>(bytes));
  quad.meeting.active |= 1u << me.lane() % kQuadWidth;
  pending_quad[simdgroup.index * (kSimdWidth / kQuadWidth) + q] = {combine, 0, 0};
  if (arrive(quad.meeting, quad.size - quad.returned, what, site, kSimdgroup, "quad"))
    finish_quad(simdgroup, q);
  else
    wait_at(what, site);
  memcpy(payload, slot, static_cast<size_t>(bytes));
}

}  // namespace

void begin_meetings() {
  machine->barrier = Meeting{};
  machine->returned = 0;
  for (int first = 0; first < machine->n_threads; first += kSimdWidth) {
    Simdgroup& simdgroup = machine->simdgroups[first / kSimdWidth];
    unsigned char* slots = simdgroup.slots;
    simdgroup = Simdgroup{};
    simdgroup.slots = slots;
    simdgroup.index = first / kSimdWidth;
    simdgroup.size = machine->n_threads - first < kSimdWidth ? machine->n_threads - first : +kSimdWidth;
    for (int lane = 0; lane < simdgroup.size; lane++) {
      Thread& thread = machine->threads[first + lane];
      thread.simdgroup = &simdgroup;
      thread.interval = thread.uniform_count = 0;
      simdgroup.quads[lane / kQuadWidth].size++;
    }
  }
}

void thread_returned(Thread& thread) {
  Simdgroup& simdgroup = *thread.simdgroup;
  const int q = thread.lane() / kQuadWidth;
  Quad& quad = simdgroup.quads[q];
  check_interval(thread, MslSite{"", 0, 0});
  machine->returned++;
  simdgroup.returned++;
  quad.returned++;
  if (machine->barrier.arrived)
    report_at(kBarrier, machine->barrier.site, Fatal::kYes,
              "a thread returned while %d thread(s) of its threadgroup wait at threadgroup_barrier",
              machine->barrier.arrived);
  if (simdgroup.meeting.arrived) {
    if (pending_simdgroup[simdgroup.index].whole)
      report_at("inactive-lane", simdgroup.meeting.site, Fatal::kYes, "a lane returned while others wait in %s",
                simdgroup.meeting.what);
    // A returned lane is an inactive lane: the others go on without it.
    if (simdgroup.meeting.arrived == simdgroup.size - simdgroup.returned) finish_simdgroup(simdgroup);
  }
  if (quad.meeting.arrived && quad.meeting.arrived == quad.size - quad.returned) finish_quad(simdgroup, q);
}

void report_threads_that_wait_forever() {
  char text[240] = "";
  size_t used = 0;
  const Thread* reported[4];
  int n_reported = 0;
  bool in_collective = false;
  for (int i = 0; i < machine->n_threads; i++) {
    const Thread& thread = machine->threads[i];
    if (thread.state != State::kWaiting) continue;
    in_collective |= strcmp(thread.waits_for, "threadgroup_barrier") != 0;
    bool known = n_reported == 4;
    for (int k = 0; k < n_reported; k++) known |= same(reported[k]->waits_at, thread.waits_at);
    if (known) continue;
    reported[n_reported++] = &thread;
    int count = 0;
    for (int j = i; j < machine->n_threads; j++)
      count += machine->threads[j].state == State::kWaiting && same(machine->threads[j].waits_at, thread.waits_at);
    const int n = snprintf(text + used, sizeof text - used, "%s%d at %s (line %u)", used ? ", " : "", count,
                           thread.waits_for, thread.waits_at.line);
    used += n > 0 && used + static_cast<size_t>(n) < sizeof text ? static_cast<size_t>(n) : 0;
  }
  machine->current = const_cast<Thread*>(n_reported ? reported[0] : nullptr);
  MslSite site = n_reported ? reported[0]->waits_at : MslSite{};
  report_at(in_collective ? kSimdgroup : kBarrier, site, Fatal::kNo, "threads wait for ever: %s", text);
  machine->current = nullptr;
  machine->stopped = true;
}

}  // namespace sim

using namespace sim;

extern "C" {

void msl_threadgroup_barrier(int flags, MslSite site) {
  constexpr char what[] = "threadgroup_barrier";
  check_expired(site);
  if (machine->returned)
    report_at(kBarrier, site, Fatal::kYes, "%s reached after %d thread(s) of the threadgroup returned", what,
              machine->returned);
  check_interval(*machine->current, site);
  if (!arrive(machine->barrier, machine->n_threads, what, site, kBarrier, "threadgroup")) {
    wait_at(what, site);
    return;
  }
  // The last to arrive passes the barrier for all: a new phase of each memory that the flags order.
  if (flags & kOrdersThreadgroup) machine->threadgroup_phase++;
  if (flags & kOrdersDevice) machine->device_phase++;
  for (int s = 0; s * kSimdWidth < machine->n_threads; s++) close_interval(machine->simdgroups[s]);
  finish(machine->barrier, machine->threads, machine->threads + machine->n_threads);
}

void msl_simdgroup_barrier(int flags, MslSite site) {
  meet_simdgroup(&flags, 0, Pending{nullptr, 0, flags}, "simdgroup_barrier", site);
}

void msl_collective(int width, void* payload, int bytes, int whole, MslCombine combine, const char* what,
                    MslSite site) {
  if (width == kQuadWidth)
    meet_quad(payload, bytes, combine, what, site);
  else
    meet_simdgroup(payload, bytes, Pending{combine, whole, kOrdersNothing}, what, site);
}

void msl_uniform(const char* what, MslSite site) {
  check_expired(site);
  machine->collectives++;
  Thread& me = *machine->current;
  Simdgroup& simdgroup = *me.simdgroup;
  if (me.interval != simdgroup.interval) {
    me.interval = simdgroup.interval;
    me.uniform_count = 0;
  }
  const uint32_t i = me.uniform_count++;
  if (i == simdgroup.log.size()) {
    // Only here: a lane that has done every operation of the log may have returned meanwhile.
    const int live = simdgroup.size - simdgroup.returned;
    if (live != kSimdWidth)
      report_at("inactive-lane", site, Fatal::kYes, "%s in a simdgroup with %d live lanes: it needs 32", what, live);
    if (simdgroup.log_closed)
      report_at(kSimdgroup, site, Fatal::kYes, "%s is not reached by every lane of the simdgroup", what);
    simdgroup.log.push_back({what, site});
  } else if (!same(simdgroup.log[i].site, site)) {
    report_at(kSimdgroup, site, Fatal::kYes, "lanes of one simdgroup do different operations: %s at line %u and %s at line %u",
              simdgroup.log[i].what, simdgroup.log[i].site.line, what, site.line);
  }
}

void msl_inactive_lane(int lane, const char* what, MslSite site) {
  report_at("inactive-lane", site, Fatal::kNo, "%s reads lane %d, which is not active", what, lane);
}

msl_u32 msl_lane() { return machine->current->attributes.thread_index_in_simdgroup; }
}
