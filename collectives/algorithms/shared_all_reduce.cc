#include <algorithm>
#include <cstring>

#include "collectives/algorithms/shared_algorithms.h"
#include "collectives/algorithms/tree_reduce.h"

namespace lepton::collectives {
namespace {

// Element `begin` of every rank's slot.
std::vector<const void*> SlotsFrom(const SharedWindow& window, size_t offset_bytes) {
  std::vector<const void*> slots(static_cast<size_t>(window.size()));
  for (int r = 0; r < window.size(); ++r) slots[r] = window.data(r) + offset_bytes;
  return slots;
}

// One round: at most a slot of elements.
Status SlicedRound(Group& group, const Call& call, size_t at, size_t count, Deadline deadline) {
  SharedWindow& window = *group.window;
  size_t element = DataTypeSize(call.type);
  char* out = static_cast<char*>(call.out) + at * element;
  LEPTON_RETURN_IF_ERROR(window.Begin(count * element, deadline));
  std::memcpy(window.data(window.rank()), static_cast<const char*>(call.in) + at * element,
              count * element);
  window.Publish(Signature(call));
  LEPTON_RETURN_IF_ERROR(window.WaitAllPublished(deadline));
  Range mine = PartOf(count, element, window.rank(), window.size());
  // In place: nobody else reads this part of our slot before it is reduced.
  unsigned char* reduced = window.data(window.rank()) + mine.begin * element;
  TreeReduce(reduced, SlotsFrom(window, mine.begin * element).data(), group.splits, mine.size(),
             call.type, call.op);
  window.PublishReduced();
  for (int step = 0; step < window.size(); ++step) {  // each rank starts elsewhere
    int owner = (window.rank() + step) % window.size();
    Range part = PartOf(count, element, owner, window.size());
    if (owner != window.rank()) LEPTON_RETURN_IF_ERROR(window.WaitReduced(owner, deadline));
    std::memcpy(out + part.begin * element, window.data(owner) + part.begin * element,
                part.size() * element);
  }
  return {};
}

}  // namespace

Status SharedOneShotAllReduce(Group& group, const Call& call, Deadline deadline) {
  SharedWindow& window = *group.window;
  LEPTON_RETURN_IF_ERROR(window.Begin(call.bytes(), deadline));
  if (call.count > 0) std::memcpy(window.data(window.rank()), call.in, call.bytes());
  window.Publish(Signature(call));
  LEPTON_RETURN_IF_ERROR(window.WaitAllPublished(deadline));
  TreeReduce(call.out, SlotsFrom(window, 0).data(), group.splits, call.count, call.type, call.op);
  return {};
}

Status SharedSlicedAllReduce(Group& group, const Call& call, Deadline deadline) {
  size_t per_round = group.window->capacity() / DataTypeSize(call.type);
  for (size_t at = 0; at < call.count; at += per_round) {
    size_t count = std::min(per_round, call.count - at);
    LEPTON_RETURN_IF_ERROR(SlicedRound(group, call, at, count, deadline));
  }
  return {};
}

}  // namespace lepton::collectives
