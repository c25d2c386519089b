#include "collectives/transport/shm_link.h"

#include <algorithm>
#include <cstring>

namespace lepton::collectives {

ShmLink::ShmLink(std::shared_ptr<SharedSegment> segment, std::shared_ptr<const Failure> failure,
                 int self, int peer, int peer_rank)
    : segment_(std::move(segment)),
      failure_(std::move(failure)),
      out_(segment_->ring(self, peer)),
      in_(segment_->ring(peer, self)),
      out_bytes_(segment_->ring_bytes(self, peer)),
      in_bytes_(segment_->ring_bytes(peer, self)),
      peer_bell_(segment_->bell(peer)),
      peer_rank_(peer_rank) {}

Result<size_t> ShmLink::TrySend(const void* data, size_t size) {
  bool left = failure_->HasLeft(peer_rank_);
  uint64_t written = out_.written.load(std::memory_order_relaxed);
  uint64_t read = out_.read.load(std::memory_order_seq_cst);  // a look: see collectives/README.md
  size_t moved = std::min(size, kRingBytes - static_cast<size_t>(written - read));
  if (moved == 0) {
    if (left && size > 0) return Unavailable("it left the group");
    return moved;
  }
  size_t at = written % kRingBytes;
  size_t first = std::min(moved, kRingBytes - at);
  std::memcpy(out_bytes_ + at, data, first);
  std::memcpy(out_bytes_, static_cast<const unsigned char*>(data) + first, moved - first);
  out_.written.store(written + moved, std::memory_order_seq_cst);
  Ring(peer_bell_);
  return moved;
}

Result<size_t> ShmLink::TryRecv(void* data, size_t size) {
  bool left = failure_->HasLeft(peer_rank_);
  uint64_t read = in_.read.load(std::memory_order_relaxed);
  uint64_t written = in_.written.load(std::memory_order_seq_cst);
  size_t moved = std::min(size, static_cast<size_t>(written - read));
  if (moved == 0) {
    if (left && size > 0) return Unavailable("it left the group");
    return moved;
  }
  size_t at = read % kRingBytes;
  size_t first = std::min(moved, kRingBytes - at);
  std::memcpy(data, in_bytes_ + at, first);
  std::memcpy(static_cast<unsigned char*>(data) + first, in_bytes_, moved - first);
  in_.read.store(read + moved, std::memory_order_seq_cst);
  Ring(peer_bell_);
  return moved;
}

}  // namespace lepton::collectives
