#include "worker/host_info.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <thread>

namespace lepton::worker {

std::string HostName() {
  char name[256] = {};
  if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0') return "localhost";
  return name;
}

uint32_t UsableCores() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) {
    return static_cast<uint32_t>(std::max(1, CPU_COUNT(&cores)));
  }
  return std::max(1u, std::thread::hardware_concurrency());
}

uint64_t MemoryBytes() {
  struct sysinfo info = {};
  if (sysinfo(&info) != 0) return 0;
  return uint64_t{info.totalram} * info.mem_unit;
}

uint64_t MemoryUsedBytes() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  uint64_t kib = 0, total = 0;
  while (file >> name >> kib) {
    std::getline(file, unit);
    if (name == "MemTotal:") total = kib;
    if (name == "MemAvailable:") return (total - std::min(total, kib)) * 1024;
  }
  return 0;
}

double LoadAverage() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

}  // namespace lepton::worker
