#include "shadow.h"

#include <cstdio>
#include <cstdlib>

#include "machine.h"
#include "report.h"

namespace sim {
namespace {

// The running thread as this memory's barriers see it.
struct View {
  Access now;
  uint64_t first_phase;  // this threadgroup's first
  uint64_t simdgroup;
  bool shared_by_threadgroups;
};

inline View view_of(const Region& region) {
  const Thread& me = *machine->current;
  const Simdgroup& simdgroup = *me.simdgroup;
  View view;
  view.shared_by_threadgroups = region.shared_by_threadgroups;
  view.simdgroup = static_cast<uint64_t>(simdgroup.index);
  view.now.who = static_cast<uint64_t>(me.index()) + 1;
  if (region.shared_by_threadgroups) {
    view.now.phase = machine->device_phase;
    view.now.simd_phase = simdgroup.device_phase;
    view.first_phase = machine->first_device_phase;
  } else {
    view.now.phase = machine->threadgroup_phase;
    view.now.simd_phase = simdgroup.threadgroup_phase;
    view.first_phase = machine->first_threadgroup_phase;
  }
  return view;
}

inline uint64_t simdgroup_of(Access access) {  // no simdgroup's number for kSimdgroups and above
  return access.who >= kSimdgroup0 ? access.who - kSimdgroup0 : (access.who - 1) / kSimdWidth;
}

// THE DECISION. Two accesses of which one is a write, and which are not both atomic, race unless the earlier one
// happens before the later: in the same thread, or with a barrier between them that orders this memory and that both
// threads take part in. The order in which the simulator happened to run them plays no part.
inline bool happens_before(Access earlier, const View& view) {
  if (earlier.who == kNobody || earlier.who == kHost) return true;
  if (earlier.phase < view.first_phase)          // by another threadgroup. Its threadgroup memory is gone;
    return !view.shared_by_threadgroups;         // on device memory nothing orders two threadgroups.
  if (earlier.who == kThreadgroups) return false;
  if (earlier.who == view.now.who) return true;
  if (earlier.phase < view.now.phase) return true;  // a threadgroup barrier lies between
  return simdgroup_of(earlier) == view.simdgroup && earlier.simd_phase < view.now.simd_phase;  // a simdgroup barrier
}

// Reads (and atomics) may be many in one phase; a later write must come after all of them. One Access stands for all
// that are not already ordered before the newest.
inline Access join(Access earlier, const View& view) {
  Access joined = view.now;
  if (earlier.who == kNobody || earlier.who == kHost) return joined;
  if (view.shared_by_threadgroups && (earlier.phase < view.first_phase || earlier.who == kThreadgroups)) {
    joined.who = kThreadgroups;
  } else if (earlier.phase == view.now.phase && earlier.who != view.now.who) {
    if (simdgroup_of(earlier) != view.simdgroup)
      joined.who = kSimdgroups;
    else if (earlier.simd_phase == view.now.simd_phase)
      joined.who = kSimdgroup0 + view.simdgroup;
  }
  return joined;
}

inline bool is_written(const Cell& cell, const View& view) {
  // Threadgroup memory that another threadgroup wrote is not written: each begins with garbage.
  auto written = [&](Access a) {
    return a.who != kNobody && (view.shared_by_threadgroups || a.phase >= view.first_phase);
  };
  return written(cell.write) || written(cell.atomic_write);
}

struct Range {
  Cell *first, *last;
  size_t offset;
};

__attribute__((noinline)) void split_cells(Region& region, size_t alignment) {
  int granule_log2 = region.granule_log2;
  while (alignment & ((size_t{1} << granule_log2) - 1)) granule_log2--;
  const int ratio_log2 = region.granule_log2 - granule_log2;
  const size_t n = region.n_cells() << ratio_log2;
  Cell* cells = static_cast<Cell*>(malloc((n + 1) * sizeof(Cell)));
  for (size_t i = 0; i < n; i++) cells[i] = region.cells[i >> ratio_log2];
  free(region.cells);
  region.cells = cells;
  region.granule_log2 = granule_log2;
}

inline Range cells_of(Region& region, size_t offset, size_t bytes) {
  if ((offset | bytes) & ((size_t{1} << region.granule_log2) - 1)) split_cells(region, offset | bytes);
  return {region.cells + (offset >> region.granule_log2),
          region.cells + ((offset + bytes - 1) >> region.granule_log2) + 1, offset};
}

size_t element(const Region& region, const Range& range) {
  return range.offset / static_cast<size_t>(region.element_bytes);
}

const char* race_kind(const Region& region) {
  return region.shared_by_threadgroups ? "device-race" : "threadgroup-race";
}

void describe(char (&text)[64], Access access, const View& view) {
  const uint64_t who = access.who;
  if (view.shared_by_threadgroups && (access.phase < view.first_phase || who == kThreadgroups))
    snprintf(text, sizeof text, "another threadgroup");
  else if (who == kSimdgroups)
    snprintf(text, sizeof text, "threads of several simdgroups");
  else if (who >= kSimdgroup0)
    snprintf(text, sizeof text, "several lanes of simdgroup %d", static_cast<int>(who - kSimdgroup0));
  else
    snprintf(text, sizeof text, "thread %d of the threadgroup", static_cast<int>(who) - 1);
}

void report_race(const Region& region, const Range& range, const char* now, const char* earlier, Access access,
                 const View& view, const void* address) {
  char by[64];
  describe(by, access, view);
  report_access(race_kind(region), address, "%s of %s[%zu] races with %s by %s", now, region.name, element(region, range),
                earlier, by);
}

void check_written(const Region& region, const Range& range, const Cell& cell, const View& view, const void* address) {
  if (is_written(cell, view)) return;
  report_access(region.shared_by_threadgroups ? "uninitialised-output-read" : "uninitialised-threadgroup-read", address,
                "read of %s[%zu], which no thread has written", region.name, element(region, range));
}

}  // namespace

void check_read(Region& region, size_t offset, size_t bytes, const void* address) {
  const View view = view_of(region);
  const Range range = cells_of(region, offset, bytes);
  for (Cell* cell = range.first; cell < range.last; ++cell) {
    check_written(region, range, *cell, view, address);
    if (!happens_before(cell->write, view)) report_race(region, range, "read", "a write", cell->write, view, address);
    if (!happens_before(cell->atomic_write, view))
      report_race(region, range, "read", "an atomic write", cell->atomic_write, view, address);
    cell->read = join(cell->read, view);
  }
}

void check_write(Region& region, size_t offset, size_t bytes, const void* address) {
  const View view = view_of(region);
  const Range range = cells_of(region, offset, bytes);
  for (Cell* cell = range.first; cell < range.last; ++cell) {
    if (!happens_before(cell->write, view)) report_race(region, range, "write", "a write", cell->write, view, address);
    if (!happens_before(cell->read, view)) report_race(region, range, "write", "a read", cell->read, view, address);
    if (!happens_before(cell->atomic_write, view))
      report_race(region, range, "write", "an atomic write", cell->atomic_write, view, address);
    if (!happens_before(cell->atomic_read, view))
      report_race(region, range, "write", "an atomic read", cell->atomic_read, view, address);
    cell->write = view.now;
  }
}

void check_atomic(Region& region, size_t offset, size_t bytes, bool reads, bool writes, const void* address) {
  const View view = view_of(region);
  const Range range = cells_of(region, offset, bytes);
  for (Cell* cell = range.first; cell < range.last; ++cell) {
    if (reads) check_written(region, range, *cell, view, address);
    if (!happens_before(cell->write, view))
      report_race(region, range, "atomic access", "a write", cell->write, view, address);
    if (writes && !happens_before(cell->read, view))
      report_race(region, range, "atomic write", "a read", cell->read, view, address);
    if (reads) cell->atomic_read = join(cell->atomic_read, view);
    if (writes) cell->atomic_write = join(cell->atomic_write, view);
  }
}

void allocate_cells(Region& region, bool written_by_host) {
  region.granule_log2 = 0;
  while (region.granule_log2 < 4 && (region.element_bytes >> region.granule_log2) % 2 == 0) region.granule_log2++;
  const size_t n = region.n_cells() + 1;
  region.cells = static_cast<Cell*>(calloc(n, sizeof(Cell)));
  if (written_by_host)
    for (size_t i = 0; i < n; i++) region.cells[i].write.who = kHost;
}

void free_cells(Region& region) {
  free(region.cells);
  region.cells = nullptr;
}

Unwritten count_unwritten(const Region& region) {
  Unwritten result{0, 0};
  const size_t element = static_cast<size_t>(region.element_bytes);
  size_t last = ~size_t{0};
  for (size_t i = 0; i < region.n_cells(); i++) {
    const Cell& cell = region.cells[i];
    if (cell.write.who != kNobody || cell.atomic_write.who != kNobody) continue;
    const size_t index = (i << region.granule_log2) / element;
    if (index == last) continue;
    last = index;
    if (!result.elements++) result.first = index;
  }
  return result;
}

}  // namespace sim
