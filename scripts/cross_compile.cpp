// Launches a compiled kernel as abi.py does, where there is no Python: cross_compile <runtime> <kernel> <checked>.
// The input is 0, 1, … 255. Prints what was found, or the output.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

#include "abi.h"

static void* find(const char* library, const char* name) {
  void* handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
  void* function = handle ? dlsym(handle, name) : nullptr;
  if (!function) {
    printf("%s\n", dlerror());
    exit(1);
  }
  return function;
}

int main(int, char** arguments) {
  const auto run = reinterpret_cast<int (*)(MslLaunch*)>(find(arguments[1], "msl_launch"));
  float x[256], y[256];
  for (int i = 0; i < 256; i++) x[i] = static_cast<float>(i);
  MslBuffer buffers[] = {{x, sizeof x, 0, "x", 4, 0}, {y, sizeof y, 0, "y", 4, kBufferIsOutput}};
  MslFinding findings[16];
  MslLaunch launch{};
  launch.entry = reinterpret_cast<void (*)(void**, const MslThread*)>(find(arguments[2], "msl_entry"));
  launch.buffers = buffers;
  launch.n_buffers = 2;
  for (int k = 0; k < 3; k++) launch.grid[k] = launch.threadgroup[k] = k ? 1 : 256;
  launch.checked = atoi(arguments[3]);
  launch.seconds = 1;
  launch.findings = findings;
  launch.max_findings = 16;
  if (run(&launch)) {
    printf("%s\n", findings[0].kind);
    return 0;
  }
  for (float value : y) printf("%.9g ", value);
  printf("\n");
}
