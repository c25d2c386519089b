#include <algorithm>
#include <cstring>

#include "collectives/algorithms/link_algorithms.h"
#include "collectives/algorithms/tree_reduce.h"

namespace lepton::collectives {
namespace {

const char* Bytes(const void* data) {
  return static_cast<const char*>(data);
}
char* Bytes(void* data) {
  return static_cast<char*>(data);
}

// A rank's own part of a sum: part r (by `part_of`) goes to rank r, ours come from all into
// scratch.
struct OwnPart {
  Range range;
  std::vector<const void*> inputs;  // of the reduction, once the transfers are done
};

template <typename PartFunction>
OwnPart GatherOwnPart(Group& group, const Call& call, const PartFunction& part_of,
                      std::vector<Transfer>& transfers) {
  const size_t element = DataTypeSize(call.type);
  OwnPart own{part_of(group.rank), std::vector<const void*>(static_cast<size_t>(group.size))};
  const size_t bytes = own.range.size() * element;
  unsigned char* const received = Scratch(group, bytes * static_cast<size_t>(group.size));
  for (int step = 1; step < group.size; ++step) {
    const int to = (group.rank + step) % group.size;
    const int from = (group.rank + group.size - step) % group.size;
    const Range theirs = part_of(to);
    unsigned char* const place = received + static_cast<size_t>(from) * bytes;
    transfers.push_back(
        Transfer::Send(to, Bytes(call.in) + theirs.begin * element, theirs.size() * element));
    transfers.push_back(Transfer::Recv(from, place, bytes));
    own.inputs[from] = place;
  }
  own.inputs[group.rank] = Bytes(call.in) + own.range.begin * element;
  return own;
}

void Reduce(const Group& group, const Call& call, const OwnPart& own, void* out) {
  TreeReduce(out, own.inputs.data(), group.splits, own.range.size(), call.type, call.op);
}

template <typename PartFunction>
Status ReduceOwnPart(Group& group, const Call& call, const PartFunction& part_of, void* out,
                     Deadline deadline) {
  std::vector<Transfer> transfers;
  const OwnPart own = GatherOwnPart(group, call, part_of, transfers);
  LEPTON_RETURN_IF_ERROR(group.mesh.Run(transfers, deadline));
  Reduce(group, call, own, out);
  return {};
}

}  // namespace

Status ExchangeAllReduce(Group& group, const Call& call, Deadline deadline) {
  auto everything = [&](int) { return Range{0, call.count}; };
  return ReduceOwnPart(group, call, everything, call.out, deadline);
}

Status OwnerReduceScatter(Group& group, const Call& call, Deadline deadline) {
  auto part = [&](int r) {
    return Range{static_cast<size_t>(r) * call.count, static_cast<size_t>(r + 1) * call.count};
  };
  return ReduceOwnPart(group, call, part, call.out, deadline);
}

// In blocks, so that what comes is added, and what was added is sent, while it is in the caches:
// the sums of a block travel together with the parts of the next.
Status OwnerAllReduce(Group& group, const Call& call, Deadline deadline) {
  const size_t element = DataTypeSize(call.type);
  const size_t per_block = group.mesh.part_bytes() * static_cast<size_t>(group.size);
  const int blocks = std::max(1, static_cast<int>((call.bytes() + per_block - 1) / per_block));
  char* const out = Bytes(call.out);
  const auto part_of_block = [&](int block) {
    return [&, whole = PartOf(call.count, element, block, blocks)](int r) {
      const Range part = PartOf(whole.size(), element, r, group.size);
      return Range{whole.begin + part.begin, whole.begin + part.end};
    };
  };
  std::vector<Transfer> transfers;
  for (int block = 0; block <= blocks; ++block) {
    transfers.clear();
    if (block > 0) {
      const auto part_of = part_of_block(block - 1);
      const Range mine = part_of(group.rank);
      for (int step = 1; step < group.size; ++step) {
        const int to = (group.rank + step) % group.size;
        const int from = (group.rank + group.size - step) % group.size;
        const Range theirs = part_of(from);
        transfers.push_back(Transfer::Send(to, out + mine.begin * element, mine.size() * element));
        transfers.push_back(
            Transfer::Recv(from, out + theirs.begin * element, theirs.size() * element));
      }
    }
    OwnPart own{};
    if (block < blocks) own = GatherOwnPart(group, call, part_of_block(block), transfers);
    LEPTON_RETURN_IF_ERROR(group.mesh.Run(transfers, deadline));
    if (block < blocks) Reduce(group, call, own, out + own.range.begin * element);
  }
  return {};
}

// The subtree of ranks [low, high) is summed at rank `low`; see tree_reduce.h for where it splits.
// A rank descends to its own leaf and climbs while it is the first of its subtree; the result goes
// down the same way.
Status TreeAllReduce(Group& group, const Call& call, Deadline deadline) {
  const DataType partial_type = PartialType(call.type, call.op);
  const size_t bytes = call.count * DataTypeSize(partial_type);
  unsigned char* mine = Scratch(group, 2 * bytes + 64);
  unsigned char* other = mine + (bytes + 63) / 64 * 64;
  std::vector<std::pair<int, int>> path;  // (low, first rank of the right half) from the root down
  int low = 0;
  int high = group.size;
  for (size_t node = 0; high - low > 1;) {
    const int split = group.splits[node];
    const int middle = low + split;
    path.emplace_back(low, middle);
    const bool on_the_left = group.rank < middle;
    node += on_the_left ? 1 : static_cast<size_t>(split);
    (on_the_left ? high : low) = middle;
  }
  ToPartial(call.in, call.count, call.type, call.op, mine);
  const std::vector<int> pair = TreeSplits(2, 2);
  size_t level = path.size();
  while (level > 0) {
    auto [left, right] = path[level - 1];
    if (group.rank == right) {
      Transfer up = Transfer::Send(left, mine, bytes);
      LEPTON_RETURN_IF_ERROR(group.mesh.Run({&up, 1}, deadline));
      break;
    }
    if (group.rank != left) break;
    Transfer up = Transfer::Recv(right, other, bytes);
    LEPTON_RETURN_IF_ERROR(group.mesh.Run({&up, 1}, deadline));
    const void* inputs[] = {mine, other};
    TreeReduce(mine, inputs, pair, call.count, partial_type, PartialOp(call.op));
    --level;
  }
  if (level > 0) {
    Transfer down = Transfer::Recv(path[level - 1].first, mine, bytes);
    LEPTON_RETURN_IF_ERROR(group.mesh.Run({&down, 1}, deadline));
  }
  for (size_t i = level; i < path.size(); ++i) {
    Transfer down = Transfer::Send(path[i].second, mine, bytes);
    LEPTON_RETURN_IF_ERROR(group.mesh.Run({&down, 1}, deadline));
  }
  FromPartial(mine, group.size, call.count, call.type, call.op, call.out);
  return {};
}

// After step k a rank has the sum of the 2^(k+1) neighbours that it is among: whole subtrees, the
// lower one first on both sides, so that both sides have the tree's bits.
Status DoublingAllReduce(Group& group, const Call& call, Deadline deadline) {
  const DataType partial_type = PartialType(call.type, call.op);
  const size_t bytes = call.count * DataTypeSize(partial_type);
  unsigned char* const mine = Scratch(group, 2 * bytes + 64);
  unsigned char* const other = mine + (bytes + 63) / 64 * 64;
  static const std::vector<int> pair = TreeSplits(2, 2);
  ToPartial(call.in, call.count, call.type, call.op, mine);
  for (int distance = 1; distance < group.size; distance *= 2) {
    const int peer = group.rank ^ distance;
    Transfer swap[] = {Transfer::Send(peer, mine, bytes), Transfer::Recv(peer, other, bytes)};
    LEPTON_RETURN_IF_ERROR(group.mesh.Run(swap, deadline));
    const void* const inputs[] = {group.rank < peer ? mine : other,
                                  group.rank < peer ? other : mine};
    TreeReduce(mine, inputs, pair, call.count, partial_type, PartialOp(call.op));
  }
  FromPartial(mine, group.size, call.count, call.type, call.op, call.out);
  return {};
}

// Sums of parts, by halves: after step k of the way there a rank has the sum of one part in 2^(k+1)
// over the 2^(k+1) neighbours that it is among, whole subtrees again; the finished parts come back
// in the reverse order.
Status HalvingAllReduce(Group& group, const Call& call, Deadline deadline) {
  const DataType partial_type = PartialType(call.type, call.op);
  const size_t partial = DataTypeSize(partial_type), element = DataTypeSize(call.type);
  unsigned char* const sums = Scratch(group, (call.count + call.count / 2 + 64) * partial + 64);
  unsigned char* const other = sums + (call.count * partial + 63) / 64 * 64;
  static const std::vector<int> pair = TreeSplits(2, 2);
  const unsigned char* mine = static_cast<const unsigned char*>(call.in);
  if (partial_type != call.type) {
    ToPartial(call.in, call.count, call.type, call.op, sums);
    mine = sums;
  }
  std::vector<Range> given;  // by step
  Range kept{0, call.count};
  for (int distance = 1; distance < group.size; distance *= 2) {
    const int peer = group.rank ^ distance;
    const bool first = group.rank < peer;
    const Range low = PartOf(kept.size(), element, 0, 2);
    const size_t middle = kept.begin + low.end;
    given.push_back(first ? Range{middle, kept.end} : Range{kept.begin, middle});
    kept = first ? Range{kept.begin, middle} : Range{middle, kept.end};
    const Range gives = given.back();
    Transfer swap[] = {Transfer::Send(peer, mine + gives.begin * partial, gives.size() * partial),
                       Transfer::Recv(peer, other, kept.size() * partial)};
    LEPTON_RETURN_IF_ERROR(group.mesh.Run(swap, deadline));
    const void* const here = mine + kept.begin * partial;
    const void* const inputs[] = {first ? here : other, first ? other : here};
    TreeReduce(sums + kept.begin * partial, inputs, pair, kept.size(), partial_type,
               PartialOp(call.op));
    mine = sums;
  }
  char* const out = Bytes(call.out);
  FromPartial(sums + kept.begin * partial, group.size, kept.size(), call.type, call.op,
              out + kept.begin * element);
  for (int distance = group.size / 2; distance > 0; distance /= 2) {
    const int peer = group.rank ^ distance;
    const Range comes = given.back();
    given.pop_back();
    Transfer swap[] = {Transfer::Send(peer, out + kept.begin * element, kept.size() * element),
                       Transfer::Recv(peer, out + comes.begin * element, comes.size() * element)};
    LEPTON_RETURN_IF_ERROR(group.mesh.Run(swap, deadline));
    kept = {std::min(kept.begin, comes.begin), std::max(kept.end, comes.end)};
  }
  return {};
}

}  // namespace lepton::collectives
