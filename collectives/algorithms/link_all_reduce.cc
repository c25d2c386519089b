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

// Sends part r (by `part_of`) to rank r, receives ours from all into scratch and reduces it to
// `out`.
template <typename PartFunction>
Status ReduceOwnPart(Group& group, const Call& call, const PartFunction& part_of, void* out,
                     Deadline deadline) {
  const size_t element = DataTypeSize(call.type);
  const Range mine = part_of(group.rank);
  const size_t bytes = mine.size() * element;
  unsigned char* received = Scratch(group, bytes * static_cast<size_t>(group.size));
  std::vector<const void*> inputs(static_cast<size_t>(group.size));
  std::vector<Transfer> transfers;
  for (int step = 1; step < group.size; ++step) {
    int to = (group.rank + step) % group.size;
    int from = (group.rank + group.size - step) % group.size;
    Range theirs = part_of(to);
    transfers.push_back(
        Transfer::Send(to, Bytes(call.in) + theirs.begin * element, theirs.size() * element));
    inputs[from] = received + static_cast<size_t>(from) * bytes;
    transfers.push_back(Transfer::Recv(from, received + static_cast<size_t>(from) * bytes, bytes));
  }
  inputs[group.rank] = Bytes(call.in) + mine.begin * element;
  LEPTON_RETURN_IF_ERROR(group.mesh.Run(transfers, deadline));
  TreeReduce(out, inputs.data(), group.splits, mine.size(), call.type, call.op);
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

Status OwnerAllReduce(Group& group, const Call& call, Deadline deadline) {
  const size_t element = DataTypeSize(call.type);
  auto part = [&](int r) { return PartOf(call.count, element, r, group.size); };
  const Range mine = part(group.rank);
  char* out = Bytes(call.out) + mine.begin * element;
  LEPTON_RETURN_IF_ERROR(ReduceOwnPart(group, call, part, out, deadline));
  std::vector<Transfer> transfers;
  for (int step = 1; step < group.size; ++step) {
    int to = (group.rank + step) % group.size;
    int from = (group.rank + group.size - step) % group.size;
    Range theirs = part(from);
    transfers.push_back(Transfer::Send(to, out, mine.size() * element));
    transfers.push_back(
        Transfer::Recv(from, Bytes(call.out) + theirs.begin * element, theirs.size() * element));
  }
  return group.mesh.Run(transfers, deadline);
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

}  // namespace lepton::collectives
