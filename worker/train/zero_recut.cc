#include "worker/train/zero_state.h"

#include <algorithm>

#include "worker/train/zero_holders.h"

namespace lepton::worker {
namespace {

using collectives::Communicator;
using collectives::DataType;

}  // namespace

Result<uint64_t> ZeroState::ShareState(Communicator& gang, const Meeting& meeting) {
  lack_weights_ = false;
  const ZeroLayout layout(layout_.elements(), gang.size(), layout_.stripes());
  std::vector<std::vector<Elements>> wanted;
  for (int rank = 0; rank < gang.size(); ++rank) wanted.push_back(layout.HeldBy(rank));
  uint64_t moved = 0;
  LEPTON_RETURN_IF_ERROR(Recut(gang, meeting, wanted, &moved));
  layout_ = layout;
  rank_ = gang.rank();
  return moved;
}

Status ZeroState::HandOver(Communicator& gang, const std::vector<bool>& stays) {
  Meeting meeting;
  for (int rank = 0; rank < gang.size(); ++rank) {
    meeting.held.push_back(layout_.HeldBy(rank));
    meeting.sources.push_back(false);
  }
  meeting.stays = stays;
  return HandOver(gang, meeting);
}

Status ZeroState::HandOver(Communicator& gang, const Meeting& meeting) {
  const int staying = gang.size() - meeting.leaving();
  if (staying == 0 || staying == gang.size()) return Status::Ok();
  const ZeroLayout next(layout_.elements(), staying, layout_.stripes());
  std::vector<std::vector<Elements>> wanted;
  int place = 0;
  for (const bool stays : meeting.stays) {
    wanted.push_back(stays ? next.HeldBy(place++) : std::vector<Elements>());
  }
  uint64_t moved = 0;
  return Recut(gang, meeting, wanted, &moved);
}

int ZeroState::Meeting::leaving() const {
  return static_cast<int>(std::count(stays.begin(), stays.end(), false));
}

// Equal on all ranks, in an order that all keep, so that no two wait for each other in vain.
std::vector<ZeroState::Move> ZeroState::MovesOf(const Meeting& meeting,
                                                const std::vector<std::vector<Elements>>& wanted) {
  std::vector<Move> moves;
  for (size_t to = 0; to < wanted.size(); ++to) {
    const auto of_others = static_cast<ptrdiff_t>(moves.size());
    for (const Elements& range : wanted[to]) {
      const size_t first = moves.size();
      for (const Elements& part : CutAtParts(range, meeting.held)) {
        Move move{part, static_cast<int>(to), static_cast<int>(to)};
        if (!Holds(meeting.held[to], part)) {
          move.from = meeting.sources[to] ? static_cast<int>(to) : FirstHolder(meeting.held, part);
          if (move.from < 0) move.from = FirstOf(meeting.sources);
          move.anew = !Holds(meeting.held[static_cast<size_t>(move.from)], part);
        }
        Move* const last = moves.size() > first ? &moves.back() : nullptr;
        if (last != nullptr && last->from == move.from && last->anew && move.anew) {
          last->part.end = part.end;
        } else {
          moves.push_back(move);
        }
      }
    }
    // What is made anew side by side, to be made at once.
    std::stable_partition(moves.begin() + of_others, moves.end(),
                          [](const Move& move) { return !move.anew; });
  }
  return moves;
}

std::vector<ZeroState::Piece> ZeroState::PiecesFor(const std::vector<Elements>& wanted) const {
  std::vector<Piece> made;
  for (const Elements& part : wanted) {
    const Piece* const old = Find(part);
    if (old != nullptr && old->at == part) {
      made.push_back(*old);  // the same numbers, not a copy
    } else {
      made.push_back({part, std::make_shared<std::vector<float>>(
                                static_cast<size_t>(components_ * part.size()))});
    }
  }
  return made;
}

Status ZeroState::Recut(Communicator& gang, const Meeting& meeting,
                        const std::vector<std::vector<Elements>>& wanted, uint64_t* moved) {
  std::vector<Piece> made = PiecesFor(wanted[static_cast<size_t>(gang.rank())]);
  std::vector<Move> moves;
  if (components_ > 0) moves = MovesOf(meeting, wanted);
  for (size_t first = 0, behind = 0; first < moves.size(); first = behind) {
    const Move& move = moves[first];
    // What one rank makes anew for one.
    const auto another = [&](const Move& next) {
      return !next.anew || next.from != move.from || next.to != move.to;
    };
    const auto end =
        std::find_if(moves.begin() + static_cast<ptrdiff_t>(first) + 1, moves.end(), another);
    behind = move.anew ? static_cast<size_t>(end - moves.begin()) : first + 1;
    const std::span<const Move> some = std::span(moves).subspan(first, behind - first);
    for (const Move& one : some) {
      if (one.from == one.to) continue;
      *moved += static_cast<uint64_t>(components_ * one.part.size()) * sizeof(float);
    }
    const Status done = move.anew ? RunAnew(gang, some, made) : Run(gang, move, made);
    LEPTON_RETURN_IF_ERROR(done.WithContext("slices"));
  }
  // Only when all have what they are to hold may anybody forget what it held.
  const Status met = gang.size() > 1 ? gang.Barrier() : Status::Ok();
  if (met.ok()) {
    pieces_ = std::move(made);
  } else {
    KeepBoth(made);
  }
  return met;
}

Status ZeroState::Run(Communicator& gang, const Move& move, std::vector<Piece>& to) {
  const int rank = gang.rank();
  if (move.from != rank && move.to != rank) return Status::Ok();
  const auto is_there = [&](const Piece& piece) { return piece.state == Find(move.part)->state; };
  if (move.from == move.to && std::any_of(to.begin(), to.end(), is_there)) return Status::Ok();
  std::vector<float> state(static_cast<size_t>(components_ * move.part.size()));
  if (move.from == rank) state = PartOf(move.part);
  if (move.from == move.to) {
    PutPart(move.part, state, to);
    return Status::Ok();
  }
  if (move.from == rank) {
    return gang.Send(state.data(), state.size(), DataType::kFloat32, move.to);
  }
  LEPTON_RETURN_IF_ERROR(gang.Recv(state.data(), state.size(), DataType::kFloat32, move.from));
  PutPart(move.part, state, to);
  return Status::Ok();
}

// All from one rank to one: a checkpoint is read once for them, into what is to hold it, or into
// two slices' worth of memory for another.
Status ZeroState::RunAnew(Communicator& gang, std::span<const Move> moves, std::vector<Piece>& to) {
  const int rank = gang.rank(), from = moves.front().from, receiver = moves.front().to;
  if (from != rank && receiver != rank) return Status::Ok();
  std::vector<std::vector<float>> passing(moves.size());
  std::vector<WantedState> wanted;
  for (size_t i = 0; i < moves.size(); ++i) {
    const Elements& part = moves[i].part;
    const auto place = std::find_if(to.begin(), to.end(), [&](const Piece& piece) {
      return receiver == rank && piece.at == part && Find(part) == nullptr;
    });
    if (place == to.end()) passing[i].resize(static_cast<size_t>(components_ * part.size()));
    wanted.push_back({part, place == to.end() ? passing[i] : *place->state});
  }
  if (from == rank) LEPTON_RETURN_IF_ERROR(Load(gang, wanted));
  for (size_t i = 0; i < moves.size(); ++i) {
    const auto& [part, state] = wanted[i];
    if (receiver != rank) {
      LEPTON_RETURN_IF_ERROR(gang.Send(state.data(), state.size(), DataType::kFloat32, receiver));
    } else if (from != rank) {
      LEPTON_RETURN_IF_ERROR(gang.Recv(state.data(), state.size(), DataType::kFloat32, from));
    }
    if (receiver == rank && !passing[i].empty()) PutPart(part, state, to);
    passing[i] = {};
  }
  return Status::Ok();
}

// Some rank may have passed where this one failed. No element twice: an update in place must not
// meet one again.
void ZeroState::KeepBoth(const std::vector<Piece>& more) {
  std::vector<std::vector<Elements>> held(1);
  for (const Piece& piece : pieces_) held[0].push_back(piece.at);
  for (const Piece& piece : more) {
    for (const Elements& part : CutAtParts(piece.at, held)) {
      if (Holds(held[0], part)) continue;
      std::vector<float> state;
      for (int c = 0; c < components_; ++c) {
        const auto from = piece.component(c).begin() + (part.begin - piece.at.begin);
        state.insert(state.end(), from, from + part.size());
      }
      pieces_.push_back({part, std::make_shared<std::vector<float>>(std::move(state))});
    }
  }
}

const ZeroState::Piece* ZeroState::Find(const Elements& part) const {
  for (const Piece& piece : pieces_) {
    if (piece.at.Has(part)) return &piece;
  }
  return nullptr;
}

ZeroState::StatePart ZeroState::ViewOf(const Elements& part) const {
  const Piece* const piece = Find(part);
  StatePart view{part, {}};
  for (int c = 0; c < components_; ++c) {
    view.components.push_back(piece->component(c).subspan(
        static_cast<size_t>(part.begin - piece->at.begin), static_cast<size_t>(part.size())));
  }
  return view;
}

std::vector<float> ZeroState::PartOf(const Elements& part) const {
  std::vector<float> state;
  for (const std::span<const float> values : ViewOf(part).components) {
    state.insert(state.end(), values.begin(), values.end());
  }
  return state;
}

std::vector<ZeroState::StatePart> ZeroState::OwnSlice() const {
  std::vector<StatePart> parts;
  if (components_ == 0) return parts;
  for (const Elements& part : layout_.slice(rank_)) parts.push_back(ViewOf(part));
  return parts;
}

std::vector<ZeroState::StatePart> ZeroState::AllHeld() const {
  std::vector<StatePart> parts;
  if (components_ == 0) return parts;
  for (const Piece& piece : pieces_) parts.push_back(ViewOf(piece.at));
  return parts;
}

void ZeroState::PutPart(const Elements& part, std::span<const float> state,
                        std::vector<Piece>& to) const {
  for (const Piece& piece : to) {
    if (!piece.at.Has(part)) continue;
    for (int c = 0; c < components_; ++c) {
      std::copy_n(state.begin() + c * part.size(), part.size(),
                  piece.component(c).begin() + (part.begin - piece.at.begin));
    }
    return;
  }
}

Status ZeroState::Load(Communicator& gang, std::span<const WantedState> wanted) const {
  std::vector<WantedState> of_optimizer;
  for (const auto& [part, state] : wanted) {
    const auto size = static_cast<size_t>(part.size());
    of_optimizer.push_back({part, state.first(static_cast<size_t>(per_element_) * size)});
    if (with_weights_) program_.ReadWeights(part.begin, state.last(size));
    if (!first_)
      std::fill(of_optimizer.back().state.begin(), of_optimizer.back().state.end(), 0.0f);
  }
  if (!first_) return Status::Ok();
  // It may take long, and nobody waits for who has not come to a group that is over.
  return first_(of_optimizer, [&gang] { return gang.status(); })
      .WithContext("the optimizer's state");
}

}  // namespace lepton::worker
