#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "collectives/algorithms/shared_algorithms.h"
#include "collectives/algorithms/stream_copy.h"
#include "collectives/algorithms/tree_reduce.h"

namespace lepton::collectives {
namespace {

// The same place in every rank's slot.
std::span<const void*> SlotsFrom(Group& group, size_t offset_bytes) {
  group.inputs.resize(static_cast<size_t>(group.size));
  for (int r = 0; r < group.size; ++r) group.inputs[r] = group.window->data(r) + offset_bytes;
  return group.inputs;
}

void CopyOut(void* to, const void* from, size_t bytes, bool streamed) {
  if (streamed) {
    StreamCopy(to, from, bytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}

// One round: at most a slot of elements. The part that a rank reduces goes from its own input: only
// the others' parts pass through its slot.
Status SlicedRound(Group& group, const Call& call, size_t at, size_t count, bool streamed,
                   Deadline deadline) {
  SharedWindow& window = *group.window;
  const int self = window.rank(), n = window.size();
  const size_t element = DataTypeSize(call.type);
  const char* in = static_cast<const char*>(call.in) + at * element;
  char* out = static_cast<char*>(call.out) + at * element;
  LEPTON_RETURN_IF_ERROR(window.Begin(count * element, deadline));
  unsigned char* slot = window.data(self);
  for (int step = 1; step < n; ++step) {
    const Range part = PartOf(count, element, (self + step) % n, n);
    std::memcpy(slot + part.begin * element, in + part.begin * element, part.size() * element);
  }
  window.Publish(Signature(call));
  LEPTON_RETURN_IF_ERROR(window.WaitAllPublished(deadline));
  const Range mine = PartOf(count, element, self, n);
  const std::span<const void*> inputs = SlotsFrom(group, mine.begin * element);
  inputs[self] = in + mine.begin * element;
  TreeReduce(slot + mine.begin * element, inputs.data(), group.splits, mine.size(), call.type,
             call.op);
  window.PublishReduced();
  for (int step = 0; step < n; ++step) {  // each rank starts elsewhere
    const int owner = (self + step) % n;
    const Range part = PartOf(count, element, owner, n);
    if (owner != self) LEPTON_RETURN_IF_ERROR(window.WaitReduced(owner, deadline));
    CopyOut(out + part.begin * element, window.data(owner) + part.begin * element,
            part.size() * element, streamed);
  }
  return {};
}

// A sum that fits in the last cache goes in few rounds; of a longer one both slots stay in the
// caches of a core. Not asked of the machine: all ranks must make the same rounds.
constexpr size_t kPairFewRounds = size_t{4} << 20;
constexpr size_t kPairRoundBytes = size_t{256} << 10;
constexpr size_t kPairBlockBytes = size_t{16} << 10;  // reduced, then copied while in the first one

Status PairRound(Group& group, const Call& call, size_t at, size_t count, bool streamed,
                 Deadline deadline) {
  SharedWindow& window = *group.window;
  const int self = window.rank(), peer = 1 - self;
  const size_t element = DataTypeSize(call.type);
  const char* in = static_cast<const char*>(call.in) + at * element;
  char* out = static_cast<char*>(call.out) + at * element;
  const Range mine = PartOf(count, element, self, 2), theirs = PartOf(count, element, peer, 2);
  LEPTON_RETURN_IF_ERROR(window.Begin(count * element, deadline));
  unsigned char* const ours = window.data(self) + theirs.begin * element;
  std::memcpy(ours, in + theirs.begin * element, theirs.size() * element);
  window.Publish(Signature(call));
  LEPTON_RETURN_IF_ERROR(window.WaitPublished(peer, deadline));
  unsigned char* const slot = window.data(peer) + mine.begin * element;
  const size_t block = kPairBlockBytes / element;
  for (size_t i = 0; i < mine.size(); i += block) {
    const size_t n = std::min(block, mine.size() - i), offset = (mine.begin + i) * element;
    const void* inputs[2];
    inputs[self] = in + offset;
    inputs[peer] = slot + i * element;
    TreeReduce(slot + i * element, inputs, group.splits, n, call.type, call.op);
    CopyOut(out + offset, slot + i * element, n * element, streamed);
  }
  window.PublishReduced();
  LEPTON_RETURN_IF_ERROR(window.WaitReduced(peer, deadline));
  CopyOut(out + theirs.begin * element, ours, theirs.size() * element, streamed);
  return {};
}

// What a group may count on of the last cache, others may have the rest: half of it, but no more
// than a few cores' share of a large processor's, and something where a virtual machine hides it.
size_t CacheForOneGroup() {
  constexpr size_t kMost = size_t{16} << 20, kUnknown = size_t{8} << 20;
  const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return bytes > 0 ? std::min(static_cast<size_t>(bytes) / 2, kMost) : kUnknown;
}

}  // namespace

bool Streamed(const Group& group, const Call& call) {
  static const size_t cache = CacheForOneGroup();
  return 2 * static_cast<size_t>(group.size) * call.bytes() > cache;
}

Status SharedPairAllReduce(Group& group, const Call& call, Deadline deadline) {
  const bool streamed = Streamed(group, call);
  const size_t round = call.bytes() <= kPairFewRounds ? group.window->capacity() : kPairRoundBytes;
  const size_t per_round = round / DataTypeSize(call.type);
  for (size_t at = 0; at < call.count; at += per_round) {
    const size_t count = std::min(per_round, call.count - at);
    LEPTON_RETURN_IF_ERROR(PairRound(group, call, at, count, streamed, deadline));
  }
  if (streamed) StreamFence();
  return {};
}

Status SharedOneShotAllReduce(Group& group, const Call& call, Deadline deadline) {
  SharedWindow& window = *group.window;
  LEPTON_RETURN_IF_ERROR(window.Begin(call.bytes(), deadline));
  if (call.count > 0) std::memcpy(window.data(window.rank()), call.in, call.bytes());
  window.Publish(Signature(call));
  LEPTON_RETURN_IF_ERROR(window.WaitAllPublished(deadline));
  TreeReduce(call.out, SlotsFrom(group, 0).data(), group.splits, call.count, call.type, call.op);
  return {};
}

Status SharedSlicedAllReduce(Group& group, const Call& call, Deadline deadline) {
  size_t per_round = group.window->capacity() / DataTypeSize(call.type);
  const bool streamed = Streamed(group, call);
  for (size_t at = 0; at < call.count; at += per_round) {
    size_t count = std::min(per_round, call.count - at);
    LEPTON_RETURN_IF_ERROR(SlicedRound(group, call, at, count, streamed, deadline));
  }
  if (streamed) StreamFence();
  return {};
}

}  // namespace lepton::collectives
