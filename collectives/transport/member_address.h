// What a rank tells the others about itself before the group exists: Endpoint::address().
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/status.h"

namespace lepton::collectives {

struct MemberAddress {
  std::string backend;  // "native"
  // Where the rank is in the back-end's own terms: its MPI world rank, its GPU's name for NCCL;
  // empty for native.
  std::string place;
  // Equal for two processes exactly when they can share memory through /proc/<pid>/fd: same boot of
  // the same kernel, same process-id namespace, same user.
  std::string host_identity;
  int pid = 0;
  std::string host;  // numeric
  uint16_t port = 0;
  int lanes = 0;  // that it wants (lanes.h); 0: it leaves that open

  std::string Encode() const;
  // kInvalidArgument when the bytes are not an address of that back-end (empty: of any) in this
  // version.
  static Result<MemberAddress> Decode(const std::string& bytes, std::string_view backend = "");
};

// This process's.
std::string HostIdentity();

}  // namespace lepton::collectives
