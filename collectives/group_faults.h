// What went wrong in this process's groups, counted: in the process's own metrics
//   lepton_collectives_refused_total{reason}, lepton_collectives_corrupt_total,
//   lepton_collectives_failures_total{code}
// and for whoever adds up those of many processes. Threads: all calls from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace lepton::collectives {

struct GroupFaults {
  std::map<std::string, uint64_t> refused;   // connections, by reason
  uint64_t corrupt = 0;                      // frames that arrived changed
  std::map<std::string, uint64_t> failures;  // groups that an operation broke, by status code

  bool empty() const { return refused.empty() && corrupt == 0 && failures.empty(); }
};

void CountRefused(const std::string& reason);
void CountCorrupt();
void CountFailure(const std::string& code);

// What was counted since the last call.
GroupFaults TakeGroupFaults();

}  // namespace lepton::collectives
