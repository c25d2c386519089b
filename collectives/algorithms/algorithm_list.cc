#include <cstdint>

#include "collectives/algorithms/algorithm.h"
#include "collectives/algorithms/link_algorithms.h"
#include "collectives/algorithms/shared_algorithms.h"
#include "collectives/algorithms/tree_reduce.h"

namespace lepton::collectives {
namespace {

bool Shared(const Group& group, const Call&) {
  return group.window != nullptr;
}
bool SharedByTwo(const Group& group, const Call&) {
  return group.window != nullptr && group.size == 2;
}
bool SharedSmall(const Group& group, const Call& call) {
  const size_t most = group.size == 2 ? kSharedOneShotBytesOfTwo : kSharedOneShotBytes;
  return group.window != nullptr && call.bytes() <= most;
}
// Sending everything to everybody: one step, (n-1) * bytes sent by each rank.
bool LinksSmall(const Group& group, const Call& call) {
  return group.size <= 8 && call.bytes() <= (size_t{16} << 10);
}
// Splits of TreeSplits for `ranks`, a power of two: each node halves its ranks.
bool Balanced(const int* splits, int ranks) {
  const int half = ranks / 2;
  return ranks < 2 ||
         (splits[0] == half && Balanced(splits + 1, half) && Balanced(splits + half, half));
}
bool LinksHalving(const Group& group, const Call&) {
  return (group.size & (group.size - 1)) == 0 && Balanced(group.splits.data(), group.size);
}
bool LinksDoubling(const Group& group, const Call& call) {
  return call.bytes() <= (size_t{32} << 10) && LinksHalving(group, call);
}
// Where ranks wait for a core the messages of all together count, n log2 n instead of n (n-1);
// elsewhere the steps do, one instead of log2 n.
bool FewMessages(const Group& group, const Call&) {
  return group.size > 8 || (group.size > 2 && group.crowded);
}
bool LinksShort(const Group&, const Call& call) {
  return call.bytes() <= (size_t{16} << 10);
}
bool OverHosts(const Group& group, const Call&) {
  return group.host_tree.hosts() > 1 && group.host_tree.most_ranks() > 1;
}
// Below this what a step takes counts, not what it sends; 16-bit partial sums may be wider than
// what they are made of.
constexpr size_t kHierarchicalBytes = size_t{64} << 10;
double Widening(const Call& call) {
  return static_cast<double>(DataTypeSize(PartialType(call.type, call.op))) /
         static_cast<double>(DataTypeSize(call.type));
}
// 2 log2 n messages a rank, where owner has 2 (n-1): of that length they still cost more than
// bytes.
bool HalvingSuits(const Group& group, const Call& call) {
  return group.size > 2 && group.crowded &&
         static_cast<double>(call.bytes()) * Widening(call) <= size_t{128} << 10;
}
bool SendsLessOverHosts(const Group& group, const Call& call) {
  return call.bytes() >= kHierarchicalBytes &&
         group.host_tree.SentByUnits(Widening(call)) < group.host_tree.SentByRanks();
}
bool ScattersLessOverHosts(const Group& group, const Call& call) {
  return call.bytes() * static_cast<size_t>(group.size) >= kHierarchicalBytes &&
         group.host_tree.ScatteredByUnits(Widening(call)) < group.host_tree.ScatteredByRanks();
}
bool MuchOverHosts(const Group&, const Call& call) {
  return call.bytes() >= kHierarchicalBytes;
}
bool Always(const Group&, const Call&) {
  return true;
}

constexpr Algorithm kAlgorithms[] = {
    {Operation::kAllReduce, "shared_one_shot", SharedSmall, SharedOneShotAllReduce},
    {Operation::kAllReduce, "shared_pair", SharedByTwo, SharedPairAllReduce},
    {Operation::kAllReduce, "shared_sliced", Shared, SharedSlicedAllReduce},
    {Operation::kAllReduce, "doubling", LinksDoubling, DoublingAllReduce, FewMessages},
    {Operation::kAllReduce, "exchange", LinksSmall, ExchangeAllReduce},
    {Operation::kAllReduce, "tree", LinksShort, TreeAllReduce},
    {Operation::kAllReduce, "hierarchical", OverHosts, HierarchicalAllReduce, SendsLessOverHosts},
    {Operation::kAllReduce, "halving", LinksHalving, HalvingAllReduce, HalvingSuits},
    {Operation::kAllReduce, "owner", Always, OwnerAllReduce},
    {Operation::kReduceScatter, "shared", Shared, SharedReduceScatter},
    {Operation::kReduceScatter, "hierarchical", OverHosts, HierarchicalReduceScatter,
     ScattersLessOverHosts},
    {Operation::kReduceScatter, "owner", Always, OwnerReduceScatter},
    {Operation::kAllGather, "shared", Shared, SharedAllGather},
    {Operation::kAllGather, "hierarchical", OverHosts, HierarchicalAllGather, MuchOverHosts},
    {Operation::kAllGather, "exchange", Always, ExchangeAllGather},
    {Operation::kBroadcast, "shared", Shared, SharedBroadcast},
    {Operation::kBroadcast, "hierarchical", OverHosts, HierarchicalBroadcast},
    {Operation::kBroadcast, "binomial", Always, BinomialBroadcast},
    {Operation::kGather, "direct", Always, DirectGather},
    {Operation::kScatter, "direct", Always, DirectScatter},
    {Operation::kAllToAll, "direct", Always, DirectAllToAll},
    {Operation::kBarrier, "shared", Shared, SharedBarrier},
    {Operation::kBarrier, "dissemination", Always, DisseminationBarrier},
};

}  // namespace

std::string_view OperationName(Operation operation) {
  constexpr std::string_view kNames[] = {"all-reduce", "reduce-scatter", "all-gather", "broadcast",
                                         "gather",     "scatter",        "all-to-all", "barrier",
                                         "send",       "recv",           "send-recv"};
  return kNames[static_cast<int>(operation)];
}

std::span<const Algorithm> Algorithms() {
  return kAlgorithms;
}

const Algorithm& ChooseAlgorithm(const Group& group, const Call& call, std::string_view name) {
  const Algorithm* chosen = nullptr;
  for (const Algorithm& algorithm : kAlgorithms) {
    if (algorithm.operation != call.operation || !algorithm.usable(group, call)) continue;
    if (algorithm.name == name) return algorithm;
    const bool suits = algorithm.suits == nullptr || algorithm.suits(group, call);
    if (chosen == nullptr && suits) chosen = &algorithm;
    if (chosen != nullptr && name.empty()) break;
  }
  return *chosen;
}

uint64_t Signature(const Call& call) {
  uint64_t kind = static_cast<uint64_t>(call.operation) << 12 |
                  static_cast<uint64_t>(call.type) << 8 | static_cast<uint64_t>(call.op) << 4;
  return static_cast<uint64_t>(call.count) << 24 ^ kind << 8 ^ static_cast<uint64_t>(call.root);
}

unsigned char* Scratch(Group& group, size_t bytes) {
  if (group.scratch.size() < bytes + 64) group.scratch.resize(bytes + 64);
  auto address = reinterpret_cast<uintptr_t>(group.scratch.data());
  return group.scratch.data() + (64 - address % 64) % 64;
}

Range PartOf(size_t count, size_t element_bytes, int part, int parts) {
  size_t line = 64 / element_bytes;
  size_t lines = (count + line - 1) / line;
  auto cut = [&](int p) {
    size_t at = lines * static_cast<size_t>(p) / static_cast<size_t>(parts) * line;
    return at < count ? at : count;
  };
  return {cut(part), cut(part + 1)};
}

}  // namespace lepton::collectives
