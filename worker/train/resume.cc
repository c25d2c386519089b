#include "worker/train/resume.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "runtime/nn/divided_model.h"
#include "storage/checkpoints/checkpoint.h"

namespace lepton::worker {

namespace {

// A checkpoint's tensors, as ranks that hold everything have them (loop_slices.cc).
std::vector<std::pair<const char*, std::span<float>>> CheckpointedState(
    const TrainSession& session) {
  if (session.outer) {
    return {{"weights", session.program->weights()}, {"outer_optimizer", session.outer->state()}};
  }
  return {{"weights", session.program->weights()},
          {"optimizer", session.program->optimizer_state()}};
}

Status CheckSeed(const storage::CheckpointInfo& info, uint64_t seed) {
  if (info.seed == seed) return Status::Ok();
  return FailedPrecondition(
      fmt::format("it is of a run with seed {}, but this one's is {}", info.seed, seed));
}

Status CheckSize(std::string_view name, int64_t found, int64_t wanted) {
  if (found == wanted) return Status::Ok();
  return FailedPrecondition(
      fmt::format("it has {} values of {}, but the model has {}", found, name, wanted));
}

void GoOnFrom(const storage::CheckpointInfo& info, TrainSession& session) {
  session.first_step = info.step;
  session.first_samples.reset();
  if (info.samples) session.first_samples = SampleCount{info.samples->rows, info.samples->ids};
  session.first_epoch_loss = {};
  if (info.epoch_loss) {
    session.first_epoch_loss = {info.epoch_loss->sum, info.epoch_loss->predictions};
  }
}

Status ResumeWhole(const storage::ObjectStore& objects, const storage::Digest& digest,
                   TrainSession& session, uint64_t seed) {
  LEPTON_ASSIGN_OR_RETURN(const storage::LoadedCheckpoint checkpoint,
                          storage::ReadCheckpoint(objects, digest));
  LEPTON_RETURN_IF_ERROR(CheckSeed(checkpoint.info, seed));
  for (const auto& [name, state] : CheckpointedState(session)) {
    const auto found = checkpoint.tensors.find(name);
    const size_t size = found == checkpoint.tensors.end() ? 0 : found->second.size();
    LEPTON_RETURN_IF_ERROR(
        CheckSize(name, static_cast<int64_t>(size), static_cast<int64_t>(state.size())));
    if (size > 0) std::copy(found->second.begin(), found->second.end(), state.begin());
  }
  GoOnFrom(checkpoint.info, session);
  return Status::Ok();
}

// What a slice of the optimiser's state, `per_element` components of `trained` elements, has of a
// part.
void PutState(const storage::CheckpointSlice& slice, int64_t trained, int64_t per_element,
              const Elements& part, std::span<float> state) {
  const int64_t end = slice.begin + static_cast<int64_t>(slice.values.size());
  for (int64_t c = 0; c < per_element; ++c) {
    const int64_t from = std::max(slice.begin, c * trained + part.begin);
    const int64_t to = std::min(end, c * trained + part.end);
    if (from >= to) continue;
    std::copy(slice.values.begin() + (from - slice.begin),
              slice.values.begin() + (to - slice.begin),
              state.begin() + c * part.size() + (from - c * trained - part.begin));
  }
}

// parallel.zero: the weights now, the optimiser's state when it is known which parts are this
// rank's.
Status ResumeParts(const storage::ObjectStore& objects, const storage::Digest& digest,
                   TrainSession& session, uint64_t seed) {
  const std::span<float> weights = session.program->weights();
  const int64_t per_element = session.program->state_per_element();
  const int64_t trained = TrainedElements(session.program->parameters());
  int64_t found_weights = 0, found_state = 0;
  const auto take = [&](const storage::CheckpointSlice& slice) {
    if (slice.tensor == "optimizer") found_state = slice.size;
    if (slice.tensor != "weights") return Status::Ok();
    found_weights = slice.size;
    if (found_weights == static_cast<int64_t>(weights.size())) {
      std::copy(slice.values.begin(), slice.values.end(), weights.begin() + slice.begin);
    }
    return Status::Ok();
  };
  LEPTON_ASSIGN_OR_RETURN(const storage::CheckpointInfo info,
                          storage::ReadCheckpointSlices(objects, digest, take));
  LEPTON_RETURN_IF_ERROR(CheckSeed(info, seed));
  const auto size = static_cast<int64_t>(weights.size());
  LEPTON_RETURN_IF_ERROR(CheckSize("weights", found_weights, size));
  LEPTON_RETURN_IF_ERROR(CheckSize("optimizer", found_state, per_element * trained));
  GoOnFrom(info, session);
  session.first_state = [&objects, digest, trained, per_element](
                            std::span<const WantedState> wanted,
                            const std::function<Status()>& go_on) {
    const auto put = [&](const storage::CheckpointSlice& slice) {
      LEPTON_RETURN_IF_ERROR(go_on());
      if (slice.tensor != "optimizer") return Status::Ok();
      for (const auto& [part, state] : wanted) PutState(slice, trained, per_element, part, state);
      return Status::Ok();
    };
    return storage::ReadCheckpointSlices(objects, digest, put).status();
  };
  return Status::Ok();
}

// parallel.tensor: of each tensor the parts that are this rank's.
Status ResumeSlices(const storage::ObjectStore& objects, const storage::Digest& digest,
                    TrainSession& session, uint64_t seed) {
  nn::TrainingProgram& program = *session.program;
  const std::vector<nn::ParameterView>& mine = program.parameters();
  const std::vector<nn::ParameterView> whole = nn::WholeParameters(mine);
  const int64_t trained = TrainedElements(mine), all = TrainedElements(whole);
  const std::span<float> weights = program.weights(), state = program.optimizer_state();
  std::map<std::string, int64_t> sizes = {{"weights", 0}, {"optimizer", 0}};
  // Elements [begin, ..) of a flat buffer of the undivided model, into this rank's buffer.
  const auto put = [&](int64_t begin, std::span<const float> values, std::span<float> to) {
    for (size_t i = 0; i < mine.size(); ++i) {
      nn::TakePartOf(
          mine[i].shape, mine[i].slice, begin - whole[i].offset, values,
          to.subspan(static_cast<size_t>(mine[i].offset), static_cast<size_t>(mine[i].size)));
    }
  };
  const auto take = [&](const storage::CheckpointSlice& slice) {
    sizes[slice.tensor] = slice.size;
    if (slice.tensor == "weights") put(slice.begin, slice.values, weights);
    if (slice.tensor != "optimizer") return Status::Ok();
    for (int64_t c = 0; c < program.state_per_element(); ++c) {
      put(slice.begin - c * all, slice.values,
          state.subspan(static_cast<size_t>(c * trained), static_cast<size_t>(trained)));
    }
    return Status::Ok();
  };
  LEPTON_ASSIGN_OR_RETURN(const storage::CheckpointInfo info,
                          storage::ReadCheckpointSlices(objects, digest, take));
  LEPTON_RETURN_IF_ERROR(CheckSeed(info, seed));
  LEPTON_RETURN_IF_ERROR(CheckSize("weights", sizes["weights"], nn::ElementsOf(whole)));
  LEPTON_RETURN_IF_ERROR(
      CheckSize("optimizer", sizes["optimizer"], program.state_per_element() * all));
  GoOnFrom(info, session);
  return Status::Ok();
}

}  // namespace

Status Resume(const storage::ObjectStore& objects, const storage::Digest& digest,
              const spec::JobSpec& spec, TrainSession& session) {
  const auto resume = spec.parallel.zero > 0     ? &ResumeParts
                      : spec.parallel.tensor > 1 ? &ResumeSlices
                                                 : &ResumeWhole;
  return resume(objects, digest, session, spec.seed);
}

}  // namespace lepton::worker
