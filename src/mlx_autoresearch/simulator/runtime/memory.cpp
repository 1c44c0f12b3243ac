#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "image.h"
#include "machine.h"
#include "report.h"
#include "scheduler.h"
#include "shadow.h"

namespace sim {
namespace {

constexpr size_t kGuardBand = 64 << 10;                // on either side of a buffer
constexpr size_t kArena = 256 << 10;                   // more than the limit: too much is reported, and still runs
constexpr size_t kRedZone = 128;                       // between threadgroup arrays
constexpr size_t kFirstArray = 16 << 10;               // what lies before it belongs to an index that is too small
constexpr int kMaxArrays = 64;
constexpr unsigned char kGarbage = 0xFF;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

struct Buffer {
  Region region;
  bool output, initialised;
};

char* device = nullptr;
size_t device_bytes = 0;
std::vector<Buffer> buffers;
std::vector<void*> pointers;
size_t last_buffer = 0;  // where the last access fell: the next one often falls there too

struct Array {
  Region region;
  int id;
};

char* threadgroup_memory = nullptr;
Array arrays[kMaxArrays];     // of the running threadgroup; the cells are kept from one to the next
int n_arrays = 0;
size_t threadgroup_used = kFirstArray;  // of the arena
int last_array = 0;

const char* verb(Kind kind) { return kind == Kind::kRead ? "read" : "write"; }

bool within(const char* p, const char* base, size_t bytes) { return static_cast<size_t>(p - base) < bytes; }

// Ends the thread's run: what it does next would follow from a wild pointer.
void report_wild(Kind kind, size_t bytes, const void* address, const char* where) {
  report_access("wild-access", address, "%s of %zu bytes %s", verb(kind), bytes, where);
  stop_everything();
}

bool misaligned(size_t offset, size_t bytes) {
  return bytes > 1 && bytes <= 16 && (bytes & (bytes - 1)) == 0 && offset % bytes != 0;
}

void check_shadow(Region& region, size_t offset, size_t bytes, Kind kind, const void* address) {
  if (kind == Kind::kWrite)
    check_write(region, offset, bytes, address);
  else
    check_read(region, offset, bytes, address);
}

Array* find_array(const char* p) {
  if (last_array < n_arrays && within(p, arrays[last_array].region.base, arrays[last_array].region.bytes))
    return &arrays[last_array];
  for (int i = 0; i < n_arrays; i++)
    if (within(p, arrays[i].region.base, arrays[i].region.bytes)) return &arrays[last_array = i];
  return nullptr;
}

// The nearest array that begins at or before p: the one that an overrun has left.
const Array* array_before(const char* p) {
  const Array* nearest = nullptr;
  for (int i = 0; i < n_arrays; i++)
    if (arrays[i].region.base <= p && (!nearest || arrays[i].region.base > nearest->region.base)) nearest = &arrays[i];
  return nearest;
}

Region* threadgroup_region(const char* p, size_t bytes, const char* what, const void* address) {
  Array* array = find_array(p);
  if (array && p + bytes <= array->region.base + array->region.bytes) return &array->region;
  const Array* near = array_before(p);
  if (near)
    report_access("threadgroup-out-of-bounds", address, "%s of %zu bytes at element %zu of %s, which has %zu", what, bytes,
                  static_cast<size_t>(p - near->region.base) / static_cast<size_t>(near->region.element_bytes),
                  near->region.name, near->region.bytes / static_cast<size_t>(near->region.element_bytes));
  else
    report_access("threadgroup-out-of-bounds", address, "%s of %zu bytes before the first threadgroup array", what, bytes);
  return nullptr;
}

Buffer* find_buffer(const char* p) {
  auto near = [p](const Buffer& b) { return within(p, b.region.base - kGuardBand, b.region.bytes + 2 * kGuardBand); };
  if (last_buffer < buffers.size() && near(buffers[last_buffer])) return &buffers[last_buffer];
  for (size_t i = 0; i < buffers.size(); i++)
    if (near(buffers[i])) return &buffers[last_buffer = i];
  return nullptr;
}

Buffer* device_buffer(const char* p, size_t bytes, const char* what, const void* address) {
  Buffer* buffer = find_buffer(p);
  if (!buffer) {
    report_access("wild-access", address, "%s of %zu bytes between the buffers", what, bytes);
    stop_everything();
    return nullptr;
  }
  const Region& region = buffer->region;
  if (p >= region.base && p + bytes <= region.base + region.bytes) return buffer;
  const long element = region.element_bytes, offset = p - region.base;
  report_access("device-out-of-bounds", address, "%s of %zu bytes at element %ld of %s, which has %ld", what, bytes,
                (offset < 0 ? offset - element + 1 : offset) / element, region.name,
                static_cast<long>(region.bytes) / element);
  return nullptr;
}

void check_threadgroup(const char* p, size_t bytes, Kind kind, bool natural, const void* address) {
  Region* region = threadgroup_region(p, bytes, verb(kind), address);
  if (!region) return;
  const size_t offset = static_cast<size_t>(p - region->base);
  if (natural && misaligned(offset, bytes))
    report_access("misaligned-access", address, "%s of %zu bytes at byte %zu of %s", verb(kind), bytes, offset,
                  region->name);
  check_shadow(*region, offset, bytes, kind, address);
}

void check_device(const char* p, size_t bytes, Kind kind, bool natural, const void* address) {
  Buffer* buffer = device_buffer(p, bytes, verb(kind), address);
  if (!buffer) return;
  Region& region = buffer->region;
  const size_t offset = static_cast<size_t>(p - region.base);
  if (natural && misaligned(offset, bytes))
    report_access("misaligned-access", address, "%s of %zu bytes at byte %zu of %s", verb(kind), bytes, offset,
                  region.name);
  if (buffer->output)
    check_shadow(region, offset, bytes, kind, address);
  else if (kind == Kind::kWrite)
    report_access("input-write", address, "write to input %s[%zu]", region.name,
                  offset / static_cast<size_t>(region.element_bytes));
}

}  // namespace

void check_access(const void* pointer, size_t bytes, Kind kind, bool natural, const void* address) {
  if (!machine || !machine->current) return;
  const char* p = static_cast<const char*>(pointer);
  const StackPool& stacks = machine->stacks;
  if (stacks.contains(p)) {
    if (stacks.owner(p) == machine->current->index() && !stacks.in_guard(p)) return;
    if (stacks.owner(p) == machine->current->index() || kind == Kind::kWrite) {
      report_access("stack-overflow", address, "%s of %zu bytes beyond this thread's %zu bytes of stack", verb(kind), bytes,
                    kStackBytes);
      stop_everything();
    }
    return report_wild(kind, bytes, address, "in another thread's private memory");
  }
  machine->accesses++;
  if (machine->expired) {
    report_access("timeout", address, "no end after %.3g s", machine->launch->seconds);
    stop_everything();
  }
  if (within(p, threadgroup_memory, kArena)) return check_threadgroup(p, bytes, kind, natural, address);
  if (within(p, device, device_bytes)) return check_device(p, bytes, kind, natural, address);
  if (in_kernel_image(p)) {
    if (kind == Kind::kWrite) report_access("static-write", address, "write to a constant or static variable");
    return;
  }
  if (within(p, reinterpret_cast<char*>(machine->simdgroups[0].slots), kMaxThreads * kSlotBytes)) return;
  report_wild(kind, bytes, address, "far outside every buffer and array");
}

void open_device_memory(MslLaunch& launch) {
  size_t total = kGuardBand;
  for (int i = 0; i < launch.n_buffers; i++) total += round_up(launch.buffers[i].bytes, 256) + 2 * kGuardBand;
  void* memory = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (memory == MAP_FAILED) {
    fprintf(stderr, "simulator: cannot map %zu bytes for buffers\n", total);
    abort();
  }
  device = static_cast<char*>(memory);
  device_bytes = total;
  memset(device, kGarbage, total);
  buffers.clear();
  pointers.clear();
  last_buffer = 0;
  size_t offset = kGuardBand;
  for (int i = 0; i < launch.n_buffers; i++) {
    const MslBuffer& source = launch.buffers[i];
    Buffer buffer{};
    buffer.output = source.flags & kBufferIsOutput;
    buffer.initialised = source.flags & kBufferIsInitialised;
    buffer.region.base = device + offset;
    buffer.region.bytes = source.bytes;
    buffer.region.name = source.name;
    buffer.region.element_bytes = source.element_bytes;
    buffer.region.shared_by_threadgroups = true;
    if (!buffer.output || buffer.initialised) memcpy(buffer.region.base, source.data, source.bytes);
    if (buffer.output && launch.checked) allocate_cells(buffer.region, buffer.initialised);
    buffers.push_back(buffer);
    pointers.push_back(buffer.region.base + source.first);
    offset += round_up(source.bytes, 256) + 2 * kGuardBand;
  }
}

void** device_pointers() { return pointers.data(); }

void close_device_memory(MslLaunch& launch) {
  for (size_t i = 0; i < buffers.size(); i++) {
    Region& region = buffers[i].region;
    const MslBuffer& target = launch.buffers[i];
    const unsigned char* base = reinterpret_cast<const unsigned char*>(region.base);
    bool damaged = false;
    for (size_t k = 0; k < kGuardBand; k++) damaged |= base[-1 - static_cast<long>(k)] != kGarbage || base[region.bytes + k] != kGarbage;
    // In a checked launch the access itself was found; this is for what carries no instrumentation.
    const bool unexplained = launch.n_findings == 0;
    if (damaged && unexplained) report_launch("device-out-of-bounds", "memory next to %s was overwritten", region.name);
    if (!buffers[i].output) {
      if (unexplained && memcmp(target.data, region.base, region.bytes))
        report_launch("input-write", "input %s was changed", region.name);
      continue;
    }
    memcpy(target.data, region.base, region.bytes);
    if (!region.cells) continue;
    const Unwritten unwritten = count_unwritten(region);
    if (unwritten.elements && !launch.allow_unwritten && !machine->stopped)
      report_launch("unwritten-output", "%zu of %zu elements of %s were never written, the first is %zu",
                    unwritten.elements, region.bytes / static_cast<size_t>(region.element_bytes), region.name,
                    unwritten.first);
    free_cells(region);
  }
  munmap(device, device_bytes);
  device = nullptr;
  device_bytes = 0;
}

void forget_threadgroup_memory() {
  for (Array& array : arrays) {
    free_cells(array.region);
    array = Array{};
  }
  n_arrays = 0;
  threadgroup_used = kFirstArray + kThreadgroupLimit;  // to be cleared, whatever the last launch left
}

void reset_threadgroup_memory(bool checked) {
  if (!threadgroup_memory) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 4096, kArena)) abort();
    threadgroup_memory = static_cast<char*>(memory);
  }
  memset(threadgroup_memory + kFirstArray, kGarbage, checked ? threadgroup_used - kFirstArray : kThreadgroupLimit);
  n_arrays = 0;
  threadgroup_used = kFirstArray;
}

}  // namespace sim

using namespace sim;

extern "C" {

// The threadgroup array that declaration `id` of the kernel stands for: the same memory for every thread.
void* msl_threadgroup_array(int id, msl_size_t bytes, msl_size_t alignment, msl_size_t element_bytes, const char* name,
                            MslSite site) {
  for (int i = 0; i < n_arrays; i++)
    if (arrays[i].id == id) return arrays[i].region.base;
  size_t offset = round_up(threadgroup_used, std::max(alignment, size_t{16}));
  // At a multiple of what the declared type promises and of no more, so that an access that needs more is seen.
  if (machine->launch->checked && alignment < 16) offset += alignment;
  size_t declared = bytes;
  for (int i = 0; i < n_arrays; i++) declared += round_up(arrays[i].region.bytes, 16);
  machine->launch->threadgroup_bytes = std::max<size_t>(machine->launch->threadgroup_bytes, declared);
  const bool hopeless = n_arrays == kMaxArrays || offset + bytes + kRedZone > kArena;
  if (declared > kThreadgroupLimit || hopeless)
    report_at("threadgroup-memory-limit", site, hopeless ? Fatal::kYes : Fatal::kNo,
              "%zu bytes of threadgroup memory, the limit is %zu", declared, kThreadgroupLimit);
  Array& array = arrays[n_arrays++];
  Region& region = array.region;
  const bool reuse = region.cells && array.id == id && region.bytes == bytes && region.name == name;
  if (!reuse) free_cells(region);
  array.id = id;
  region.base = threadgroup_memory + offset;
  region.bytes = bytes;
  region.name = name;
  region.element_bytes = static_cast<int>(element_bytes);
  region.shared_by_threadgroups = false;
  if (!reuse && machine->launch->checked) allocate_cells(region, false);
  threadgroup_used = round_up(offset + bytes, 16) + kRedZone;
  return region.base;
}

void msl_atomic(void* pointer, int bytes, int kind, MslSite site) {
  if (machine->expired) report_at("timeout", site, Fatal::kYes, "no end after %.3g s", machine->launch->seconds);
  yield();  // in random orders another thread's atomics may come first
  if (!machine->launch->checked) return;
  const char* p = static_cast<const char*>(pointer);
  const void* address = __builtin_return_address(0);
  const size_t n = static_cast<size_t>(bytes);
  const bool reads = kind != kAtomicStore, writes = kind != kAtomicLoad;
  Region* region = nullptr;
  if (within(p, threadgroup_memory, kArena)) {
    region = threadgroup_region(p, n, "atomic access", address);
  } else if (within(p, device, device_bytes)) {
    Buffer* buffer = device_buffer(p, n, "atomic access", address);
    if (buffer && !buffer->output && writes) report_at("input-write", site, Fatal::kNo, "atomic write to an input");
    if (buffer && buffer->output) region = &buffer->region;
    if (!buffer) stop_everything();
  } else {
    report_at("wild-access", site, Fatal::kYes, "atomic access far outside every buffer and array");
  }
  if (region) check_atomic(*region, static_cast<size_t>(p - region->base), n, reads, writes, address);
}
}
