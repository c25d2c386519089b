// What a rank tells the others about itself before the group exists: Endpoint::address().
#pragma once

#include <cstdint>
#include <string>

#include "runtime/base/status.h"

namespace lepton::collectives {

struct MemberAddress {
  // Equal for two processes exactly when they can share memory through /proc/<pid>/fd: same boot of
  // the same kernel, same process-id namespace, same user.
  std::string host_identity;
  int pid = 0;
  std::string host;  // numeric
  uint16_t port = 0;

  std::string Encode() const;
  // kInvalidArgument when the bytes are not of this version's native back-end.
  static Result<MemberAddress> Decode(const std::string& bytes);
};

// This process's.
std::string HostIdentity();

}  // namespace lepton::collectives
