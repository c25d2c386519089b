#include <algorithm>
#include <vector>

#include "collectives/algorithms/link_algorithms.h"
#include "collectives/algorithms/unit_sums.h"

namespace lepton::collectives {
namespace {

// A rank's result is cut into blocks; of each block
//   1. the ranks of a host give their contributions to the one that adds up the host's units for
//      this result: the result's rank itself on its host, on another its counterpart there,
//   2. which sends the partial sums to the result's rank; that adds the rest.
// Steps of two blocks travel together, so that the network is busy while memory is.
class HierarchicalScatter {
 public:
  HierarchicalScatter(Group& group, const Call& call)
      : group_(group),
        call_(call),
        tree_(group.host_tree),
        sums_(group, call),
        element_(DataTypeSize(call.type)),
        in_(static_cast<const char*>(call.in)),
        out_(static_cast<char*>(call.out)),
        host_(tree_.HostOf(group.rank)) {
    // A rank gives its host's others as many parts at once as there are ranks.
    const size_t per_block = group.mesh.part_bytes() / 2;
    blocks_ = std::max(1, static_cast<int>((call.bytes() + per_block - 1) / per_block));
    Allot();
  }

  Status Run(Deadline deadline) {
    for (int turn = 0; turn < blocks_ + 1; ++turn) {
      transfers_.clear();
      if (turn > 0) Deliver(turn - 1);
      if (turn < blocks_) CollectOnHost(turn);
      LEPTON_RETURN_IF_ERROR(group_.mesh.Run(transfers_, deadline));
      // In this order: the next block's partial sums lie where those of this one do.
      if (turn > 0) Finish(turn - 1);
      if (turn < blocks_) AddUnits(turn);
    }
    return {};
  }

 private:
  // Whose result this rank adds up for its host.
  struct Served {
    int rank;
    unsigned char* given = nullptr;  // by the host's ranks but itself: their contributions
    unsigned char* units = nullptr;  // partial sums of the host's units
  };

  Range Block(int block) const { return PartOf(call_.count, element_, block, blocks_); }
  // Of the call's elements, in which results stand behind each other.
  Range Part(int block, int rank) const {
    const Range range = Block(block);
    const size_t first = static_cast<size_t>(rank) * call_.count;
    return {first + range.begin, first + range.end};
  }
  // Who does it on this host.
  int ServerOf(int rank) const {
    return tree_.HostOf(rank) == host_ ? rank : tree_.RankOf(host_, tree_.IndexOf(rank));
  }

  void Allot() {
    size_t most = 0;
    for (int block = 0; block < blocks_; ++block) most = std::max(most, Block(block).size());
    given_stride_ = sums_.StrideOfGiven(most);
    unit_stride_ = sums_.StrideOfUnits(most);
    const size_t given = (sums_.ranks_here() - 1) * given_stride_;
    const size_t units = sums_.units_here() * unit_stride_;
    const size_t received = sums_.units_elsewhere() * unit_stride_;
    for (int rank = 0; rank < group_.size; ++rank) {
      if (ServerOf(rank) == group_.rank) served_.push_back({.rank = rank});
    }
    unsigned char* place = Scratch(
        group_, served_.size() * (given + units) + received + sums_.ScratchBytes(most, most));
    for (Served& served : served_) {
      served.given = place;
      served.units = served.given + given;
      place = served.units + units;
    }
    received_ = place;
    sums_.UseScratch(received_ + received, most);
  }

  void Send(int to, const void* data, size_t bytes) {
    if (bytes > 0) transfers_.push_back(Transfer::Send(to, data, bytes));
  }
  void Receive(int from, void* data, size_t bytes) {
    if (bytes > 0) transfers_.push_back(Transfer::Recv(from, data, bytes));
  }

  // In both steps both ends of a pair go through results, and units, in the same order.
  void CollectOnHost(int block) {
    const size_t bytes = Block(block).size() * element_;
    auto own = served_.begin();
    for (int result = 0; result < group_.size; ++result) {
      const int server = ServerOf(result);
      if (server != group_.rank) {
        Send(server, in_ + Part(block, result).begin * element_, bytes);
        continue;
      }
      unsigned char* place = (own++)->given;
      for (const int rank : tree_.ranks_of[host_]) {
        if (rank == group_.rank) continue;
        Receive(rank, place, bytes);
        place += given_stride_;
      }
    }
  }

  void AddUnits(int block) {
    for (const Served& served : served_) {
      sums_.Add(Part(block, served.rank), served.given, given_stride_, served.units, unit_stride_);
    }
  }

  void Deliver(int block) {
    const size_t bytes = Block(block).size() * sums_.partial_bytes();
    for (const Served& served : served_) {
      if (served.rank == group_.rank) continue;
      for (size_t unit = 0; unit < sums_.units_here(); ++unit) {
        Send(served.rank, served.units + unit * unit_stride_, bytes);
      }
    }
    unsigned char* place = received_;
    for (int host = 0; host < tree_.hosts(); ++host) {
      if (host == host_) continue;
      const int server = tree_.RankOf(host, tree_.IndexOf(group_.rank));
      for (size_t unit = 0; unit < tree_.units_of[host].size(); ++unit) {
        Receive(server, place, bytes);
        place += unit_stride_;
      }
    }
  }

  void Finish(int block) {
    const auto own = std::find_if(served_.begin(), served_.end(), [this](const Served& served) {
      return served.rank == group_.rank;
    });
    const Range range = Block(block);
    sums_.Combine(received_, unit_stride_, own->units, unit_stride_, range.size(),
                  out_ + range.begin * element_);
  }

  Group& group_;
  const Call& call_;
  const HostTree& tree_;
  UnitSums sums_;
  const size_t element_;  // bytes
  const char* const in_;
  char* const out_;
  const int host_;
  int blocks_ = 1;
  std::vector<Served> served_;  // by rank
  size_t given_stride_ = 0, unit_stride_ = 0;
  unsigned char* received_ = nullptr;  // other hosts' units of this rank's result
  std::vector<Transfer> transfers_;
};

}  // namespace

Status HierarchicalReduceScatter(Group& group, const Call& call, Deadline deadline) {
  return HierarchicalScatter(group, call).Run(deadline);
}

}  // namespace lepton::collectives
