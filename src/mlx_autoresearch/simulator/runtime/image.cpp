#include "image.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#ifdef __APPLE__
#include <mach-o/getsect.h>
#include <mach-o/loader.h>
#else
#include <link.h>
#endif

namespace sim {
namespace {

const char *image_begin = nullptr, *image_end = nullptr;

#ifndef __APPLE__
int find_image(dl_phdr_info* info, size_t, void* entry) {
  const char *begin = reinterpret_cast<const char*>(~uintptr_t{0}), *end = nullptr;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
    const char* p = reinterpret_cast<const char*>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    begin = std::min(begin, p);
    end = std::max(end, p + info->dlpi_phdr[i].p_memsz);
  }
  if (entry < begin || entry >= end) return 0;
  image_begin = begin;
  image_end = end;
  return 1;
}
#endif

}  // namespace

void set_kernel_image(const void* entry) {
#ifdef __APPLE__
  Dl_info info;
  if (!dladdr(entry, &info)) return;
  const auto* header = static_cast<const mach_header_64*>(info.dli_fbase);
  unsigned long text = 0, data = 0;
  const char* begin = reinterpret_cast<const char*>(getsegmentdata(header, "__TEXT", &text));
  const char* last = reinterpret_cast<const char*>(getsegmentdata(header, "__DATA", &data));
  image_begin = begin;
  image_end = last ? last + data : begin + text;
#else
  dl_iterate_phdr(find_image, const_cast<void*>(entry));
#endif
}

bool in_kernel_image(const void* p) { return p >= image_begin && p < image_end; }

const void* relative_to_image(const void* p) {
  return reinterpret_cast<const void*>(static_cast<const char*>(p) - image_begin);
}

}  // namespace sim
