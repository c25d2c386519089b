// Ranks that join get their slices beside the steps of the others, stripe by stripe.
// docs/decisions/join.md says why it is done so.
#include <algorithm>
#include <map>
#include <utility>

#include "worker/train/zero_holders.h"
#include "worker/train/zero_state.h"

namespace lepton::worker {

using collectives::Communicator;
using collectives::DataType;

namespace {

// Of one stripe, by rank.
std::vector<std::vector<Elements>> HeldOf(const ZeroLayout& layout, int stripe) {
  std::vector<std::vector<Elements>> held(static_cast<size_t>(layout.ranks()));
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    const Elements own = layout.part(rank, stripe);
    if (own.empty()) continue;
    held[static_cast<size_t>(rank)].push_back(own);
    const int buddy = layout.buddy(rank, stripe);
    if (buddy != rank) held[static_cast<size_t>(buddy)].push_back(own);
  }
  return held;
}

}  // namespace

int ZeroState::Meeting::holders() const {
  int last = 0;
  for (size_t rank = 0; rank < held.size(); ++rank) {
    if (!held[rank].empty()) last = static_cast<int>(rank) + 1;
  }
  return last;
}

// Joiners are the last ranks. One stripe is a state that is there as soon as it is asked for.
bool ZeroState::JoinsBesideSteps(const Meeting& meeting) const {
  const int holders = meeting.holders();
  if (meeting.fresh || meeting.leaving() > 0 || layout_.stripes() == 1) return false;
  for (int rank = 0; rank < holders; ++rank) {
    if (meeting.held[static_cast<size_t>(rank)].empty()) return false;
  }
  return holders > 0 && holders < static_cast<int>(meeting.held.size());
}

Result<uint64_t> ZeroState::ShareAmongHolders(Communicator& gang, const Meeting& meeting,
                                              bool whole_weights) {
  const int holders = meeting.holders();
  bool lack = !with_weights_ && !whole_weights;
  for (int rank = 0; rank < holders && lack; ++rank) {
    // Who holds slices and not the other weights would wait for them in vain.
    lack = std::find(meeting.whole.begin(), meeting.whole.end(), rank) != meeting.whole.end();
  }
  uint64_t bytes = 0;
  if (lack) {
    LEPTON_ASSIGN_OR_RETURN(bytes, ShareStatistics(gang, meeting));
    bytes += static_cast<uint64_t>((gang.size() - holders) * layout_.elements()) * sizeof(float);
  } else {
    LEPTON_ASSIGN_OR_RETURN(bytes, ShareWeights(gang, meeting));
  }
  const ZeroLayout among(layout_.elements(), holders, layout_.stripes());
  std::vector<std::vector<Elements>> wanted(static_cast<size_t>(gang.size()));
  for (int rank = 0; rank < holders; ++rank) wanted[static_cast<size_t>(rank)] = among.HeldBy(rank);
  LEPTON_RETURN_IF_ERROR(Recut(gang, meeting, wanted, &bytes));
  layout_ = among.Joined(gang.size(), 0);
  rank_ = gang.rank();
  lack_weights_ = lack;
  for (int stripe = 0; stripe < layout_.stripes(); ++stripe) {
    for (const Move& move : MovesOfStripe(stripe)) bytes += BytesOf(move);
  }
  return bytes;
}

// What ranks lack of a stripe's cut among all of them.
std::vector<ZeroState::Move> ZeroState::MovesOfStripe(int stripe) const {
  Meeting meeting;
  meeting.held = HeldOf(layout_, stripe);
  meeting.sources.assign(meeting.held.size(), false);
  const ZeroLayout over = layout_.Joined(layout_.ranks(), layout_.stripes());
  std::vector<Move> moves = MovesOf(meeting, HeldOf(over, stripe));
  std::erase_if(moves, [](const Move& move) { return move.from == move.to; });
  return moves;
}

uint64_t ZeroState::BytesOf(const Move& move) const {
  return static_cast<uint64_t>(components_ * move.part.size()) * sizeof(float);
}

// Of the layout once a step has taken stripes over, and their moves.
ZeroLayout ZeroState::NextStripes(uint64_t bytes, std::vector<Move>* moves) const {
  int over = layout_.stripes_over();
  std::map<std::pair<int, bool>, uint64_t> passed;  // by rank, and whether it gets them
  for (uint64_t most = 0; over < layout_.stripes(); ++over) {
    const std::vector<Move> next = MovesOfStripe(over);
    for (const Move& move : next) {
      for (const auto& end : {std::pair(move.from, false), std::pair(move.to, true)}) {
        most = std::max(most, passed[end] += BytesOf(move));
      }
    }
    if (most > bytes && over > layout_.stripes_over()) break;
    moves->insert(moves->end(), next.begin(), next.end());
  }
  return layout_.Joined(layout_.ranks(), over);
}

void ZeroState::BeginMoves(Communicator& gang, int64_t bytes) {
  // Whoever gets a slice updates it in this step, with weights that it must have.
  if (!layout_.joining() || lack_weights_) return;
  std::vector<Move> moves;
  const ZeroLayout next = NextStripes(static_cast<uint64_t>(bytes), &moves);
  moves_.emplace(Moves{next, PiecesFor(next.HeldBy(rank_)), {}});
  if (components_ == 0) return;
  // Of its own: copies, where parts are cut otherwise.
  for (const Piece& piece : moves_->pieces) {
    for (const Piece& held : pieces_) {
      const Elements both{std::max(piece.at.begin, held.at.begin),
                          std::min(piece.at.end, held.at.end)};
      if (both.empty() || piece.state == held.state) continue;
      PutPart(both, PartOf(both), moves_->pieces);
    }
  }
  moves_->under_way.reserve(moves.size());
  for (const Move& move : moves) {
    if (move.from == rank_) {
      Moves::OnItsWay& sent = moves_->under_way.emplace_back(Moves::OnItsWay{move, {}, nullptr});
      sent.state = PartOf(move.part);
      sent.handle =
          gang.SendAsync(sent.state.data(), sent.state.size(), DataType::kFloat32, move.to);
    } else if (move.to == rank_) {
      Moves::OnItsWay& got = moves_->under_way.emplace_back(Moves::OnItsWay{move, {}, nullptr});
      got.state.resize(static_cast<size_t>(components_ * move.part.size()));
      got.handle =
          gang.RecvAsync(got.state.data(), got.state.size(), DataType::kFloat32, move.from);
    }
  }
}

Status ZeroState::TakeMoves() {
  if (!moves_) return Status::Ok();
  for (Moves::OnItsWay& one : moves_->under_way) {
    LEPTON_RETURN_IF_ERROR(one.handle->Wait(Deadline::Never()).WithContext("slices"));
    if (one.move.to == rank_) PutPart(one.move.part, one.state, moves_->pieces);
    one.handle.reset();
    one.state = {};
  }
  moves_->under_way.clear();
  return Status::Ok();
}

// A rank that has the sums of the step may have to follow the others, and needs what has come.
void ZeroState::AbandonMoves() {
  if (moves_ && !reduced_) moves_.reset();
  lack_weights_ = false;
}

// Behind the commit.
void ZeroState::AdoptMoves() {
  if (!moves_) return;
  pieces_ = std::move(moves_->pieces);
  layout_ = moves_->layout;
  moves_.reset();
}

}  // namespace lepton::worker
