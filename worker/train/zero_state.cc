#include "worker/train/zero_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/nn/optimizers.h"
#include "worker/train/parameter_digest.h"

namespace lepton::worker {
namespace {

using collectives::Communicator;
using collectives::DataType;

// Elements that travel at once: the staging buffers' size.
constexpr int64_t kZeroChunk = int64_t{1} << 18;
constexpr size_t kDigestPairFloats = 4;  // two 64-bit digests, bit by bit

// What a rank says of itself as ranks meet. A rank with more parts than fit says less than it has.
struct ZeroRecord {
  static constexpr size_t kMaxParts = 512;
  int64_t place = -1;
  int64_t took_part = 0;
  uint64_t digest = 0;
  int64_t whole = 0;
  int64_t reduced = 0;
  double norm = 0;
  int64_t first_step = 0;
  int64_t parts = 0;
  Elements part[kMaxParts];

  uint64_t step() const { return static_cast<uint64_t>(place) / 2; }
};
static_assert(std::is_trivially_copyable_v<ZeroRecord>);

bool Holds(const std::vector<Elements>& held, const Elements& part) {
  return std::any_of(held.begin(), held.end(), [&](const Elements& one) { return one.Has(part); });
}

// `range`, cut wherever some rank's part begins or ends.
std::vector<Elements> CutAtParts(const Elements& range,
                                 const std::vector<std::vector<Elements>>& held) {
  std::vector<int64_t> cuts = {range.begin, range.end};
  for (const auto& parts : held) {
    for (const Elements& part : parts) {
      for (const int64_t cut : {part.begin, part.end}) {
        if (range.begin < cut && cut < range.end) cuts.push_back(cut);
      }
    }
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<Elements> pieces;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) pieces.push_back({cuts[i], cuts[i + 1]});
  return pieces;
}

// -1: nobody.
int FirstHolder(const std::vector<std::vector<Elements>>& held, const Elements& part) {
  for (size_t rank = 0; rank < held.size(); ++rank) {
    if (Holds(held[rank], part)) return static_cast<int>(rank);
  }
  return -1;
}

int FirstOf(const std::vector<bool>& ranks) {
  const auto found = std::find(ranks.begin(), ranks.end(), true);
  return found == ranks.end() ? -1 : static_cast<int>(found - ranks.begin());
}

// The parts of elements [offset, offset + count) of a slice, and where each is among them.
std::vector<std::pair<Elements, int64_t>> WithinSlice(const std::vector<Elements>& slice,
                                                      int64_t offset, int64_t count) {
  std::vector<std::pair<Elements, int64_t>> parts;
  int64_t at = -offset;  // where the part begins
  for (const Elements& part : slice) {
    const int64_t from = std::max<int64_t>(at, 0), to = std::min(at + part.size(), count);
    if (from < to) parts.push_back({{part.begin + (from - at), part.begin + (to - at)}, from});
    at += part.size();
  }
  return parts;
}

}  // namespace

ZeroState::ZeroState(nn::TrainingProgram& program, int stripes, uint64_t first_step,
                     StateSource first)
    : program_(program),
      first_step_(first_step),
      first_(std::move(first)),
      per_element_(program.state_per_element()),
      layout_(TrainedElements(program.parameters()), 1, stripes) {}

int64_t ZeroState::held_bytes() const {
  int64_t elements = 0;
  for (const Piece& piece : pieces_) elements += static_cast<int64_t>(piece.state->size());
  return elements * static_cast<int64_t>(sizeof(float));
}

std::span<float> ZeroState::WeightsOf(const Elements& part) const {
  return program_.weights().subspan(static_cast<size_t>(part.begin),
                                    static_cast<size_t>(part.size()));
}

void ZeroState::Reduced(double scale) {
  reduced_ = true;
  scale_ = scale;
}

Result<double> ZeroState::AgreeOnNorm(Communicator& gang, const GradientOf& gradient) {
  const auto blocks = [](const Elements& part) {
    return (part.size() + nn::kNormBlock - 1) / nn::kNormBlock;
  };
  int64_t most = 1;
  for (int rank = 0; rank < layout_.ranks(); ++rank) {
    int64_t its = 0;
    for (const Elements& part : layout_.slice(rank)) its += blocks(part);
    most = std::max(most, its);
  }
  const auto count = static_cast<size_t>(most);
  std::vector<double> mine, all(count * static_cast<size_t>(layout_.ranks())), squares;
  for (const Elements& part : layout_.slice(rank_)) {
    const std::vector<double> sums = nn::SquaresOfBlocks(gradient(part));
    mine.insert(mine.end(), sums.begin(), sums.end());
  }
  mine.resize(count);
  LEPTON_RETURN_IF_ERROR(gang.AllGather(mine.data(), all.data(), count, DataType::kInt64)
                             .WithContext("the gradient's norm"));
  // In the order of the elements, as one rank adds them.
  std::vector<int64_t> next(static_cast<size_t>(layout_.ranks()));
  for (int stripe = 0; stripe < layout_.stripes(); ++stripe) {
    for (int position = 0; position < layout_.ranks(); ++position) {
      const int rank = layout_.OwnerAt(position, stripe);
      int64_t& at = next[static_cast<size_t>(rank)];
      const int64_t end = at + blocks(layout_.part(rank, stripe));
      for (; at < end; ++at) squares.push_back(all[static_cast<size_t>(most * rank + at)]);
    }
  }
  return nn::NormOfBlocks(squares) * std::abs(scale_);
}

void ZeroState::Update(uint64_t step, double norm, const GradientOf& gradient) {
  whole_ = false;
  for (const Piece& piece : pieces_) {
    program_.ApplyPart(step, scale_, norm, {piece.at.begin, gradient(piece.at), *piece.state});
  }
  program_.FinishParts(scale_);
  reduced_ = false;
  whole_ = HoldsEverySlice();
}

bool ZeroState::HoldsEverySlice() const {
  std::vector<Elements> parts;
  for (const Piece& piece : pieces_) parts.push_back(piece.at);
  const std::vector<std::vector<Elements>> held = {parts};
  for (const Elements& part : CutAtParts({0, layout_.elements()}, held)) {
    if (!part.empty() && FirstHolder(held, part) < 0) return false;
  }
  return true;
}

uint64_t ZeroState::DigestOfSlice(int rank) const {
  uint64_t digest = 0;
  for (const Elements& part : layout_.slice(rank)) {
    digest = digest * 0x9E3779B97F4A7C15u + DigestOf(WeightsOf(part));
  }
  return digest;
}

Result<int> ZeroState::GatherWeights(Communicator& gang) {
  if (gang.size() == 1) return -1;
  const uint64_t digests[] = {DigestOfSlice(rank_), DigestOfSlice(MirroredBy(rank_, gang.size()))};
  // Two ranks hold everything.
  const int64_t largest = gang.size() == 2 ? 0 : layout_.largest_slice();
  for (int64_t offset = 0; offset == 0 || offset < largest; offset += kZeroChunk) {
    const size_t header = offset == 0 ? kDigestPairFloats : 0;
    const int64_t count = std::min(kZeroChunk, largest - offset);
    const size_t each = header + static_cast<size_t>(count);
    staging_.resize(each);
    gathered_.resize(each * static_cast<size_t>(gang.size()));
    if (header > 0) std::memcpy(staging_.data(), digests, sizeof(digests));
    for (const auto& [part, at] : WithinSlice(layout_.slice(rank_), offset, count)) {
      const std::span<const float> mine = WeightsOf(part);
      std::copy(mine.begin(), mine.end(), staging_.begin() + static_cast<ptrdiff_t>(header) + at);
    }
    LEPTON_RETURN_IF_ERROR(
        gang.AllGather(staging_.data(), gathered_.data(), each, DataType::kFloat32)
            .WithContext("updated weights"));
    const auto from = [&](int rank) { return gathered_.data() + each * static_cast<size_t>(rank); };
    for (int rank = 0; rank < gang.size() && header > 0; ++rank) {
      uint64_t owner[2], buddy[2];
      std::memcpy(owner, from(rank), sizeof(owner));
      std::memcpy(buddy, from(BuddyOf(rank, gang.size())), sizeof(buddy));
      if (owner[0] != buddy[1]) return rank;
    }
    for (int rank = 0; rank < gang.size(); ++rank) {
      if (layout_.Holds(rank_, rank)) continue;
      for (const auto& [part, at] : WithinSlice(layout_.slice(rank), offset, count)) {
        std::copy_n(from(rank) + header + at, part.size(), WeightsOf(part).begin());
      }
    }
  }
  whole_ = true;
  return -1;
}

Result<std::string> ZeroState::FindTensor(int slice, Communicator& gang) {
  std::vector<int64_t> mine;
  std::vector<std::string> names;
  for (const nn::ParameterView& view : program_.parameters()) {
    for (const Elements& at : layout_.slice(slice)) {
      const Elements part{std::max(at.begin, view.offset),
                          std::min(at.end, view.offset + view.size)};
      if (part.empty()) continue;
      names.push_back(view.name);
      mine.push_back(static_cast<int64_t>(DigestOf(WeightsOf(part))));
    }
  }
  std::vector<int64_t> all(mine.size() * static_cast<size_t>(gang.size()));
  LEPTON_RETURN_IF_ERROR(gang.AllGather(mine.data(), all.data(), mine.size(), DataType::kInt64)
                             .WithContext("digests of each tensor"));
  const auto of = [&](int rank, size_t i) {
    return all[mine.size() * static_cast<size_t>(rank) + i];
  };
  for (size_t i = 0; i < names.size(); ++i) {
    if (of(slice, i) != of(BuddyOf(slice, gang.size()), i)) return names[i];
  }
  return std::string("no tensor any more");
}

Result<ZeroState::Meeting> ZeroState::Meet(Communicator& gang, const Mine& mine) {
  const auto ranks = static_cast<size_t>(gang.size());
  ZeroRecord record{.place = mine.place,
                    .took_part = mine.took_part,
                    .digest = whole_ ? mine.digest : 0,
                    .whole = whole_,
                    .reduced = reduced_,
                    .norm = mine.norm,
                    .first_step = static_cast<int64_t>(first_step_)};
  for (const Piece& piece : pieces_) {
    if (record.parts < static_cast<int64_t>(ZeroRecord::kMaxParts)) {
      record.part[record.parts++] = piece.at;
    }
  }
  std::vector<ZeroRecord> all(ranks);
  LEPTON_RETURN_IF_ERROR(
      gang.AllGather(&record, all.data(), sizeof(record), DataType::kUInt8).WithContext("places"));
  Meeting meeting;
  meeting.fresh =
      std::all_of(all.begin(), all.end(), [](const ZeroRecord& one) { return one.took_part == 0; });
  // What a rank drew for itself counts only where nobody has begun.
  int64_t newest = -1;
  for (ZeroRecord& one : all) {
    if (!meeting.fresh && one.took_part == 0) one.place = -1;
    newest = std::max(newest, one.place);
  }
  if (newest < 0) return Internal("no rank has the training state");
  meeting.step = static_cast<uint64_t>(newest) / 2;
  meeting.source = -1;
  for (size_t rank = 0; rank < ranks; ++rank) {
    const ZeroRecord& one = all[rank];
    const bool there = one.place >= 0 && one.step() == meeting.step;
    const bool follows = one.place >= 0 && one.step() + 1 == meeting.step && one.reduced != 0;
    if (there) meeting.norm = one.norm;
    if (there && one.place == newest && meeting.source < 0) {
      meeting.source = static_cast<int>(rank);
    }
    const int64_t place = follows ? 2 * static_cast<int64_t>(meeting.step) : one.place;
    meeting.behind += place != newest;
    meeting.current.push_back(there || follows);
    meeting.sources.push_back(static_cast<uint64_t>(one.first_step) == meeting.step);
    meeting.digests.push_back(one.digest);
    meeting.held.emplace_back();
    if (!there && !follows) continue;
    if (there && one.whole != 0) meeting.whole.push_back(static_cast<int>(rank));
    const auto parts = static_cast<size_t>(
        std::clamp<int64_t>(one.parts, 0, static_cast<int64_t>(ZeroRecord::kMaxParts)));
    meeting.held.back().assign(one.part, one.part + parts);
  }
  const auto rank = static_cast<size_t>(gang.rank());
  meeting.follow =
      meeting.current[rank] && mine.place / 2 + 1 == static_cast<int64_t>(meeting.step);
  const bool state_anew = per_element_ == 0 || FirstOf(meeting.sources) >= 0;
  for (const Elements& part : CutAtParts({0, layout_.elements()}, meeting.held)) {
    if (part.empty() || FirstHolder(meeting.held, part) >= 0) continue;
    if (state_anew && !meeting.whole.empty()) continue;
    return Internal(fmt::format(
        "parallel.zero: elements {} to {} of the training state at step {} were held by ranks that "
        "are gone, both buddies: going on from the last checkpoint",
        part.begin, part.end, meeting.step));
  }
  if (!meeting.follow) reduced_ = false;
  if (!meeting.current[rank]) {
    whole_ = false;
    pieces_.clear();
  }
  return meeting;
}

Result<uint64_t> ZeroState::ShareWeights(Communicator& gang, const Meeting& meeting) {
  std::vector<int> whole = meeting.whole;
  // At the start hosts may differ in how they round while drawing the initial weights.
  if (meeting.fresh) {
    const auto differs = [&](int rank) {
      return meeting.digests[static_cast<size_t>(rank)] !=
             meeting.digests[static_cast<size_t>(whole[0])];
    };
    if (std::any_of(whole.begin(), whole.end(), differs)) whole.resize(1);
  }
  const auto lacking = static_cast<uint64_t>(gang.size()) - whole.size();
  if (lacking == 0) return 0;
  const bool mine_whole = std::find(whole.begin(), whole.end(), gang.rank()) != whole.end();
  whole_ = whole_ && mine_whole;
  const auto all = static_cast<int64_t>(program_.weights().size());
  std::vector<Elements> parts;
  if (whole.empty()) parts = CutAtParts({0, layout_.elements()}, meeting.held);
  // Statistics are every rank's.
  parts.push_back({whole.empty() ? layout_.elements() : 0, all});
  for (const Elements& part : parts) {
    const bool statistics = part.begin >= layout_.elements();
    const int from = !whole.empty() ? whole[0]
                     : statistics   ? FirstOf(meeting.current)
                                    : FirstHolder(meeting.held, part);
    // What it holds itself is the same, and must not be in danger if the group breaks.
    const auto& held = meeting.held[static_cast<size_t>(gang.rank())];
    const bool takes = !mine_whole && !Holds(held, part);
    for (int64_t at = part.begin; at < part.end; at += kZeroChunk) {
      const std::span<float> weights = WeightsOf({at, std::min(at + kZeroChunk, part.end)});
      staging_.assign(weights.begin(), weights.end());
      LEPTON_RETURN_IF_ERROR(
          gang.Broadcast(staging_.data(), staging_.size(), DataType::kFloat32, from)
              .WithContext("weights"));
      if (!takes) continue;
      const std::span<float> now = WeightsOf({at, std::min(at + kZeroChunk, part.end)});
      std::copy(staging_.begin(), staging_.end(), now.begin());
    }
  }
  whole_ = true;
  return lacking * static_cast<uint64_t>(all) * sizeof(float);
}

// Equal on all ranks, in an order that all keep, so that no two wait for each other in vain.
std::vector<ZeroState::Move> ZeroState::MovesOf(const Meeting& meeting,
                                                const std::vector<std::vector<Elements>>& wanted) {
  std::vector<Move> moves;
  for (size_t to = 0; to < wanted.size(); ++to) {
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
  }
  return moves;
}

const ZeroState::Piece* ZeroState::Find(const Elements& part) const {
  for (const Piece& piece : pieces_) {
    if (piece.at.Has(part)) return &piece;
  }
  return nullptr;
}

std::vector<float> ZeroState::PartOf(const Elements& part) const {
  const Piece* const piece = Find(part);
  std::vector<float> state;
  for (int c = 0; c < per_element_; ++c) {
    const auto from = piece->component(c).begin() + (part.begin - piece->at.begin);
    state.insert(state.end(), from, from + part.size());
  }
  return state;
}

void ZeroState::PutPart(const Elements& part, std::span<const float> state,
                        std::vector<Piece>& to) const {
  for (const Piece& piece : to) {
    if (!piece.at.Has(part)) continue;
    for (int c = 0; c < per_element_; ++c) {
      std::copy_n(state.begin() + c * part.size(), part.size(),
                  piece.component(c).begin() + (part.begin - piece.at.begin));
    }
    return;
  }
}

Status ZeroState::Load(const Elements& part, std::span<float> state) const {
  if (first_) return first_(part, state).WithContext("the optimizer's state");
  std::fill(state.begin(), state.end(), 0.0f);
  return Status::Ok();
}

Status ZeroState::Run(Communicator& gang, const Move& move, std::vector<Piece>& to) {
  const int rank = gang.rank();
  if (move.from != rank && move.to != rank) return Status::Ok();
  const auto is_there = [&](const Piece& piece) { return piece.state == Find(move.part)->state; };
  const bool kept =
      move.from == move.to && !move.anew && std::any_of(to.begin(), to.end(), is_there);
  if (kept) return Status::Ok();
  std::vector<float> state(static_cast<size_t>(per_element_ * move.part.size()));
  if (move.from == rank && move.anew) LEPTON_RETURN_IF_ERROR(Load(move.part, state));
  if (move.from == rank && !move.anew) state = PartOf(move.part);
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

Status ZeroState::Recut(Communicator& gang, const Meeting& meeting,
                        const std::vector<std::vector<Elements>>& wanted, uint64_t* moved) {
  std::vector<Piece> made;
  for (const Elements& part : wanted[static_cast<size_t>(gang.rank())]) {
    const Piece* const old = Find(part);
    if (old != nullptr && old->at == part) {
      made.push_back(*old);  // the same numbers, not a copy
    } else {
      made.push_back({part, std::make_shared<std::vector<float>>(
                                static_cast<size_t>(per_element_ * part.size()))});
    }
  }
  for (const Move& move : per_element_ > 0 ? MovesOf(meeting, wanted) : std::vector<Move>()) {
    if (move.from != move.to) {
      *moved += static_cast<uint64_t>(per_element_ * move.part.size()) * sizeof(float);
    }
    LEPTON_RETURN_IF_ERROR(Run(gang, move, made).WithContext("slices"));
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

// Some rank may have passed where this one failed. No element twice: an update in place must not
// meet one again.
void ZeroState::KeepBoth(const std::vector<Piece>& more) {
  std::vector<std::vector<Elements>> held(1);
  for (const Piece& piece : pieces_) held[0].push_back(piece.at);
  for (const Piece& piece : more) {
    for (const Elements& part : CutAtParts(piece.at, held)) {
      if (Holds(held[0], part)) continue;
      std::vector<float> state;
      for (int c = 0; c < per_element_; ++c) {
        const auto from = piece.component(c).begin() + (part.begin - piece.at.begin);
        state.insert(state.end(), from, from + part.size());
      }
      pieces_.push_back({part, std::make_shared<std::vector<float>>(std::move(state))});
    }
  }
}

Result<uint64_t> ZeroState::ShareState(Communicator& gang, const Meeting& meeting) {
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
  const auto staying = static_cast<int>(std::count(stays.begin(), stays.end(), true));
  if (staying == 0 || staying == gang.size()) return Status::Ok();
  Meeting meeting;
  const ZeroLayout next(layout_.elements(), staying, layout_.stripes());
  std::vector<std::vector<Elements>> wanted;
  int place = 0;
  for (int rank = 0; rank < gang.size(); ++rank) {
    meeting.held.push_back(layout_.HeldBy(rank));
    meeting.sources.push_back(false);
    const bool stay = stays[static_cast<size_t>(rank)];
    wanted.push_back(stay ? next.HeldBy(place++) : std::vector<Elements>());
  }
  uint64_t moved = 0;
  return Recut(gang, meeting, wanted, &moved);
}

Status ZeroState::Collect(Communicator& gang, const TakeState& take) {
  if (per_element_ == 0) return Status::Ok();
  Status taken;
  for (int slice = 0; slice < gang.size(); ++slice) {
    std::vector<StatePart> parts;
    for (const Elements& at : layout_.slice(slice)) {
      std::vector<float> state;
      if (gang.rank() == slice || (gang.rank() == 0 && layout_.Holds(0, slice))) {
        state = PartOf(at);
      } else if (gang.rank() == 0) {
        state.resize(static_cast<size_t>(per_element_ * at.size()));
        LEPTON_RETURN_IF_ERROR(gang.Recv(state.data(), state.size(), DataType::kFloat32, slice));
      }
      if (gang.rank() == slice && !layout_.Holds(0, slice)) {
        LEPTON_RETURN_IF_ERROR(gang.Send(state.data(), state.size(), DataType::kFloat32, 0));
      }
      if (gang.rank() == 0) parts.push_back({at, std::move(state)});
    }
    if (gang.rank() == 0 && taken.ok() && !parts.empty()) taken = take(parts);
  }
  return taken;
}

Status ZeroState::CollectAlone(const TakeState& take) const {
  if (per_element_ == 0) return Status::Ok();
  for (const Piece& piece : pieces_) {
    LEPTON_RETURN_IF_ERROR(take({{piece.at, *piece.state}}));
  }
  return Status::Ok();
}

}  // namespace lepton::worker
