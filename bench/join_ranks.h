// How the ranks of a bench that a script starts find each other: through files in a folder.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "collectives/communicator.h"
#include "runtime/base/file.h"

namespace lepton::collectives {

constexpr Duration kMeetingTime = std::chrono::seconds(20);

// The group of all ranks that listen. kDeadlineExceeded after 20 s, naming the rank that did not
// come. `group` tells groups apart that meet in one folder.
inline Result<GroupSpec> FindRanks(const Endpoint& endpoint, int rank, int size,
                                   const std::filesystem::path& folder,
                                   const std::string& group = "rank") {
  const auto file_of = [&](int r) { return folder / fmt::format("{}{}", group, r); };
  LEPTON_RETURN_IF_ERROR(WriteFileAtomic(file_of(rank), endpoint.address()));
  GroupSpec spec{rank, size, 1, "0123456789abcdef", {}};
  const auto deadline = Deadline::In(kMeetingTime);
  for (int r = 0; r < size; ++r) {
    while (!std::filesystem::exists(file_of(r))) {
      if (deadline.Expired()) return DeadlineExceeded(fmt::format("rank {} did not come", r));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    LEPTON_ASSIGN_OR_RETURN(spec.members.emplace_back(), ReadFile(file_of(r), 1 << 12));
  }
  return spec;
}

inline Result<std::unique_ptr<Communicator>> JoinRanks(const Backend& backend, int rank, int size,
                                                       const std::string& address,
                                                       const std::filesystem::path& folder,
                                                       const std::string& group = "rank") {
  LEPTON_ASSIGN_OR_RETURN(auto endpoint, backend.Listen(address));
  LEPTON_ASSIGN_OR_RETURN(const GroupSpec spec, FindRanks(*endpoint, rank, size, folder, group));
  return backend.Join(std::move(endpoint), spec, {}, Deadline::In(kMeetingTime));
}

}  // namespace lepton::collectives
