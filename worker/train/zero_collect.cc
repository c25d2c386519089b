#include "worker/train/zero_state.h"

namespace lepton::worker {
namespace {

using collectives::Communicator;
using collectives::DataType;

}  // namespace

Status ZeroState::Collect(Communicator& gang, const TakeState& take) {
  if (components_ == 0) return Status::Ok();
  Status taken;
  for (int slice = 0; slice < gang.size(); ++slice) {
    std::vector<StatePart> parts;
    for (const Elements& at : layout_.slice(slice)) {
      std::vector<float> state;
      if (gang.rank() == slice || (gang.rank() == 0 && layout_.Holds(0, slice))) {
        state = PartOf(at);
      } else if (gang.rank() == 0) {
        state.resize(static_cast<size_t>(components_ * at.size()));
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
  if (components_ == 0) return Status::Ok();
  for (const Piece& piece : pieces_) {
    LEPTON_RETURN_IF_ERROR(take({{piece.at, *piece.state}}));
  }
  return Status::Ok();
}

}  // namespace lepton::worker
