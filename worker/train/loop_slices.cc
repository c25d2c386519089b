#include <algorithm>
#include <utility>

#include "runtime/nn/divided_model.h"
#include "worker/train/train_loop_impl.h"

namespace lepton::worker {
namespace {

storage::CheckpointSlice CutOf(const char* name, std::span<const float> array, int number,
                               int count) {
  const auto size = static_cast<int64_t>(array.size());
  const int64_t begin = size * number / count, end = size * (number + 1) / count;
  return {name, begin, size,
          array.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin))};
}

}  // namespace

// How many ranks write: all, where each has a part of the state alone, and of a state that all have
// as many as it is worth.
int TrainLoop::Impl::SliceCount() {
  const int ranks = all_ranks().size();
  if (zero_ || tensor_) return ranks;
  int64_t bytes = 0;
  for (const std::span<float> array : SharedState()) {
    bytes += static_cast<int64_t>(array.size_bytes());
  }
  return static_cast<int>(std::clamp<int64_t>(bytes / run_.slice_bytes, 1, ranks));
}

// Collective with parallel.tensor. Valid until the state changes.
Result<TrainLoop::Impl::StateSlices> TrainLoop::Impl::SlicesOf(int number, int count) {
  if (tensor_) return UndividedShare(number, count);
  StateSlices mine;
  if (number >= count) return mine;
  if (!zero_) {
    mine.slices = ShareOfArrays(number, count);
    return mine;
  }
  mine.slices = SlicesOfParts(zero_->OwnSlice());
  const std::span<const float> weights = run_.program.weights();
  if (!zero_weights_) {
    mine.slices.push_back(CutOf("weights", weights, number, count));
  } else if (number == 0) {  // stage 3: the statistics
    mine.slices.push_back({"weights", run_.program.weights_begin(),
                           nn::ElementsOf(run_.program.parameters()), weights});
  }
  return mine;
}

TrainObserver::Slices TrainLoop::Impl::ShareOfArrays(int number, int count) {
  const std::vector<std::span<float>> arrays = SharedState();
  return {CutOf("weights", arrays[0], number, count),
          CutOf(rounds_ ? "outer_optimizer" : "optimizer", arrays[1], number, count)};
}

TrainObserver::Slices TrainLoop::Impl::SlicesOfParts(
    const std::vector<ZeroState::StatePart>& parts) {
  const std::vector<nn::ParameterView> whole = nn::WholeParameters(run_.program.parameters());
  const int64_t trained = TrainedElements(whole), all = nn::ElementsOf(whole);
  const auto components = static_cast<size_t>(run_.program.state_per_element());
  TrainObserver::Slices slices;
  for (const ZeroState::StatePart& part : parts) {
    for (size_t c = 0; c < components; ++c) {
      slices.push_back({"optimizer", static_cast<int64_t>(c) * trained + part.at.begin,
                        static_cast<int64_t>(components) * trained, part.components[c]});
    }
    if (part.components.size() > components) {
      slices.push_back({"weights", part.at.begin, all, part.components.back()});
    }
  }
  return slices;
}

// Of a divided model: tensors as the undivided one has them, each to the rank in whose share of all
// elements its middle is.
Result<TrainLoop::Impl::StateSlices> TrainLoop::Impl::UndividedShare(int number, int count) {
  const std::vector<nn::ParameterView> whole = nn::WholeParameters(run_.program.parameters());
  const int64_t all = nn::ElementsOf(whole), trained = TrainedElements(whole);
  const auto components = static_cast<int64_t>(run_.program.state_per_element());
  StateSlices mine;
  for (size_t i = 0; i < whole.size(); ++i) {
    LEPTON_ASSIGN_OR_RETURN(std::vector<std::vector<float>> state,
                            tensor_->Undivided(run_.program, i));
    if ((whole[i].offset + whole[i].size / 2) * count / all != number) continue;
    for (int64_t c = 0; c < components; ++c) {
      mine.slices.push_back({"optimizer", c * trained + whole[i].offset, components * trained,
                             state[static_cast<size_t>(c)]});
    }
    mine.slices.push_back({"weights", whole[i].offset, all, state.back()});
    for (std::vector<float>& values : state) mine.kept.push_back(std::move(values));
  }
  return mine;
}

// Of a rank that holds everything.
TrainObserver::Slices TrainLoop::Impl::AllSlices() {
  if (!zero_) return ShareOfArrays(0, 1);
  TrainObserver::Slices slices = SlicesOfParts(zero_->AllHeld());
  slices.push_back({"weights", run_.program.weights_begin(),
                    nn::ElementsOf(run_.program.parameters()), run_.program.weights()});
  return slices;
}

}  // namespace lepton::worker
