// A link over two byte rings of a shared segment.
#pragma once

#include <memory>

#include "collectives/failure.h"
#include "collectives/transport/link.h"
#include "collectives/transport/shared_segment.h"

namespace lepton::collectives {

class ShmLink final : public Link {
 public:
  // `self` and `peer` are local indices in the segment; `peer_rank` is the peer's rank in the
  // group.
  ShmLink(std::shared_ptr<SharedSegment> segment, std::shared_ptr<const Failure> failure, int self,
          int peer, int peer_rank);
  std::string_view transport() const override { return "shm"; }
  Result<size_t> TrySend(const void* data, size_t size) override;
  Result<size_t> TryRecv(void* data, size_t size) override;
  int fd() const override { return -1; }

 private:
  std::shared_ptr<SharedSegment> segment_;
  std::shared_ptr<const Failure> failure_;
  RingHeader& out_;
  RingHeader& in_;
  unsigned char* out_bytes_;
  const unsigned char* in_bytes_;
  Bell& peer_bell_;
  int peer_rank_;
};

}  // namespace lepton::collectives
