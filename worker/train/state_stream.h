// The training state on its way to ranks that join, in pieces beside the steps
// (docs/decisions/join.md). A joiner takes part in the group's sums from its first step on, so it
// has every gradient. Of the state it gets a piece in each step, some weights with their moments,
// as they are before the step's update; from then on it updates these itself, as all do, element by
// element. So when the last piece is there, all of the state is that of the newest step, and no
// step has waited for more than a piece.
//
// Joiners are the last ranks of the group. Joiner j gets all of its pieces from rank
// j % (whole ranks). A piece leaves from a copy, so that nobody writes what travels.
// Threads: one caller. After an error, and before a group goes, call Close.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/base/status.h"

namespace lepton::worker {

class StateStream {
 public:
  // The state's columns: the weights first, and what the optimiser keeps of each of their first
  // elements, column by column. Equal sizes on all ranks; asked for anew each time, as the arrays
  // of a program are.
  using Columns = std::function<std::vector<std::span<float>>()>;
  // `piece`: of all columns together, in floats.
  StateStream(Columns columns, int64_t piece);
  ~StateStream() { Close(); }

  // All ranks, between two steps: those from `whole` on lack the state.
  void Begin(collectives::Communicator& gang, int whole);
  bool open() const { return gang_ != nullptr; }
  // Open: how many ranks have the state.
  int whole() const { return whole_; }
  // Open: no piece is left.
  bool done() const { return begin_ == elements_; }
  // Open: this rank has some of the state, and more is on its way to it.
  bool arrives() const { return joins() && begin_ > 0 && !done(); }

  // Before anything else of a step is sent: the next piece goes on its way, beside what follows.
  void SendPiece();
  // Behind the step's sums and before its update: the joiners have the piece.
  Status TakePiece();
  // Between two steps: all that is left. Everybody waits.
  Status SendRest();
  // The joiners are like the others, or the group is over.
  void Close();

 private:
  // Calls `part(column's elements, piece's elements)` for each column.
  template <typename Part>
  void ForEachPart(const std::vector<std::span<float>>& columns, const Part& part);
  bool joins() const { return gang_->rank() >= whole_; }

  const Columns columns_;
  const int64_t piece_;
  collectives::Communicator* gang_ = nullptr;
  int whole_ = 0;
  int64_t elements_ = 0, begin_ = 0, end_ = 0;  // weights in all; of the piece on its way
  std::vector<float> copy_;
  std::vector<collectives::HandlePtr> handles_;
};

}  // namespace lepton::worker
