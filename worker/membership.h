// An elastic task's place in its gang, group after group. What the states and epochs mean is in
// docs/decisions/elastic-epochs.md.
// Threads: Next and ReportRecovered from the task's main thread, the flags from any.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "collectives/communicator.h"
#include "runtime/base/clock.h"
#include "runtime/base/status.h"
#include "runtime/wire/messages.pb.h"
#include "worker/parting.h"

namespace lepton::worker {

class Membership {
 public:
  virtual ~Membership() = default;

  struct Group {
    // The membership aborts it when the coordinator says that the group is over.
    std::shared_ptr<collectives::Communicator> gang;
    uint64_t epoch = 0;
    MonotonicTime ordered{};  // when the members were known
    MonotonicTime joined{};
  };
  // Leaves the group before, if there was one (let go of it first), saying why, and takes part in
  // the next. Waits for it: kCancelled when told to stop meanwhile, or to leave before its members
  // are known; but a rank that was in a group and holds slices of the state (parallel.zero) meets
  // the others once more before it leaves.
  virtual Result<Group> Next(const std::string& cause, const Parting& parting) = 0;

  // The group is over at the end of this step, for somebody wants to join.
  virtual bool regroup_requested() const = 0;
  // This rank is to leave, at the end of this step; the others go on.
  virtual bool leave_requested() const = 0;

  // The group's leader, after the first step in it.
  virtual void ReportRecovered(const wire::TaskRecovered& recovered) = 0;
};

}  // namespace lepton::worker
