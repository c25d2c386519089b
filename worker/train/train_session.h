// What every training task does before and after its loop: inputs become data and a program, the
// end becomes metrics and a stored model.
// Threads: the task's main thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "runtime/base/status.h"
#include "runtime/base/work_queue.h"
#include "runtime/nn/training_program.h"
#include "storage/checkpoints/checkpoint.h"
#include "worker/data/prepared_data.h"
#include "worker/device.h"
#include "worker/task_context.h"
#include "worker/train/local_rounds.h"
#include "worker/train/model_files.h"
#include "worker/train/train_faults.h"
#include "worker/train/train_loop.h"

namespace lepton::worker {

// A task's tools for preparing data: the derived files of its object store, progress as reports.
class TaskData {
 public:
  explicit TaskData(TaskContext& context);
  const DataTools& tools() const { return tools_; }

 private:
  DerivedFiles derived_;
  MonotonicTime reported_{};
  DataTools tools_;
};

struct TrainSession {
  StoredDataset dataset;
  PreparedData data;
  spec::ModelSpec model;  // with all its sizes
  // Further objects of the model, as in its manifest: the graph of one that came as ONNX.
  std::map<std::string, storage::Digest> files;
  std::unique_ptr<kernels::DeviceBackend> device;  // what the program runs on; null: the host
  std::unique_ptr<nn::TrainingProgram> program;
  std::unique_ptr<nn::OuterOptimizer> outer;                 // local_sgd; else null
  uint64_t first_step = 0;                                   // > 0 when resumed
  std::optional<SampleCount> first_samples = SampleCount{};  // as of TrainRun
  nn::LossSum first_epoch_loss;
  StateSource first_state;   // parallel.zero, when resumed: of any part
  uint64_t stop_step = 0;    // of this task
  uint64_t total_steps = 0;  // of the whole run: the schedule's length
};

// Reads the dataset, builds the spec's program (a distillation's if the spec is one) and gives it
// its first weights: those of start().resume_checkpoint(), else of start().model_manifest(), else
// drawn from the seed. A spec that says nothing of its model but where to start from has that
// model's architecture. With a teacher, features (by name), normalisation, sizes and classes (by
// label) are the teacher's, so that both see the same numbers; the data must have the same features
// and classes. Errors name the input and what is wrong with it.
Result<TrainSession> OpenSession(TaskContext& context, const StoredModel* teacher = nullptr);

// A program of the spec for the session's data; `distill` as of spec.distill, `rank` of the gang.
Result<std::unique_ptr<nn::TrainingProgram>> BuildProgram(const spec::JobSpec& spec,
                                                          const TrainSession& session, bool distill,
                                                          int rank = 0);

// Evaluates on the test part (collective), then on rank 0 stores the model and sets the task's
// result. `metrics` are added to the outcome's. The weights are those of the last step.
// `tensor` of parallel.tensor.
Status FinishSession(TaskContext& context, const TrainSession& session, const TrainOutcome& outcome,
                     const Metrics& metrics, collectives::Communicator& gang,
                     TensorGang* tensor = nullptr);

// What the task's end then says.
void ReportDivergence(TaskContext& context, const Divergence& found);

// The loop's effects as the task's reports and checkpoints.
class TaskObserver final : public TrainObserver {
 public:
  TaskObserver(TaskContext& context, const TrainSession& session)
      : context_(context), session_(session), faults_(TrainFaults::FromEnvironment()) {}
  bool StopRequested() override { return context_.stop_requested(); }
  Status Computed(uint64_t step, nn::TrainingProgram& program) override {
    return faults_.Computed(step, program);
  }
  void Reduced() override { faults_.Reduced(); }
  void StateArrives() override { faults_.StateArrives(); }
  void Committed(uint64_t step) override { faults_.Committed(step, *session_.program); }
  void Diverged(const Divergence& found) override;
  void Progress(const TrainProgress& progress) override;
  CheckpointDone BeginSlice(uint64_t step, int number, const Slices& slices) override;
  CheckpointDone BeginManifest(const CheckpointPoint& point,
                               const std::vector<storage::Digest>& slices) override;
  CheckpointDone BeginCheckpoint(const CheckpointPoint& point, const Slices& slices) override;

 private:
  storage::CheckpointInfo InfoOf(const CheckpointPoint& point) const;
  // Copies, and puts the object into the store beside the steps; `then` gets its digest there.
  using Then = std::function<Result<storage::Digest>(storage::Digest object)>;
  CheckpointDone BeginObject(const storage::CheckpointInfo& info, int number, const Slices& slices,
                             Then then);
  // Beside the steps too.
  Result<storage::Digest> WriteManifest(storage::CheckpointInfo info,
                                        std::vector<storage::Digest> slices, bool of_others);

  TaskContext& context_;
  const TrainSession& session_;
  TrainFaults faults_;
  std::atomic<bool> diverged_{false};  // what this rank holds is not to be told
  WorkQueue writer_{"checkpoint", 1};  // last: what it runs uses all of the above
};

}  // namespace lepton::worker
