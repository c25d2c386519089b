// What a worker tells of its host. Threads: any.
#pragma once

#include <cstdint>
#include <string>

namespace lepton::worker {

std::string HostName();
// Cores that this process may run on, at least 1.
uint32_t UsableCores();
uint64_t MemoryBytes();
uint64_t MemoryUsedBytes();
double LoadAverage();  // of one minute

}  // namespace lepton::worker
