// Names of things, as types, so that a job's id is never passed where a worker's belongs.
#pragma once

#include <compare>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>

#include "runtime/base/status.h"

namespace lepton {

template <typename Tag>
class Id {
 public:
  Id() = default;
  explicit Id(std::string value) : value_(std::move(value)) {}
  const std::string& str() const { return value_; }
  bool empty() const { return value_.empty(); }
  friend auto operator<=>(const Id&, const Id&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Id& id) { return out << id.value_; }

 private:
  std::string value_;
};

using JobId = Id<struct JobTag>;    // "j17", or the client's own choice
using TaskId = Id<struct TaskTag>;  // "j17.a2.r0": job, attempt, rank; "j17.t4.a1.r0" of a trial
using WorkerId = Id<struct WorkerTag>;  // "hostname-1f3a"

// Names that people choose (jobs, datasets, models, deployments, queues): 1 to 63 characters out of
// a-z A-Z 0-9 . _ -, the first a letter or a digit. `field` starts the error message.
Status CheckName(std::string_view field, std::string_view name);

}  // namespace lepton

template <typename Tag>
struct std::hash<lepton::Id<Tag>> {
  size_t operator()(const lepton::Id<Tag>& id) const { return std::hash<std::string>()(id.str()); }
};
