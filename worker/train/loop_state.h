// What a training loop knows beside weights and optimiser state, so that another rank can go on
// from it: counts, running losses, figures, the newest checkpoint.
// Threads: a value.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "runtime/base/status.h"
#include "runtime/nn/training_program.h"
#include "worker/data/sample_count.h"

namespace lepton::worker {

struct LoopState {
  static constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();

  uint64_t step = 0;        // committed
  bool step_closed = true;  // what follows it is done: evaluation, checkpoint
  bool stopping = false;    // all ranks stop behind it
  uint64_t good_step = 0;   // of the last checkpoint
  uint64_t evaluated_step = kNever;
  nn::LossSum epoch_loss, report_loss;
  double seconds = 0;           // that the steps took
  SampleCount samples;          // that all committed steps used
  bool samples_counted = true;  // false: it goes on from a checkpoint that does not say
  double gradient_norm = 0;
  std::map<std::string, double> metrics;
  std::string last_checkpoint;
  uint64_t pending_step = 0;    // of a checkpoint that is written beside the steps; 0: none
  int64_t pending_slices = 0;   // of it, that ranks write; 0: a rank writes the manifest
  int64_t manifest_slices = 0;  // that the manifest names
  std::map<std::string, double> pending_metrics;  // the manifest's
  SampleCount pending_samples;
  nn::LossSum pending_epoch_loss;
  bool checkpoint_due = false;  // that of an earlier step was lost with a writer, or may be

  // Where a rank stands: a greater place has all that a smaller one has.
  int64_t place() const { return static_cast<int64_t>(step) * 2 + (step_closed ? 1 : 0); }

  std::string Pack() const;
  // kDataLoss when the bytes are not a packed state.
  static Result<LoopState> Unpack(const std::string& bytes);
};

}  // namespace lepton::worker
