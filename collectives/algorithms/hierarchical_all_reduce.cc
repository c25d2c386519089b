#include <algorithm>
#include <vector>

#include "collectives/algorithms/link_algorithms.h"
#include "collectives/algorithms/unit_sums.h"

namespace lepton::collectives {
namespace {

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
        sums_(group, call),
        element_(DataTypeSize(call.type)),
        partial_(sums_.partial_bytes()),
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
    given_bytes_ = sums_.StrideOfGiven(part);
    unit_bytes_ = sums_.StrideOfUnits(part);
    received_bytes_ = sums_.StrideOfUnits(piece);
    const size_t given = (sums_.ranks_here() - 1) * given_bytes_;
    const size_t units = sums_.units_here() * unit_bytes_;
    const size_t rail_bytes = given + units + sums_.units_elsewhere() * received_bytes_;
    for (int rail = 0; rail < rails_; ++rail) {
      if (tree_.RankOf(host_, rail) == group_.rank) rails_here_.push_back({.index = rail});
    }
    unsigned char* place =
        Scratch(group_, rails_here_.size() * rail_bytes + sums_.ScratchBytes(part, piece));
    for (Rail& rail : rails_here_) {
      rail.given = place;
      rail.units = rail.given + given;
      rail.received = rail.units + units;
      place += rail_bytes;
    }
    sums_.UseScratch(place, part);
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
    for (const Rail& rail : rails_here_) {
      sums_.Add(Part(block, rail.index), rail.given, given_bytes_, rail.units, unit_bytes_);
    }
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
      sums_.Combine(rail.received, received_bytes_,
                    rail.units + (mine.begin - part.begin) * partial_, unit_bytes_, mine.size(),
                    out_ + mine.begin * element_);
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
  UnitSums sums_;
  const size_t element_, partial_;  // bytes of one
  const int rails_;
  const char* const in_;
  char* const out_;
  const int host_;
  int blocks_ = 1;
  std::vector<Rail> rails_here_;
  size_t given_bytes_ = 0, unit_bytes_ = 0, received_bytes_ = 0;  // from one to the next
  std::vector<Transfer> transfers_;
};

}  // namespace

Status HierarchicalAllReduce(Group& group, const Call& call, Deadline deadline) {
  return Hierarchical(group, call).Run(deadline);
}

}  // namespace lepton::collectives
