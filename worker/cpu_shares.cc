#include "worker/cpu_shares.h"

#include <hwloc.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <utility>

namespace lepton::worker {

std::vector<Cpu> ReadCpus(const cpu_set_t& allowed) {
  std::vector<Cpu> cpus;
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) == 0) {
    hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_icache_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
    if (hwloc_topology_load(topology) == 0) {
      hwloc_obj_t unit = nullptr;
      while ((unit = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, unit)) != nullptr) {
        const auto id = static_cast<int>(unit->os_index);
        if (id >= CPU_SETSIZE || !CPU_ISSET(id, &allowed)) continue;
        const int node = unit->nodeset == nullptr ? 0 : hwloc_bitmap_first(unit->nodeset);
        cpus.push_back({id, std::max(0, node)});
      }
    }
    hwloc_topology_destroy(topology);
  }
  return cpus;
}

std::vector<Cpu> UsableCpus() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return {};
  return ReadCpus(allowed);
}

std::filesystem::path CpuShares::DefaultFolder() {
  return "/dev/shm/lepton-cpus-" + std::to_string(getuid());
}

CpuShares::CpuShares(std::vector<Cpu> cpus, std::filesystem::path folder)
    : cpus_(std::move(cpus)),
      locks_(std::move(folder)),
      several_nodes_(std::any_of(cpus_.begin(), cpus_.end(),
                                 [&](const Cpu& cpu) { return cpu.node != cpus_.front().node; })) {}

std::vector<int> CpuShares::OfNode(int node) const {
  std::vector<int> ids;
  for (const Cpu& cpu : cpus_) {
    if (cpu.node == node) ids.push_back(cpu.id);
  }
  return ids;
}

std::shared_ptr<const CpuShare> CpuShares::Take(int count) const {
  auto share = std::make_shared<CpuShare>();
  if (count < 1 || !locks_.HasFolder()) return share;
  const UniqueFd turn = locks_.AwaitTurn();
  if (!turn.valid()) return share;
  // All that are free, for a moment.
  std::vector<std::pair<Cpu, UniqueFd>> free;
  std::map<int, int> free_of_node;
  for (const Cpu& cpu : cpus_) {
    UniqueFd lock = locks_.Try("cpu-" + std::to_string(cpu.id));
    if (!lock.valid()) continue;
    free.emplace_back(cpu, std::move(lock));
    ++free_of_node[cpu.node];
  }
  if (static_cast<int>(free.size()) < count) return share;
  // The node that has enough and least more; else neighbours, from whichever nodes.
  int chosen = -1;
  for (const auto& [node, number] : free_of_node) {
    if (number >= count && (chosen < 0 || number < free_of_node[chosen])) chosen = node;
  }
  for (auto& [cpu, lock] : free) {
    if (chosen >= 0 && cpu.node != chosen) continue;
    share->cpus.push_back(cpu.id);
    share->locks.push_back(std::move(lock));
    if (static_cast<int>(share->cpus.size()) == count) break;
  }
  if (several_nodes_) share->node = chosen;
  if (count == 1) share->cpus = several_nodes_ ? OfNode(chosen) : std::vector<int>();
  return share;
}

}  // namespace lepton::worker
