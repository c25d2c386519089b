// All-gather and broadcast among hosts of several ranks: what goes from host to host goes once.
#include <algorithm>
#include <cstring>
#include <vector>

#include "collectives/algorithms/link_algorithms.h"

namespace lepton::collectives {
namespace {

class HierarchicalGather {
 public:
  HierarchicalGather(Group& group, const Call& call)
      : group_(group),
        tree_(group.host_tree),
        bytes_(call.bytes()),
        out_(static_cast<char*>(call.out)),
        host_(tree_.HostOf(group.rank)),
        index_(tree_.IndexOf(group.rank)) {
    char* const mine = out_ + static_cast<size_t>(group.rank) * bytes_;
    if (bytes_ > 0 && mine != call.in) std::memmove(mine, call.in, bytes_);
  }

  Status Run(Deadline deadline) {
    const size_t step = std::min(bytes_, group_.mesh.part_bytes());
    for (size_t at = 0; at < bytes_ + step && step > 0; at += step) {
      transfers_.clear();
      if (at < bytes_) Exchange(at, std::min(step, bytes_ - at));
      if (at > 0) Spread(at - step, std::min(step, bytes_ - (at - step)));
      LEPTON_RETURN_IF_ERROR(group_.mesh.Run(transfers_, deadline));
    }
    return {};
  }

 private:
  char* Place(int rank, size_t at) const { return out_ + static_cast<size_t>(rank) * bytes_ + at; }

  // Calls body(rank, who of this host receives what that rank has) for the ranks of other hosts.
  template <typename Body>
  void ForOthers(const Body& body) const {
    for (int host = 0; host < tree_.hosts(); ++host) {
      if (host == host_) continue;
      int index = 0;
      for (const int rank : tree_.ranks_of[host]) body(rank, tree_.RankOf(host_, index++));
    }
  }

  // Own bytes to one rank of each other host, and to all of this one.
  void Exchange(size_t at, size_t size) {
    for (int host = 0; host < tree_.hosts(); ++host) {
      if (host == host_) continue;
      transfers_.push_back(
          Transfer::Send(tree_.RankOf(host, index_), Place(group_.rank, at), size));
    }
    ForOthers([&](int rank, int receiver) {
      if (receiver == group_.rank)
        transfers_.push_back(Transfer::Recv(rank, Place(rank, at), size));
    });
    for (const int mate : tree_.ranks_of[host_]) {
      if (mate == group_.rank) continue;
      transfers_.push_back(Transfer::Send(mate, Place(group_.rank, at), size));
      transfers_.push_back(Transfer::Recv(mate, Place(mate, at), size));
    }
  }

  // What came from other hosts, to all of this one.
  void Spread(size_t at, size_t size) {
    ForOthers([&](int rank, int receiver) {
      if (receiver != group_.rank) {
        transfers_.push_back(Transfer::Recv(receiver, Place(rank, at), size));
        return;
      }
      for (const int mate : tree_.ranks_of[host_]) {
        if (mate != group_.rank) {
          transfers_.push_back(Transfer::Send(mate, Place(rank, at), size));
        }
      }
    });
  }

  Group& group_;
  const HostTree& tree_;
  const size_t bytes_;  // of a rank
  char* const out_;
  const int host_, index_;
  std::vector<Transfer> transfers_;
};

}  // namespace

Status HierarchicalAllGather(Group& group, const Call& call, Deadline deadline) {
  return HierarchicalGather(group, call).Run(deadline);
}

Status HierarchicalBroadcast(Group& group, const Call& call, Deadline deadline) {
  const HostTree& tree = group.host_tree;
  const int host = tree.HostOf(group.rank);
  std::vector<int> leaders;
  for (const std::vector<int>& ranks : tree.ranks_of) leaders.push_back(ranks.front());
  leaders[tree.HostOf(call.root)] = call.root;
  LEPTON_RETURN_IF_ERROR(
      BroadcastAmong(group, leaders, call.root, call.out, call.bytes(), deadline));
  return BroadcastAmong(group, tree.ranks_of[host], leaders[host], call.out, call.bytes(),
                        deadline);
}

}  // namespace lepton::collectives
