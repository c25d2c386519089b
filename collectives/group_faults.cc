#include "collectives/group_faults.h"

#include <mutex>
#include <utility>

#include "runtime/base/metrics.h"

namespace lepton::collectives {
namespace {

std::mutex faults_mutex;
GroupFaults& Untold() {
  static auto* const faults = new GroupFaults;
  return *faults;
}

}  // namespace

void CountRefused(const std::string& reason) {
  metrics::Counter("lepton_collectives_refused_total",
                   "Connections refused by a group's endpoint, by reason.", {{"reason", reason}})
      .Increment();
  const std::lock_guard lock(faults_mutex);
  ++Untold().refused[reason];
}

void CountCorrupt() {
  metrics::Counter("lepton_collectives_corrupt_total",
                   "Frames of a group's data connections that arrived changed.")
      .Increment();
  const std::lock_guard lock(faults_mutex);
  ++Untold().corrupt;
}

void CountFailure(const std::string& code) {
  metrics::Counter("lepton_collectives_failures_total",
                   "Groups broken by an operation of this rank, by status code.", {{"code", code}})
      .Increment();
  const std::lock_guard lock(faults_mutex);
  ++Untold().failures[code];
}

GroupFaults TakeGroupFaults() {
  const std::lock_guard lock(faults_mutex);
  return std::exchange(Untold(), {});
}

}  // namespace lepton::collectives
