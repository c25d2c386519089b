// The forward pass without dropout, shared by serving and by training's evaluation. A row gives the
// same bits in any batch (a text: in any batch of texts padded to its length), because every kernel
// computes a row by itself (docs/decisions/products.md). A batch runs in blocks of a few sizes
// (row_blocks.h), so that there are few plans and their memory is bounded.
// Ownership: borrows the weights it is bound to. Threads: one caller.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/graph/executor.h"
#include "runtime/nn/device_floats.h"
#include "runtime/nn/head_pieces.h"
#include "runtime/nn/model_builder.h"
#include "runtime/nn/plan_weights.h"
#include "runtime/nn/weight_visits.h"
#include "runtime/tensor/buffer.h"

namespace lepton::nn {

class ForwardProgram {
 public:
  // kInvalidArgument for a model that cannot be built. `arena`, on the host, is another program's
  // that never runs at the same time; null: it has its own.
  static Result<std::unique_ptr<ForwardProgram>> Build(
      const Signature& signature, const spec::ModelSpec& model, const std::string& precision,
      kernels::DeviceBackend* backend = nullptr, bool transient_packs = false,
      TensorPlace tensor = {}, std::shared_ptr<graph::Arena> arena = {});

  const std::vector<ModelBuilder::Declared>& parameters() const { return builder_.parameters(); }
  int64_t parameter_elements() const { return builder_.parameter_elements(); }

  // As parameters(), in the host's memory. A device gets its copy of each prepared version.
  void Bind(std::shared_ptr<StoredWeights> weights);
  // One flat buffer, on the host or where the program runs, that outlives the program and keeps its
  // place.
  void Bind(std::span<const float> weights) { Bind(FlatWeights(weights.data())); }
  void BindInPlace(const float* weights);
  // On the host, with transient packs: from here on each pass asks `visits` for what it reads, and
  // `statistic` for where the parameters are that do not visit. Both outlive the program.
  void Visit(WeightVisits* visits, std::function<const float*(size_t)> statistic);
  // Where the times of passes on the host go; outlives the program.
  void Profile(graph::Profile* profile) { run_state_.profile = profile; }
  // How a divided model's ranks talk; outlives the program, or its use.
  void JoinTensorGroup(graph::TensorGroup* group) { run_state_.tensor = group; }
  // As a pass of Forward, but nothing is computed.
  Status PassThrough();
  // `version` names the weights' state, is not 0, and another one after they changed or were bound.
  void Prepare(uint64_t version) { version_ = version; }
  // kInvalidArgument when the sizes do not fit the batch; else errors of the tensor group. Bind and
  // Prepare come first.
  Status Forward(const Batch& batch, std::span<float> logits);
  // The same bits, where need be in pieces (TrainingProgram::ForwardPieces).
  Status ForwardPieces(const Batch& batch, const TakeLogits& take);
  // For a program of the same weights that never runs at the same time (graph_decoding.h): what is
  // bound, which state of it is prepared, and what can be shared.
  const std::shared_ptr<StoredWeights>& bound() const { return bound_; }
  uint64_t version() const { return version_; }
  graph::Executor& executor() { return executor_; }
  // Of packed copies of the weights.
  size_t pack_bytes() const { return executor_.pack_bytes(); }
  // What its plans keep, beside the arena.
  size_t plan_bytes() const { return executor_.plan_bytes(); }

 private:
  ForwardProgram(const Signature& signature, const std::string& precision,
                 kernels::DeviceBackend* backend, bool transient_packs, TensorPlace tensor,
                 std::shared_ptr<graph::Arena> arena);
  void Foresee(const graph::Plan& plan);
  std::span<const size_t> Needed(std::span<const graph::ValueId> values);
  bool BindNeeded(graph::Plan& plan, std::span<const graph::ValueId> values);
  std::shared_ptr<StoredWeights> FlatWeights(const float* weights) const;
  Status CopyParameters();
  Status RunAndFetch(graph::Plan& plan, float* logits);
  Result<graph::Plan*> PlanFor(graph::Executor& executor, const Batch& batch, int64_t rows);
  Status RunBlock(const Batch& batch, int64_t first, int64_t block, std::span<float> logits);
  Status FeedRows(graph::Plan& plan, const Batch& batch, int64_t first, int64_t block);
  Status RunBody(const Batch& batch);

  const Signature signature_;
  graph::Graph graph_;
  ModelBuilder builder_;
  graph::Executor executor_;
  graph::RunState run_state_;
  std::vector<graph::ValueId> inputs_;  // as signature_.inputs
  graph::ValueId logits_ = graph::kNoValue;
  std::shared_ptr<StoredWeights> bound_;
  PlanWeights plan_weights_;  // where the program runs
  uint64_t version_ = 1;
  WeightVisits* visits_ = nullptr;
  std::function<const float*(size_t)> statistic_;
  std::vector<size_t> parameter_of_;  // by value
  std::vector<size_t> needed_;
  std::vector<Buffer> padded_inputs_;
  Buffer padded_logits_;
  std::unique_ptr<HeadPieces> pieces_;  // null: this model's logits are made at once
  Buffer hidden_, small_logits_;

  // On a device.
  kernels::DeviceBackend* const backend_;
  bool in_place_ = true;         // bound_ is where the program runs
  Buffer copied_;                // of bound_, when it is not
  uint64_t copied_version_ = 0;  // 0: it is of nothing
  Buffer device_logits_;
};

// kInvalidArgument unless `logits` has a number for each prediction's outputs.
Status CheckLogits(const Signature& signature, const Batch& batch, std::span<const float> logits);
// The signature's inputs as those of a graph.
std::vector<graph::ValueId> AddInputs(graph::Graph& graph, const Signature& signature);
// kResourceExhausted, saying what `what` needs, when this machine does not have so much memory.
Status CheckMemory(const std::string& what, int64_t bytes);
// What programs on a device, or on the host, are planned with.
const graph::KernelTable& KernelsOf(const kernels::DeviceBackend* backend);
graph::PlanOptions PlanOptionsOf(kernels::DeviceBackend* backend, bool transient_packs = false);
// kInvalidArgument unless f32 or bf16; or, where nothing is trained, int8.
Status CheckPrecision(const std::string& precision);
Status CheckInferencePrecision(const std::string& precision);

}  // namespace lepton::nn
