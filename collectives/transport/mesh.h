// The way an algorithm talks to its peers: many transfers at once, driven together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "collectives/transport/link_rates.h"
#include "runtime/base/clock.h"
#include "runtime/base/status.h"

namespace lepton::collectives {

// One direction of traffic with one peer.
struct Transfer {
  int peer;
  bool send;
  void* data;  // only read when sending
  size_t bytes;
  size_t done = 0;
  int lane = 0;  // a mesh's own business: which of its lanes to the peer this takes

  static Transfer Send(int peer, const void* data, size_t bytes) {
    return {peer, true, const_cast<void*>(data), bytes};
  }
  static Transfer Recv(int peer, void* data, size_t bytes) { return {peer, false, data, bytes}; }
};

// Threads: one caller at a time.
class Mesh {
 public:
  virtual ~Mesh() = default;
  // Drives all transfers together until all are complete; those of one peer and direction in the
  // order in which they stand.
  // The group's failure; kAborted naming the peer that is gone; kDeadlineExceeded naming the peers
  // that did not answer. After an error how much has moved is unspecified.
  virtual Status Run(std::span<Transfer> transfers, Deadline deadline) = 0;
  // How many bytes for each peer an algorithm had best move at a time.
  virtual size_t part_bytes() const { return std::numeric_limits<uint32_t>::max(); }
  // From now on waits sleep at once instead of spinning first, or no longer: a wish.
  virtual void SetPatient(bool) {}
  // By rank, how its links do; nothing where that cannot be seen. Any thread.
  virtual std::vector<LinkLook> LookAtLinks() const { return {}; }
};

// "rank 1, rank 3": the peers of unfinished transfers.
std::string Stragglers(std::span<const Transfer> transfers);

}  // namespace lepton::collectives
