#include "worker/train/zero_state.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>

#include "worker/train/zero_holders.h"

namespace lepton::worker {
namespace {

using collectives::Communicator;
using collectives::DataType;

// What a rank says of itself as ranks meet. A rank with more parts than fit says less than it has:
// so many come together only where several handovers fail one after another, each of which leaves
// what has come beside what was there (KeepBoth). If nobody else has the rest, the job starts again
// from its checkpoint.
// Of one that has the sums of a step: `parts` count before it, and `after`, which lie behind them,
// once it is applied, since stripes move in a step.
struct ZeroRecord {
  static constexpr size_t kMaxParts = 512;
  int64_t place = -1;
  int64_t took_part = 0;
  uint64_t digest = 0;
  int64_t whole = 0;
  int64_t reduced = 0;
  double norm = 0;
  int64_t first_step = 0;
  int64_t leaves = 0;
  int64_t statistics = 0;
  int64_t parts = 0, after = 0;
  Elements part[kMaxParts];

  uint64_t step() const { return static_cast<uint64_t>(place) / 2; }
  // Returns how many fit.
  int64_t Add(const Elements& at, int64_t before) {
    if (before == static_cast<int64_t>(kMaxParts)) return 0;
    part[before] = at;
    return 1;
  }
  std::vector<Elements> Held(bool follows) const {
    constexpr auto kMost = static_cast<int64_t>(kMaxParts);
    const int64_t first = std::clamp<int64_t>(parts, 0, kMost);
    const int64_t second = std::clamp<int64_t>(after, 0, kMost - first);
    return follows ? std::vector<Elements>(part + first, part + first + second)
                   : std::vector<Elements>(part, part + first);
  }
};
static_assert(std::is_trivially_copyable_v<ZeroRecord>);

}  // namespace

Result<ZeroState::Meeting> ZeroState::Meet(Communicator& gang, const Mine& mine) {
  const auto ranks = static_cast<size_t>(gang.size());
  ZeroRecord record{.place = mine.place,
                    .took_part = mine.took_part,
                    .digest = whole_ ? mine.digest : 0,
                    .whole = whole_,
                    .reduced = reduced_,
                    .norm = mine.norm,
                    .first_step = static_cast<int64_t>(first_step_),
                    .leaves = mine.leaves,
                    .statistics = statistics_};
  for (const Piece& piece : pieces_) record.parts += record.Add(piece.at, record.parts);
  for (const Piece& piece : moves_ ? moves_->pieces : pieces_) {
    if (reduced_) record.after += record.Add(piece.at, record.parts + record.after);
  }
  if (record.parts + record.after == static_cast<int64_t>(ZeroRecord::kMaxParts)) {
    LOG(WARNING) << "parallel.zero: this rank holds " << pieces_.size()
                 << " parts of the state after meetings that failed, and can tell of "
                 << ZeroRecord::kMaxParts;
  }
  std::vector<ZeroRecord> all(ranks);
  LEPTON_RETURN_IF_ERROR(
      gang.AllGather(&record, all.data(), sizeof(record), DataType::kUInt8).WithContext("places"));
  Meeting meeting;
  meeting.fresh =
      std::all_of(all.begin(), all.end(), [](const ZeroRecord& one) { return one.took_part == 0; });
  const auto begun = [&](const ZeroRecord& one) { return meeting.fresh || one.took_part != 0; };
  int64_t newest = -1;
  for (const ZeroRecord& one : all) newest = std::max(newest, begun(one) ? one.place : -1);
  if (newest < 0) return Internal("no rank has the training state");
  // What a rank drew for itself counts only where nobody has begun, or where it is the same.
  const auto model = std::find_if(all.begin(), all.end(), [&](const ZeroRecord& one) {
    return begun(one) && one.place == newest && one.whole != 0;
  });
  for (ZeroRecord& one : all) {
    const bool same =
        model != all.end() && one.place == newest && one.whole != 0 && one.digest == model->digest;
    if (!begun(one) && !same) one.place = -1;
  }
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
    meeting.statistics.push_back((there || follows) && one.statistics != 0);
    // With stage 3 what was there at first includes the weights.
    meeting.sources.push_back(static_cast<uint64_t>(one.first_step) == meeting.step &&
                              (!with_weights_ || (there && one.whole != 0)));
    meeting.digests.push_back(one.digest);
    meeting.stays.push_back(one.leaves == 0);
    meeting.held.emplace_back();
    if (!there && !follows) continue;
    if (there && one.whole != 0) meeting.whole.push_back(static_cast<int>(rank));
    meeting.held.back() = one.Held(follows);
  }
  const auto rank = static_cast<size_t>(gang.rank());
  meeting.follow =
      meeting.current[rank] && mine.place / 2 + 1 == static_cast<int64_t>(meeting.step);
  const bool state_anew = components_ == 0 || FirstOf(meeting.sources) >= 0;
  for (const Elements& part : CutAtParts({0, layout_.elements()}, meeting.held)) {
    if (part.empty() || FirstHolder(meeting.held, part) >= 0) continue;
    if (state_anew && !meeting.whole.empty()) continue;
    return Internal(fmt::format(
        "parallel.zero: elements {} to {} of the training state at step {} were held by ranks that "
        "are gone, both buddies: going on from the last checkpoint",
        part.begin, part.end, meeting.step));
  }
  if (!meeting.follow) {
    reduced_ = false;
    moves_.reset();
  }
  if (!meeting.current[rank]) {
    whole_ = statistics_ = false;
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
  if (with_weights_ && !meeting.fresh) return ShareStatistics(gang, meeting);
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
                     : statistics   ? FirstOf(meeting.statistics)
                                    : FirstHolder(meeting.held, part);
    // What it holds itself is the same, and must not be in danger if the group breaks.
    const auto& held = meeting.held[static_cast<size_t>(gang.rank())];
    const bool takes = !mine_whole && !Holds(held, part);
    for (int64_t at = part.begin; at < part.end; at += kZeroChunk) {
      const std::span<float> weights = ProgramWeights({at, std::min(at + kZeroChunk, part.end)});
      staging_.assign(weights.begin(), weights.end());
      LEPTON_RETURN_IF_ERROR(
          gang.Broadcast(staging_.data(), staging_.size(), DataType::kFloat32, from)
              .WithContext("weights"));
      if (!takes) continue;
      const std::span<float> now = ProgramWeights({at, std::min(at + kZeroChunk, part.end)});
      std::copy(staging_.begin(), staging_.end(), now.begin());
    }
  }
  whole_ = statistics_ = true;
  return lacking * static_cast<uint64_t>(all) * sizeof(float);
}

// All that a rank has beside weights and slices.
Result<uint64_t> ZeroState::ShareStatistics(Communicator& gang, const Meeting& meeting) {
  const int64_t all = nn::ElementsOf(program_.parameters());
  const auto lacking = std::count(meeting.statistics.begin(), meeting.statistics.end(), false);
  uint64_t bytes = 0;
  // Not a look at the weights without need: a joiner would make them all.
  if (lacking > 0 && layout_.elements() < all) {
    const std::span<float> mine = ProgramWeights({layout_.elements(), all});
    staging_.assign(mine.begin(), mine.end());
    LEPTON_RETURN_IF_ERROR(gang.Broadcast(staging_.data(), staging_.size(), DataType::kFloat32,
                                          FirstOf(meeting.statistics))
                               .WithContext("statistics"));
    if (!meeting.statistics[static_cast<size_t>(gang.rank())]) {
      std::copy(staging_.begin(), staging_.end(), mine.begin());
    }
    bytes = static_cast<uint64_t>(lacking) * mine.size_bytes();
  }
  statistics_ = true;
  return bytes;
}

}  // namespace lepton::worker
