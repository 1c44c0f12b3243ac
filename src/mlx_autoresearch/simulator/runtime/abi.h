// The contract between three parties: a compiled kernel (through the shim), the runtime, and Python (../abi.py
// mirrors Finding, Buffer and Launch field by field).
#pragma once

typedef __SIZE_TYPE__ msl_size_t;
typedef __UINT32_TYPE__ msl_u32;
typedef __UINT64_TYPE__ msl_u64;

enum MslLimits { kSimdWidth = 32, kQuadWidth = 4, kMaxThreads = 1024, kSlotBytes = 64 };

// Where a kernel calls a barrier, a collective or an atomic: 16 bytes, so that it travels in registers.
struct MslSite {
  const char* file;
  msl_u32 line, column;  // column is 0 where the compiler cannot tell (g++)
};

// What Metal hands to a thread through [[attributes]].
struct MslThread {
  msl_u32 thread_position_in_grid[3], thread_position_in_threadgroup[3], threadgroup_position_in_grid[3],
      threads_per_threadgroup[3], dispatch_threads_per_threadgroup[3], threads_per_grid[3], threadgroups_per_grid[3];
  msl_u32 thread_index_in_threadgroup, thread_index_in_simdgroup, simdgroup_index_in_threadgroup,
      simdgroups_per_threadgroup, dispatch_simdgroups_per_threadgroup;
};

enum MslBarrierFlags { kOrdersNothing = 0, kOrdersDevice = 1, kOrdersThreadgroup = 2 };
enum MslAtomicKind { kAtomicLoad, kAtomicStore, kAtomicUpdate };
enum MslBufferFlags { kBufferIsOutput = 1, kBufferIsInitialised = 2 };

struct MslFinding {
  char kind[40];
  char message[280];
  char file[120];
  void* address;  // of the instruction after the access, relative to the kernel's image; null where file and line are known
  msl_u32 line, count, thread[3], threadgroup[3];
};

struct MslBuffer {
  void* data;
  msl_size_t bytes;
  msl_size_t first;  // byte that the kernel's pointer points to: not the lowest where strides are negative
  const char* name;
  int element_bytes, flags;
};

struct MslLaunch {
  void (*entry)(void** buffers, const MslThread*);
  MslBuffer* buffers;
  int n_buffers;
  msl_u32 grid[3], threadgroup[3];
  int order;    // 0: ascending; 1: descending; otherwise the seed of a random order
  int checked;  // whether the kernel carries instrumentation
  int allow_unwritten;
  double seconds;
  MslFinding* findings;
  int max_findings, n_findings;
  msl_size_t threadgroup_bytes;               // out: the most threadgroup memory declared
  msl_u64 switches, accesses, collectives;  // out: statistics
  msl_u64* counters;                        // of a kernel whose coverage is measured (shim/coverage.h)
  msl_u32 n_counters;
};

// A collective operation: run by the last lane to arrive, over the slots of every lane of its simdgroup or quad.
typedef void (*MslCombine)(unsigned char* slots, msl_u32 active_lanes);

extern "C" {
int msl_launch(MslLaunch*);
void* msl_threadgroup_array(int id, msl_size_t bytes, msl_size_t alignment, msl_size_t element_bytes, const char* name,
                            MslSite);
void msl_threadgroup_barrier(int flags, MslSite);
void msl_simdgroup_barrier(int flags, MslSite);
// Exchanges `bytes` of `payload` among `width` lanes. `whole`: the operation needs 32 live lanes.
void msl_collective(int width, void* payload, int bytes, int whole, MslCombine, const char* what, MslSite);
// Notes that this lane does a simdgroup operation that needs no exchange, but every lane (a matrix load or store).
void msl_uniform(const char* what, MslSite);
// A fast:: function has this argument; Metal promises a result unless it is NaN or, but for `of_infinities`, infinite.
void msl_fast_argument(float argument, int of_infinities, const char* what, MslSite);
void msl_inactive_lane(int lane, const char* what, MslSite);
msl_u32 msl_lane();
void msl_count(msl_u32 counter, int change);
void msl_atomic(void* address, int bytes, int kind, MslSite);
}
