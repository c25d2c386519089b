// Transfers by grouped ncclSend and ncclRecv, staged through device memory. On the device that it
// was made for, whatever thread calls. Empty in a build without NCCL. Threads: as Mesh.
#pragma once

#ifdef LEPTON_HAS_NCCL

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "collectives/backends/nccl_heritage.h"
#include "collectives/failure.h"
#include "collectives/transport/mesh.h"

namespace lepton::collectives {

class NcclMesh final : public Mesh {
 public:
  NcclMesh(int device, std::shared_ptr<Failure> failure)
      : own_{.device = device}, failure_(std::move(failure)) {}
  ~NcclMesh() override;

  // One of them, once, before anything else. After an error it is of no use.
  Status Connect(const ncclUniqueId& id, int rank, int size, Deadline deadline);
  // From the communicator of a group that broke, without some of its ranks.
  Status Shrink(std::unique_ptr<NcclHeritage> old, std::vector<int> excluded);

  Status Run(std::span<Transfer> transfers, Deadline deadline) override;

  // Of a group that broke: its communicator, if that has not been aborted; else null. Nothing can
  // be sent any more.
  std::unique_ptr<NcclHeritage> Release();

 private:
  Status TryShrink(std::unique_ptr<NcclHeritage> old, std::vector<int> excluded);
  Status MakeStream();
  Status Reserve(size_t bytes);
  Status Enqueue(std::span<Transfer> transfers, Deadline deadline);
  // Until NCCL has done what it was asked in the background.
  Status AwaitComm(std::span<const Transfer> transfers, Deadline deadline);
  Status AwaitStream(std::span<const Transfer> transfers, Deadline deadline);
  // What ends every wait but success.
  Status CheckFailure(std::span<const Transfer> transfers, Deadline deadline);
  Status CheckLeft(std::span<const Transfer> transfers);
  // Returns at once. Nothing can be sent any more.
  void Leave(NcclEndings::How how);

  NcclBelongings own_;
  std::string name_;  // of the communicator, as in NcclHeritage
  int rank_ = 0, size_ = 0;
  std::shared_ptr<Failure> failure_;
  std::map<int, Deadline> last_bytes_;  // of peers that have left
};

}  // namespace lepton::collectives

#endif
