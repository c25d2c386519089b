#include <algorithm>
#include <vector>

#include "collectives/algorithms/link_algorithms.h"
#include "collectives/algorithms/tree_reduce.h"

namespace lepton::collectives {
namespace {

size_t Rounded(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// A block of the call's elements is cut into a part for each *rail*, which on every host is one
// rank's (on a host with few ranks one has several), and a part into a piece for each host:
//   1. the ranks of a host give the rail's rank their part; it adds up the host's units,
//   2. the ranks of a rail give each other partial sums: each adds up its host's piece,
//   3. and gives the others of the rail its result;
//   4. the rail's rank gives its host the part.
// Steps of four blocks travel together, so that the network is busy while memory is.
class Hierarchical {
 public:
  Hierarchical(Group& group, const Call& call)
      : group_(group),
        call_(call),
        tree_(group.host_tree),
        element_(DataTypeSize(call.type)),
        partial_type_(PartialType(call.type, call.op)),
        partial_(DataTypeSize(partial_type_)),
        rails_(tree_.most_ranks()),
        in_(static_cast<const char*>(call.in)),
        out_(static_cast<char*>(call.out)),
        host_(tree_.HostOf(group.rank)) {
    const size_t pieces = static_cast<size_t>(rails_) * static_cast<size_t>(tree_.hosts());
    // Half as much as where only one kind of part travels: four do here.
    const size_t per_block = group.mesh.part_bytes() / 2 * pieces;
    blocks_ = std::max(1, static_cast<int>((call.bytes() + per_block - 1) / per_block));
    Allot();
  }

  Status Run(Deadline deadline) {
    for (int turn = 0; turn < blocks_ + 3; ++turn) {
      transfers_.clear();
      if (Has(turn - 3)) SpreadOnHost(turn - 3);
      if (Has(turn - 2)) SpreadOnRails(turn - 2);
      if (Has(turn - 1)) CollectOnRails(turn - 1);
      if (Has(turn)) CollectOnHost(turn);
      LEPTON_RETURN_IF_ERROR(group_.mesh.Run(transfers_, deadline));
      // In this order: the next block's partial sums lie where those of this one do.
      if (Has(turn - 1)) AddPieces(turn - 1);
      if (Has(turn)) AddUnits(turn);
    }
    return {};
  }

 private:
  // What this rank has of a rail that is its own.
  struct Rail {
    int index;
    unsigned char* given = nullptr;     // by the host's ranks but itself: their contributions
    unsigned char* units = nullptr;     // partial sums of the host's units
    unsigned char* received = nullptr;  // of the other hosts' units
  };

  bool Has(int block) const { return block >= 0 && block < blocks_; }
  Range Part(int block, int rail) const {
    return Within(PartOf(call_.count, element_, block, blocks_), rail, rails_);
  }
  Range Piece(int block, int rail, int host) const {
    return Within(Part(block, rail), host, tree_.hosts());
  }
  Range Within(Range whole, int part, int parts) const {
    const Range range = PartOf(whole.size(), element_, part, parts);
    return {whole.begin + range.begin, whole.begin + range.end};
  }

  // Memory for the largest part.
  void Allot() {
    size_t part = 0, piece = 0;
    for (int block = 0; block < blocks_; ++block) {
      for (int rail = 0; rail < rails_; ++rail) {
        part = std::max(part, Part(block, rail).size());
        for (int host = 0; host < tree_.hosts(); ++host) {
          piece = std::max(piece, Piece(block, rail, host).size());
        }
      }
    }
    given_bytes_ = Rounded(part * element_);
    unit_bytes_ = Rounded(part * partial_);
    received_bytes_ = Rounded(piece * partial_);
    const size_t local = tree_.ranks_of[host_].size(), units = tree_.units_of[host_].size();
    const size_t others = tree_.units.size() - units;
    const size_t rail_bytes =
        (local - 1) * given_bytes_ + units * unit_bytes_ + others * received_bytes_;
    for (int rail = 0; rail < rails_; ++rail) {
      if (tree_.RankOf(host_, rail) == group_.rank) rails_here_.push_back({.index = rail});
    }
    const bool widens = partial_type_ != call_.type;
    unsigned char* place =
        Scratch(group_, rails_here_.size() * rail_bytes +
                            (widens ? local * unit_bytes_ + received_bytes_ : 0));
    for (Rail& rail : rails_here_) {
      rail.given = place;
      rail.units = rail.given + (local - 1) * given_bytes_;
      rail.received = rail.units + units * unit_bytes_;
      place += rail_bytes;
    }
    if (!widens) return;
    wide_ = place;
    sum_ = wide_ + local * unit_bytes_;
  }

  void Send(int to, const void* data, size_t bytes) {
    if (bytes > 0) transfers_.push_back(Transfer::Send(to, data, bytes));
  }
  void Receive(int from, void* data, size_t bytes) {
    if (bytes > 0) transfers_.push_back(Transfer::Recv(from, data, bytes));
  }

  // In all four, both ends of a pair go through rails, and units, in the same order.
  void CollectOnHost(int block) {
    auto own = rails_here_.begin();
    for (int rail = 0; rail < rails_; ++rail) {
      const Range part = Part(block, rail);
      const int owner = tree_.RankOf(host_, rail);
      if (owner != group_.rank) {
        Send(owner, in_ + part.begin * element_, part.size() * element_);
        continue;
      }
      unsigned char* place = (own++)->given;
      for (const int rank : tree_.ranks_of[host_]) {
        if (rank == group_.rank) continue;
        Receive(rank, place, part.size() * element_);
        place += given_bytes_;
      }
    }
  }

  void AddUnits(int block) {
    std::vector<const void*> inputs;
    for (const Rail& rail : rails_here_) {
      const Range part = Part(block, rail.index);
      unsigned char* out = rail.units;
      for (const int index : tree_.units_of[host_]) {
        const HostTree::Unit& unit = tree_.units[index];
        inputs.clear();
        for (int rank = unit.first; rank < unit.first + unit.ranks(); ++rank) {
          const void* from = Contribution(rail, rank, part);
          if (partial_type_ != call_.type) {
            unsigned char* wide = wide_ + inputs.size() * unit_bytes_;
            ToPartial(from, part.size(), call_.type, call_.op, wide);
            from = wide;
          }
          inputs.push_back(from);
        }
        TreeReduce(out, inputs.data(), unit.splits, part.size(), partial_type_,
                   PartialOp(call_.op));
        out += unit_bytes_;
      }
    }
  }
  const void* Contribution(const Rail& rail, int rank, Range part) const {
    if (rank == group_.rank) return in_ + part.begin * element_;
    size_t place = 0;
    for (const int other : tree_.ranks_of[host_]) {
      if (other == rank) break;
      place += other != group_.rank;
    }
    return rail.given + place * given_bytes_;
  }

  void CollectOnRails(int block) {
    for (const Rail& rail : rails_here_) {
      const Range part = Part(block, rail.index);
      const Range mine = Piece(block, rail.index, host_);
      unsigned char* place = rail.received;
      for (int host = 0; host < tree_.hosts(); ++host) {
        if (host == host_) continue;
        const int peer = tree_.RankOf(host, rail.index);
        const Range theirs = Piece(block, rail.index, host);
        for (size_t unit = 0; unit < tree_.units_of[host_].size(); ++unit) {
          Send(peer, rail.units + unit * unit_bytes_ + (theirs.begin - part.begin) * partial_,
               theirs.size() * partial_);
        }
        for (size_t unit = 0; unit < tree_.units_of[host].size(); ++unit) {
          Receive(peer, place, mine.size() * partial_);
          place += received_bytes_;
        }
      }
    }
  }

  void AddPieces(int block) {
    for (const Rail& rail : rails_here_) {
      const Range part = Part(block, rail.index);
      const Range mine = Piece(block, rail.index, host_);
      std::vector<const void*> inputs(tree_.units.size());
      const unsigned char* place = rail.received;
      for (int host = 0; host < tree_.hosts(); ++host) {
        if (host == host_) continue;
        for (const int unit : tree_.units_of[host]) {
          inputs[unit] = place;
          place += received_bytes_;
        }
      }
      place = rail.units + (mine.begin - part.begin) * partial_;
      for (const int unit : tree_.units_of[host_]) {
        inputs[unit] = place;
        place += unit_bytes_;
      }
      char* const out = out_ + mine.begin * element_;
      const bool widens = partial_type_ != call_.type;
      void* const sum = widens ? static_cast<void*>(sum_) : out;
      TreeReduce(sum, inputs.data(), tree_.splits, mine.size(), partial_type_, PartialOp(call_.op));
      if (widens || call_.op == ReduceOp::kMean) {
        FromPartial(sum, group_.size, mine.size(), call_.type, call_.op, out);
      }
    }
  }

  void SpreadOnRails(int block) {
    for (const Rail& rail : rails_here_) {
      const Range mine = Piece(block, rail.index, host_);
      for (int host = 0; host < tree_.hosts(); ++host) {
        if (host == host_) continue;
        const int peer = tree_.RankOf(host, rail.index);
        const Range theirs = Piece(block, rail.index, host);
        Send(peer, out_ + mine.begin * element_, mine.size() * element_);
        Receive(peer, out_ + theirs.begin * element_, theirs.size() * element_);
      }
    }
  }

  void SpreadOnHost(int block) {
    for (int rail = 0; rail < rails_; ++rail) {
      const Range part = Part(block, rail);
      const int owner = tree_.RankOf(host_, rail);
      char* const at = out_ + part.begin * element_;
      if (owner != group_.rank) {
        Receive(owner, at, part.size() * element_);
        continue;
      }
      for (const int rank : tree_.ranks_of[host_]) {
        if (rank != group_.rank) Send(rank, at, part.size() * element_);
      }
    }
  }

  Group& group_;
  const Call& call_;
  const HostTree& tree_;
  const size_t element_;  // bytes
  const DataType partial_type_;
  const size_t partial_;  // bytes of one
  const int rails_;
  const char* const in_;
  char* const out_;
  const int host_;
  int blocks_ = 1;
  std::vector<Rail> rails_here_;
  size_t given_bytes_ = 0, unit_bytes_ = 0, received_bytes_ = 0;  // from one to the next
  unsigned char* wide_ = nullptr;                                 // a unit's contributions, widened
  unsigned char* sum_ = nullptr;                                  // a piece, not yet narrowed
  std::vector<Transfer> transfers_;
};

}  // namespace

Status HierarchicalAllReduce(Group& group, const Call& call, Deadline deadline) {
  return Hierarchical(group, call).Run(deadline);
}

}  // namespace lepton::collectives
