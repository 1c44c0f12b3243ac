// macOS's libproc, as far as machine/processes.py calls it. A process's footprint is its resident set and as many MiB as
// its environment's SIMULATED_GPU_MB says: what it would have on the GPU.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <unistd.h>

struct rusage_info_v0 {  // <sys/resource.h>
  uint8_t ri_uuid[16];
  uint64_t ri_user_time;
  uint64_t ri_system_time;
  uint64_t ri_pkg_idle_wkups;
  uint64_t ri_interrupt_wkups;
  uint64_t ri_pageins;
  uint64_t ri_wired_size;
  uint64_t ri_resident_size;
  uint64_t ri_phys_footprint;
  uint64_t ri_proc_start_abstime;
  uint64_t ri_proc_exit_abstime;
};

extern "C" int proc_pid_rusage(int pid, int flavor, void* buffer) {
  const std::string folder = "/proc/" + std::to_string(pid);
  std::ifstream statm(folder + "/statm");
  uint64_t size, resident;
  if (flavor != 0 || !(statm >> size >> resident)) return -1;
  std::ifstream environ(folder + "/environ");
  const std::string variables("\0" + std::string(std::istreambuf_iterator<char>(environ), {}));
  const auto at = variables.find("SIMULATED_GPU_MB=");
  rusage_info_v0 usage;
  std::memset(&usage, 0xAB, sizeof usage);  // whoever reads another field sees it
  usage.ri_resident_size = resident * sysconf(_SC_PAGESIZE);
  usage.ri_phys_footprint = usage.ri_resident_size;
  if (at != std::string::npos) usage.ri_phys_footprint += std::strtoull(&variables[at + 17], nullptr, 10) << 20;
  std::memcpy(buffer, &usage, sizeof usage);
  return 0;
}
