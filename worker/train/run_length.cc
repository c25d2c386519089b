#include "worker/train/run_length.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>

namespace lepton::worker {
namespace {

Result<uint64_t> LabelNumber(const std::string& key, const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  return InvalidArgument(fmt::format("labels.{}: \"{}\" is not a whole number", key, text));
}

}  // namespace

int64_t StepsPerEpoch(const spec::JobSpec& spec, int64_t train_rows) {
  const int64_t batch = std::min(spec.batch_size, train_rows);
  return (train_rows + batch - 1) / batch;
}

uint64_t TotalSteps(const spec::JobSpec& spec, int64_t train_rows) {
  if (spec.steps > 0) return static_cast<uint64_t>(spec.steps);
  return static_cast<uint64_t>(spec.epochs * StepsPerEpoch(spec, train_rows));
}

Result<uint64_t> StopStep(const spec::JobSpec& spec, int64_t train_rows) {
  const uint64_t total = TotalSteps(spec, train_rows);
  uint64_t stop = total;
  if (const auto found = spec.labels.find("lepton.stop_at_step"); found != spec.labels.end()) {
    LEPTON_ASSIGN_OR_RETURN(const uint64_t step, LabelNumber(found->first, found->second));
    stop = std::min(stop, step);
  }
  if (const auto found = spec.labels.find("lepton.stop_at_epoch"); found != spec.labels.end()) {
    LEPTON_ASSIGN_OR_RETURN(const uint64_t epoch, LabelNumber(found->first, found->second));
    stop = std::min(stop, epoch * static_cast<uint64_t>(StepsPerEpoch(spec, train_rows)));
  }
  // Where a round ends, so that the next rung goes on with the bits of a run that did not stop.
  const auto round = static_cast<uint64_t>(std::max<int64_t>(1, spec.local_sgd.inner_steps));
  return std::min((stop + round - 1) / round * round, total);
}

}  // namespace lepton::worker
