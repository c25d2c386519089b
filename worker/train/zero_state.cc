#include "worker/train/zero_state.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/nn/optimizers.h"
#include "worker/train/parameter_digest.h"
#include "worker/train/zero_holders.h"

namespace lepton::worker {
namespace {

using collectives::Communicator;
using collectives::DataType;

// A rank's slice in the stripes of each number of holders (ZeroLayout::holders), and the one that
// it mirrors there: 64-bit digests, bit by bit.
constexpr size_t kDigests = 4;
constexpr size_t kDigestFloats = 2 * kDigests;

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
                     StateSource first, bool with_weights)
    : program_(program),
      first_step_(first_step),
      first_(std::move(first)),
      with_weights_(with_weights),
      per_element_(program.state_per_element()),
      components_(per_element_ + (with_weights ? 1 : 0)),
      layout_(TrainedElements(program.parameters()), 1, stripes) {}

int64_t ZeroState::held_bytes() const {
  int64_t elements = 0;
  for (const Piece& piece : pieces_) elements += per_element_ * piece.at.size();
  return elements * static_cast<int64_t>(sizeof(float));
}

int64_t ZeroState::held_weight_bytes() const {
  int64_t elements = 0;
  for (const Piece& piece : pieces_) elements += with_weights_ ? piece.at.size() : 0;
  return elements * static_cast<int64_t>(sizeof(float));
}

std::span<float> ZeroState::WeightsOf(const Elements& part) const {
  if (with_weights_) {
    const Piece* const piece = Find(part);
    return piece->component(per_element_)
        .subspan(static_cast<size_t>(part.begin - piece->at.begin),
                 static_cast<size_t>(part.size()));
  }
  return ProgramWeights(part);
}

std::span<float> ZeroState::ProgramWeights(const Elements& part) const {
  return program_.weights().subspan(static_cast<size_t>(part.begin - program_.weights_begin()),
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
  const ZeroLayout& layout = next_layout();
  int64_t most = 1;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    int64_t its = 0;
    for (const Elements& part : layout.slice(rank)) its += blocks(part);
    most = std::max(most, its);
  }
  const auto count = static_cast<size_t>(most);
  std::vector<double> mine, all(count * static_cast<size_t>(layout.ranks())), squares;
  for (const Elements& part : layout.slice(rank_)) {
    const std::vector<double> sums = nn::SquaresOfBlocks(gradient(part));
    mine.insert(mine.end(), sums.begin(), sums.end());
  }
  mine.resize(count);
  LEPTON_RETURN_IF_ERROR(gang.AllGather(mine.data(), all.data(), count, DataType::kInt64)
                             .WithContext("the gradient's norm"));
  // In the order of the elements, as one rank adds them.
  std::vector<int64_t> next(static_cast<size_t>(layout.ranks()));
  for (int stripe = 0; stripe < layout.stripes(); ++stripe) {
    for (int position = 0; position < layout.holders(stripe); ++position) {
      const int rank = layout.OwnerAt(position, stripe);
      int64_t& at = next[static_cast<size_t>(rank)];
      const int64_t end = at + blocks(layout.part(rank, stripe));
      for (; at < end; ++at) squares.push_back(all[static_cast<size_t>(most * rank + at)]);
    }
  }
  return nn::NormOfBlocks(squares) * std::abs(scale_);
}

void ZeroState::Update(uint64_t step, double norm, const GradientOf& gradient) {
  whole_ = false;
  AdoptMoves();
  for (const Piece& piece : pieces_) {
    const std::span<float> state = *piece.state;
    nn::TrainingProgram::Part part{piece.at.begin, gradient(piece.at), state};
    if (with_weights_) {
      part.state = state.first(static_cast<size_t>(per_element_ * piece.at.size()));
      part.weights = piece.component(per_element_);
    }
    program_.ApplyPart(step, scale_, norm, part);
  }
  program_.FinishParts(scale_);
  reduced_ = false;
  whole_ = !with_weights_ && HoldsEverySlice();
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

std::vector<uint64_t> ZeroState::DigestsOfSlice(bool mirrored) const {
  std::vector<uint64_t> digests(kDigests / 2);
  for (int stripe = 0; stripe < layout_.stripes(); ++stripe) {
    const int rank = mirrored ? layout_.mirrored(rank_, stripe) : rank_;
    const Elements part = layout_.part(rank, stripe);
    if (part.empty()) continue;
    uint64_t& digest = digests[stripe < layout_.stripes_over() ? 0 : 1];
    digest = digest * 0x9E3779B97F4A7C15u + DigestOf(WeightsOf(part));
  }
  return digests;
}

Result<int> ZeroState::GatherWeights(Communicator& gang) {
  if (gang.size() == 1) return -1;
  std::vector<uint64_t> digests = DigestsOfSlice(/*mirrored=*/false);
  for (const uint64_t digest : DigestsOfSlice(/*mirrored=*/true)) digests.push_back(digest);
  // Where all hold everything nobody lacks any, and with stage 3 nobody wants it.
  const bool wanted = !with_weights_ && (!layout_.everywhere() || lack_weights_);
  const int64_t largest = wanted ? layout_.largest_slice() : 0;
  for (int64_t offset = 0; offset == 0 || offset < largest; offset += kZeroChunk) {
    const size_t header = offset == 0 ? kDigestFloats : 0;
    const int64_t count = std::min(kZeroChunk, largest - offset);
    const size_t each = header + static_cast<size_t>(count);
    staging_.resize(each);
    gathered_.resize(each * static_cast<size_t>(gang.size()));
    if (header > 0) std::memcpy(staging_.data(), digests.data(), kDigests * sizeof(uint64_t));
    for (const auto& [part, at] : WithinSlice(layout_.slice(rank_), offset, count)) {
      const std::span<const float> mine = WeightsOf(part);
      std::copy(mine.begin(), mine.end(), staging_.begin() + static_cast<ptrdiff_t>(header) + at);
    }
    LEPTON_RETURN_IF_ERROR(
        gang.AllGather(staging_.data(), gathered_.data(), each, DataType::kFloat32)
            .WithContext("updated weights"));
    const auto from = [&](int rank) { return gathered_.data() + each * static_cast<size_t>(rank); };
    for (int rank = 0; rank < gang.size() && header > 0; ++rank) {
      for (const int stripe : {0, layout_.stripes() - 1}) {
        const size_t over = stripe < layout_.stripes_over() ? 0 : 1;
        const int mirror = layout_.buddy(rank, stripe);
        uint64_t owner[kDigests], buddy[kDigests];
        std::memcpy(owner, from(rank), sizeof(owner));
        std::memcpy(buddy, from(mirror), sizeof(buddy));
        if (mirror != rank && owner[over] != buddy[kDigests / 2 + over]) return rank;
      }
    }
    for (int rank = 0; rank < gang.size(); ++rank) {
      if (rank == rank_) continue;
      for (const auto& [part, at] : WithinSlice(layout_.slice(rank), offset, count)) {
        if (Find(part) != nullptr) continue;
        std::copy_n(from(rank) + header + at, part.size(), WeightsOf(part).begin());
      }
    }
  }
  whole_ = !with_weights_;
  lack_weights_ = false;
  return -1;
}

Result<ZeroState::Difference> ZeroState::FindTensor(int slice, Communicator& gang) {
  std::vector<int64_t> mine;
  std::vector<Difference> parts;
  for (const nn::ParameterView& view : program_.parameters()) {
    for (int stripe = 0; stripe < layout_.stripes(); ++stripe) {
      const Elements at = layout_.part(slice, stripe);
      const Elements part{std::max(at.begin, view.offset),
                          std::min(at.end, view.offset + view.size)};
      if (part.empty()) continue;
      parts.push_back({view.name, layout_.buddy(slice, stripe)});
      // Of the two who hold it; the others only learn the name.
      const bool held = layout_.Holds(rank_, slice, stripe);
      mine.push_back(held ? static_cast<int64_t>(DigestOf(WeightsOf(part))) : 0);
    }
  }
  std::vector<int64_t> all(mine.size() * static_cast<size_t>(gang.size()));
  LEPTON_RETURN_IF_ERROR(gang.AllGather(mine.data(), all.data(), mine.size(), DataType::kInt64)
                             .WithContext("digests of each tensor"));
  const auto of = [&](int rank, size_t i) {
    return all[mine.size() * static_cast<size_t>(rank) + i];
  };
  for (size_t i = 0; i < parts.size(); ++i) {
    if (of(slice, i) != of(parts[i].buddy, i)) return parts[i];
  }
  return Difference{"no tensor any more", layout_.buddy(slice, 0)};
}

}  // namespace lepton::worker
