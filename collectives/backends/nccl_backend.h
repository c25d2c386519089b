// The NCCL back-end: host buffers are staged through device memory and travel from GPU to GPU.
//
// Bytes move by grouped ncclSend and ncclRecv on a non-blocking communicator; the reduction itself
// is the library's own tree on the host, so that results have the same bits as every other
// back-end's. One GPU a rank: the only visible one, which for a task is the one that its agent gave
// it (worker/gpu_shares.h) and that it computes on; else the rank's index among the ranks of its
// host. A thread's own device is as before after each call. A failure of the group ends in
// ncclCommAbort on every rank.
//
// NCCL is loaded at first use (it is 200 MB and absent from most machines); the CUDA run time is
// linked in statically and itself loads the driver at first use. So the binary runs anywhere.
#pragma once

#include "collectives/communicator.h"

namespace lepton::collectives {

class NcclBackend final : public Backend {
 public:
  std::string_view name() const override { return "nccl"; }
  Status Available() const override;
  Result<std::unique_ptr<Endpoint>> Listen(const std::string& bind_address) const override;
  Result<std::unique_ptr<Communicator>> Join(std::unique_ptr<Endpoint> endpoint,
                                             const GroupSpec& group, const Options& options,
                                             Deadline deadline) const override;
  // A next group of nobody but survivors of a broken one shrinks its communicator
  // (nccl_heritage.h).
  Result<std::unique_ptr<Endpoint>> ListenAnew(const std::string& bind_address,
                                               std::shared_ptr<Communicator> over) const override;
  std::string Conflict(const std::string& address, const std::string& other) const override;
};

}  // namespace lepton::collectives
