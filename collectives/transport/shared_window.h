// Rounds over a shared segment, for groups that live on one host: every rank publishes bytes that
// all others read in place.
//
// Round k uses each rank's slot k % 2. Publishing round k says: I am done with round k-1 and all
// before it. So a slot may be rewritten for round k once every rank has published round k-1, which
// Begin() waits for; usually they have long done so, and no round needs a barrier at its end.
// Threads: one caller at a time.
#pragma once

#include <memory>

#include "collectives/failure.h"
#include "collectives/transport/shared_segment.h"
#include "collectives/transport/waiter.h"

namespace lepton::collectives {

class SharedWindow {
 public:
  // Local index and rank are the same: the whole group is in the segment.
  SharedWindow(std::shared_ptr<SharedSegment> segment, int rank, std::shared_ptr<Failure> failure,
               Waiter waiter);

  // As Mesh::SetPatient.
  void SetPatient(bool patient) { waiter_.SetPatient(patient); }

  int rank() const { return rank_; }
  int size() const { return segment_->ranks(); }
  size_t capacity() const { return kSlotBytes; }

  // Starts the next round, which carries at most `bytes` from each rank.
  Status Begin(size_t bytes, Deadline deadline);
  // `rank`'s bytes of this round: our own to be written before Publish, others' to be read after
  // WaitPublished.
  unsigned char* data(int rank) const;
  // `signature` names operation, type and size; peers check that theirs is the same.
  void Publish(uint64_t signature);
  // kInvalidArgument when the peer is in another operation.
  Status WaitPublished(int peer, Deadline deadline);
  Status WaitAllPublished(Deadline deadline);
  // A second flag in the same round: our slice of the result is in place in our own slot.
  void PublishReduced();
  Status WaitReduced(int peer, Deadline deadline);

 private:
  SlotHeader& slot(int rank) const { return segment_->slot(rank, static_cast<int>(round_ % 2)); }
  void RingPeers();

  std::shared_ptr<SharedSegment> segment_;
  int rank_;
  std::shared_ptr<Failure> failure_;
  Waiter waiter_;
  uint64_t round_ = 0;
  uint64_t signature_ = 0;
  bool inline_ = false;
};

}  // namespace lepton::collectives
