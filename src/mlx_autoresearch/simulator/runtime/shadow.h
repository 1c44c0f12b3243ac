// Shadow memory: what happened to every granule of threadgroup and output memory. `check_read`, `check_write` and
// `check_atomic` (shadow.cpp) decide whether an access is a race, by `happens_before`.
#pragma once
#include <cstddef>
#include <cstdint>

namespace sim {

// Who accessed, and in which phase. A phase of a memory lasts from one barrier that orders it to the next.
struct Access {
  uint64_t who : 12;         // a thread's index + 1, or one of Who
  uint64_t simd_phase : 26;  // the same for barriers of the thread's simdgroup
  uint64_t phase : 26;
};
static_assert(sizeof(Access) == 8, "four of them make a cell");

enum Who : uint64_t {
  kNobody = 0,
  kSimdgroup0 = 0xC00,     // + k: several lanes of simdgroup k, in one phase
  kSimdgroups = 0xFFD,     // threads of several simdgroups, in one phase
  kThreadgroups = 0xFFE,   // threads of several threadgroups
  kHost = 0xFFF,           // written before the launch
};

constexpr uint64_t kLastPhase = (1u << 26) - 1;

struct Cell {
  Access write, read, atomic_write, atomic_read;
};

// A range of memory with its cells. Cells begin as wide as an element; the first narrower access splits them.
struct Region {
  char* base;
  size_t bytes;
  const char* name;
  int element_bytes;
  bool shared_by_threadgroups;  // device memory; otherwise threadgroup memory
  int granule_log2;
  Cell* cells;
  size_t n_cells() const { return (bytes + (size_t{1} << granule_log2) - 1) >> granule_log2; }
};

void allocate_cells(Region& region, bool written_by_host);
void free_cells(Region& region);

// An access by the running thread to [offset, offset + bytes) of a region. `address`: the code, for the report.
void check_read(Region& region, size_t offset, size_t bytes, const void* address);
void check_write(Region& region, size_t offset, size_t bytes, const void* address);
void check_atomic(Region& region, size_t offset, size_t bytes, bool reads, bool writes, const void* address);

struct Unwritten {
  size_t elements, first;
};
Unwritten count_unwritten(const Region& region);

}  // namespace sim
