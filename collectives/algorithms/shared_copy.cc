// Reduce-scatter, all-gather, broadcast and barrier over a SharedWindow.
#include <algorithm>
#include <cstring>

#include "collectives/algorithms/shared_algorithms.h"
#include "collectives/algorithms/tree_reduce.h"

namespace lepton::collectives {

Status SharedReduceScatter(Group& group, const Call& call, Deadline deadline) {
  SharedWindow& window = *group.window;
  const int n = window.size();
  const size_t element = DataTypeSize(call.type);
  // A slot holds the same piece of every rank's part, one after the other.
  const size_t per_round = std::max<size_t>(1, window.capacity() / element / n);
  std::vector<const void*> mine(static_cast<size_t>(n));
  for (size_t at = 0; at < call.count; at += per_round) {
    size_t piece = std::min(per_round, call.count - at);
    LEPTON_RETURN_IF_ERROR(window.Begin(piece * element * n, deadline));
    for (int part = 0; part < n; ++part) {
      std::memcpy(window.data(window.rank()) + part * piece * element,
                  static_cast<const char*>(call.in) + (part * call.count + at) * element,
                  piece * element);
    }
    window.Publish(Signature(call));
    LEPTON_RETURN_IF_ERROR(window.WaitAllPublished(deadline));
    for (int r = 0; r < n; ++r) mine[r] = window.data(r) + window.rank() * piece * element;
    TreeReduce(static_cast<char*>(call.out) + at * element, mine.data(), group.splits, piece,
               call.type, call.op);
  }
  return {};
}

Status SharedAllGather(Group& group, const Call& call, Deadline deadline) {
  SharedWindow& window = *group.window;
  const size_t bytes = call.bytes();
  char* out = static_cast<char*>(call.out);
  for (size_t at = 0; at < bytes; at += window.capacity()) {
    size_t piece = std::min(window.capacity(), bytes - at);
    LEPTON_RETURN_IF_ERROR(window.Begin(piece, deadline));
    std::memcpy(window.data(window.rank()), static_cast<const char*>(call.in) + at, piece);
    window.Publish(Signature(call));
    for (int step = 0; step < window.size(); ++step) {
      int from = (window.rank() + step) % window.size();
      if (from != window.rank()) LEPTON_RETURN_IF_ERROR(window.WaitPublished(from, deadline));
      std::memcpy(out + from * bytes + at, window.data(from), piece);
    }
  }
  return {};
}

Status SharedBroadcast(Group& group, const Call& call, Deadline deadline) {
  SharedWindow& window = *group.window;
  const size_t bytes = call.bytes();
  char* out = static_cast<char*>(call.out);
  for (size_t at = 0; at < bytes; at += window.capacity()) {
    size_t piece = std::min(window.capacity(), bytes - at);
    LEPTON_RETURN_IF_ERROR(window.Begin(piece, deadline));
    if (window.rank() == call.root) std::memcpy(window.data(call.root), out + at, piece);
    window.Publish(Signature(call));
    if (window.rank() == call.root) continue;
    LEPTON_RETURN_IF_ERROR(window.WaitPublished(call.root, deadline));
    std::memcpy(out + at, window.data(call.root), piece);
  }
  return {};
}

Status SharedBarrier(Group& group, const Call& call, Deadline deadline) {
  LEPTON_RETURN_IF_ERROR(group.window->Begin(0, deadline));
  group.window->Publish(Signature(call));
  return group.window->WaitAllPublished(deadline);
}

}  // namespace lepton::collectives
