#include "collectives/transport/shared_window.h"

#include <cstdio>

#include "collectives/transport/link_mesh.h"

namespace lepton::collectives {
namespace {

Status Mismatch(int peer, uint64_t theirs, uint64_t ours) {
  char text[160];
  std::snprintf(text, sizeof(text),
                "rank %d is in another operation, or differs in size, type or root "
                "(its signature %016llx, ours %016llx)",
                peer, static_cast<unsigned long long>(theirs),
                static_cast<unsigned long long>(ours));
  return Aborted(text);
}

}  // namespace

SharedWindow::SharedWindow(std::shared_ptr<SharedSegment> segment, int rank,
                           std::shared_ptr<Failure> failure, Waiter waiter)
    : segment_(std::move(segment)),
      rank_(rank),
      failure_(std::move(failure)),
      waiter_(std::move(waiter)) {}

Status SharedWindow::Begin(size_t bytes, Deadline deadline) {
  if (failure_->raised()) return failure_->cause();
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank_ || round_ == 0) continue;
    auto published = [&header = slot(peer), round = round_] {
      return header.posted.load(std::memory_order_seq_cst) >= round;
    };
    Status status = waiter_.Until(published, peer, deadline);
    if (!status.ok()) return NamePeer(*failure_, peer, status);
  }
  ++round_;
  inline_ = bytes <= kInlineBytes;
  return {};
}

unsigned char* SharedWindow::data(int rank) const {
  return inline_ ? slot(rank).payload : segment_->slot_bytes(rank, static_cast<int>(round_ % 2));
}

void SharedWindow::Publish(uint64_t signature) {
  signature_ = signature;
  SlotHeader& mine = slot(rank_);
  mine.signature.store(signature, std::memory_order_relaxed);
  mine.posted.store(round_, std::memory_order_seq_cst);
  Activity::Moved();
  RingPeers();
}

Status SharedWindow::WaitPublished(int peer, Deadline deadline) {
  SlotHeader& theirs = slot(peer);
  auto published = [&theirs, round = round_] {
    return theirs.posted.load(std::memory_order_seq_cst) >= round;
  };
  Status status = waiter_.Until(published, peer, deadline);
  if (!status.ok()) return NamePeer(*failure_, peer, status);
  uint64_t signature = theirs.signature.load(std::memory_order_relaxed);
  return signature == signature_ ? Status() : Mismatch(peer, signature, signature_);
}

Status SharedWindow::WaitAllPublished(Deadline deadline) {
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank_) LEPTON_RETURN_IF_ERROR(WaitPublished(peer, deadline));
  }
  return {};
}

void SharedWindow::PublishReduced() {
  slot(rank_).reduced.store(round_, std::memory_order_seq_cst);
  Activity::Moved();
  RingPeers();
}

Status SharedWindow::WaitReduced(int peer, Deadline deadline) {
  auto reduced = [&theirs = slot(peer), round = round_] {
    return theirs.reduced.load(std::memory_order_seq_cst) >= round;
  };
  Status status = waiter_.Until(reduced, peer, deadline);
  return status.ok() ? status : NamePeer(*failure_, peer, status);
}

void SharedWindow::RingPeers() {
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank_) Ring(segment_->bell(peer));
  }
}

}  // namespace lepton::collectives
