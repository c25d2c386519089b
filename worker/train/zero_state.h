// A rank's part of a training state that no rank holds as a whole (parallel.zero): the optimiser's
// state of its slices (zero_layout.h), and how far its weights are; with stage 3 the slices'
// weights too. docs/decisions/zero.md says why one death for each pair of buddies costs nothing. A
// step:
//   1. the gradient is summed over ranks; a rank that has its sums says Reduced;
//   2. AgreeOnNorm: blocks' squares from their slices' owners to all. Who comes back knows that all
//      have got as far as 1, so that the step will be: this is where it is committed;
//   3. Update: weights and state of the held slices, in place;
//   4. GatherWeights: every slice's weights from its owner to all; owner and buddy must agree. With
//      stage 3 that they do is all: zero_weights.h brings weights when somebody reads them.
// A rank that dies in 1 leaves all behind the step, or some Reduced: it is done again. One that
// dies in 2 or later may leave some Updated; those that are only Reduced follow (Meet, Follow).
//
// Ranks meet in a new group: Meet; Follow where it says so; ShareWeights; ShareState, which cuts
// the slices anew. What a rank held stays until all have what they are to hold.
//
// Ranks that join get their slices beside the steps (zero_join.cc, docs/decisions/join.md): a step
// takes some stripes of the layout over to all ranks. BeginMoves sends their state, as it is before
// the step, while the step computes; its gradient goes to the new holders; behind its sums the
// new pieces are there, and from the commit on they count.
//
// Threads: one caller. Errors of collective calls are the communicator's; the state is still that
// of the last call that returned OK, or of a later one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/base/status.h"
#include "runtime/nn/training_program.h"
#include "worker/train/zero_layout.h"

namespace lepton::worker {

// Fills in the optimiser's state of parts, at the step that the run began at: component by
// component, as TrainingProgram::Part has it. Reads what there is once, however many are wanted,
// and ends with the error of `go_on`, which it asks now and then.
struct WantedState {
  Elements part;
  std::span<float> state;
};
using StateSource = std::function<Status(std::span<const WantedState> wanted,
                                         const std::function<Status()>& go_on)>;

class ZeroState {
 public:
  // The program outlives it. Without `first` the state at `first_step` is zeros. `with_weights`:
  // stage 3; the program has them all at first, until DropWhole.
  ZeroState(nn::TrainingProgram& program, int stripes, uint64_t first_step, StateSource first,
            bool with_weights = false);

  // Where a part of the summed gradient is: of held parts.
  using GradientOf = std::function<std::span<const float>(const Elements& part)>;

  // ---- a step; `scale` as of TrainingProgram::ApplyGradients
  void Reduced(double scale);
  // Collective. The gradient's norm: not applied yet. Of the layout after the step.
  Result<double> AgreeOnNorm(collectives::Communicator& gang, const GradientOf& gradient);
  void Update(uint64_t step, double norm, const GradientOf& gradient);
  // Collective. -1, or the slice of which owner and buddy hold different weights.
  Result<int> GatherWeights(collectives::Communicator& gang);
  // Collective, once that is so: the first tensor in which they differ, and who mirrors it.
  struct Difference {
    std::string tensor;
    int buddy = 0;
  };
  Result<Difference> FindTensor(int slice, collectives::Communicator& gang);

  // ---- ranks join beside the steps
  // Before anything else of a step is sent: stripes' state goes on its way, as much as `bytes` are
  // for the rank that gets or sends the most, one stripe at least. Nothing where nobody joins.
  void BeginMoves(collectives::Communicator& gang, int64_t bytes);
  // Behind the step's sums, before Reduced: it has arrived.
  Status TakeMoves();
  // A group is over, with or without an error.
  void AbandonMoves();
  bool joining() const { return layout_.joining(); }
  // Some of the state is on its way to this rank, which joins.
  bool arrives() const { return moves_ && layout_.joining() && rank_ >= layout_.holders_before(); }
  // How many ranks have whole weights in the first step of ranks that join: the others get them
  // with the step's update, and hold no slice before. All of the group's if none lacks any.
  int with_whole_weights(int ranks) const {
    return lack_weights_ ? layout_.holders_before() : ranks;
  }

  // ---- ranks meet
  struct Mine {
    int64_t place = -1;      // LoopState's; -1: no state
    bool took_part = false;  // in an earlier group
    uint64_t digest = 0;     // of its weights
    double norm = 0;         // of the gradient that was applied last
    bool leaves = false;     // goes as soon as others hold what it holds
  };
  // What all ranks know alike.
  struct Meeting {
    bool fresh = false;             // nobody took part before
    uint64_t step = 0;              // where all will be
    int source = 0;                 // whose loop state rules
    int behind = 0;                 // ranks that are not at its place
    std::vector<int> whole;         // ranks whose weights are complete
    std::vector<uint64_t> digests;  // of their weights, by rank
    bool follow = false;            // this rank: apply the step that it has the gradient of
    double norm = 0;                // of that gradient
    std::vector<std::vector<Elements>> held;  // by rank: what is of use of the state, after Follow
    std::vector<bool> sources;                // by rank: can make the state anew
    std::vector<bool> current;                // by rank: at the step, after Follow
    std::vector<bool> statistics;             // by rank: has those of the step, after Follow
    std::vector<bool> stays;                  // by rank: does not leave
    int leaving() const;                      // ranks
    int holders() const;                      // ranks up to the last one that holds anything
  };
  // Collective. kInternal, on all ranks alike, when a part is lost: nobody that lives holds it.
  Result<Meeting> Meet(collectives::Communicator& gang, const Mine& mine);
  // Both collective; they return the bytes that moved to ranks which lacked them.
  Result<uint64_t> ShareWeights(collectives::Communicator& gang, const Meeting& meeting);
  Result<uint64_t> ShareState(collectives::Communicator& gang, const Meeting& meeting);
  // Whether those that hold nothing get it beside the steps. All ranks see alike.
  bool JoinsBesideSteps(const Meeting& meeting) const;
  // Then, instead of these two: slices are cut among the holders, and the others get what no slice
  // has. With `whole_weights` weights come at once too. The bytes include those beside the steps.
  Result<uint64_t> ShareAmongHolders(collectives::Communicator& gang, const Meeting& meeting,
                                     bool whole_weights);
  // Before ranks leave: `stays` by rank. What they hold goes to those that stay, as in their group.
  // Collective; kOk means that all have what they are to hold. At the end of a group, or instead of
  // ShareState in one that meets for this alone.
  Status HandOver(collectives::Communicator& gang, const std::vector<bool>& stays);
  Status HandOver(collectives::Communicator& gang, const Meeting& meeting);

  // ---- a checkpoint. Both are valid until the next update, or the next meeting.
  struct StatePart {
    Elements at;
    std::vector<std::span<const float>> components;  // with stage 3 the weights are the last
  };
  // This rank's slice: those of all ranks of its group are the state, each part once.
  std::vector<StatePart> OwnSlice() const;
  // All of it, if this rank has everything, complete weights among it.
  std::vector<StatePart> AllHeld() const;
  bool HoldsAll() const { return (whole_ || with_weights_) && HoldsEverySlice(); }

  // ---- stage 3
  // Of a part that this rank holds.
  std::span<const float> HeldWeights(const Elements& part) const { return WeightsOf(part); }
  // The program's weights are gone: all ranks hold their slices.
  void DropWhole() { whole_ = false; }

  const ZeroLayout& layout() const { return layout_; }
  // Once the step is committed that is under way.
  const ZeroLayout& next_layout() const { return moves_ ? moves_->layout : layout_; }
  int64_t state_elements() const { return per_element_ * layout_.elements(); }  // of all ranks
  int64_t held_bytes() const;         // of the optimiser's state
  int64_t held_weight_bytes() const;  // stage 3

 private:
  struct Piece {
    Elements at;
    std::shared_ptr<std::vector<float>> state;  // component by component
    std::span<float> component(int c) const {
      return std::span(*state).subspan(static_cast<size_t>(c * at.size()),
                                       static_cast<size_t>(at.size()));
    }
  };
  // A part on its way: from == to is a copy or, with `anew`, made again.
  struct Move {
    Elements part;
    int from = 0, to = 0;
    bool anew = false;
  };
  // Stripes that go over to all ranks in the step under way. `pieces`: all that the rank is to
  // hold; what it holds already is the same numbers, not a copy.
  struct Moves {
    struct OnItsWay {
      Move move;
      std::vector<float> state;
      collectives::HandlePtr handle;  // goes first
    };
    ZeroLayout layout;
    std::vector<Piece> pieces;
    std::vector<OnItsWay> under_way;
  };
  std::vector<Move> MovesOfStripe(int stripe) const;
  uint64_t BytesOf(const Move& move) const;
  ZeroLayout NextStripes(uint64_t bytes, std::vector<Move>* moves) const;
  Result<uint64_t> ShareStatistics(collectives::Communicator& gang, const Meeting& meeting);
  std::vector<Piece> PiecesFor(const std::vector<Elements>& wanted) const;
  static std::vector<Move> MovesOf(const Meeting& meeting,
                                   const std::vector<std::vector<Elements>>& wanted);
  Status Run(collectives::Communicator& gang, const Move& move, std::vector<Piece>& to);
  Status RunAnew(collectives::Communicator& gang, std::span<const Move> moves,
                 std::vector<Piece>& to);
  Status Recut(collectives::Communicator& gang, const Meeting& meeting,
               const std::vector<std::vector<Elements>>& wanted, uint64_t* moved);
  Status Load(collectives::Communicator& gang, std::span<const WantedState> wanted) const;
  const Piece* Find(const Elements& part) const;
  StatePart ViewOf(const Elements& part) const;
  std::vector<float> PartOf(const Elements& part) const;
  void PutPart(const Elements& part, std::span<const float> state, std::vector<Piece>& to) const;
  void KeepBoth(const std::vector<Piece>& more);
  bool HoldsEverySlice() const;
  std::span<float> WeightsOf(const Elements& part) const;
  std::span<float> ProgramWeights(const Elements& part) const;
  std::vector<uint64_t> DigestsOfSlice(bool mirrored) const;
  void AdoptMoves();

  nn::TrainingProgram& program_;
  const uint64_t first_step_;
  const StateSource first_;
  const bool with_weights_;
  const int per_element_;      // of the optimiser
  const int components_;       // of a piece
  ZeroLayout layout_;          // of the group that the rank is in
  int rank_ = 0;               // in it
  std::vector<Piece> pieces_;  // in a group: as its layout says
  std::optional<Moves> moves_;
  bool whole_ = true;          // the weights; else only those of pieces_
  bool lack_weights_ = false;  // some ranks of the group, until the next update
  bool statistics_ = true;     // are there
  bool reduced_ = false;
  double scale_ = 1;
  std::vector<float> staging_, gathered_;
};

}  // namespace lepton::worker
