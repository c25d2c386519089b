// A model, its loss and its optimiser, compiled once per micro-batch size and run step by step:
// what the worker's training loop drives. It owns the parameters (f32 masters), their gradients and
// the optimiser's state, each as one flat buffer, so that gradients reduce and checkpoints write in
// one piece.
//
// Determinism: the same calls give the same bits, for any number of compute threads. Random numbers
// (initial weights, dropout) come from counters: (seed, parameter) and (seed, step, shard).
// Threads: one caller; kernels use ThreadPool::Compute().
// Errors: kInvalidArgument for a spec that cannot be built; nothing else is expected.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/graph/profile.h"
#include "runtime/nn/decoding_program.h"
#include "runtime/nn/signature.h"
#include "runtime/nn/tensor_slices.h"
#include "runtime/spec/job_spec.h"

namespace lepton::kernels {
class DeviceBackend;
}

namespace lepton::nn {

class StoredWeights;

// A named parameter within the flat buffers; row-major `shape`.
//
// A statistic, such as the running mean of batch normalisation, is stored, checkpointed and summed
// like a parameter, but measured instead of trained. Its entry in gradients() is the value that the
// micro-batch measured, times the number of predictions that have a target, so that the sums over
// shards are those of a weighted mean; ApplyGradients moves the running value by `momentum` towards
// that mean. It has no optimiser state, does not decay and is not part of the gradient's norm.
struct ParameterView {
  // "layers.0.weight" [in, out], "layers.0.bias" [out], "layers.0.norm.weight"...
  std::string name;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // elements
  int64_t size = 0;
  bool statistic = false;
  double momentum = 0;  // of a statistic
  // Of what turns a body's features into answers: may begin anew on a body from elsewhere.
  bool head = false;
  // Which part of the model's parameter this is, where the model is divided over ranks.
  TensorSlice slice;
};

// Of all parameters, statistics too.
int64_t ElementsOf(const std::vector<ParameterView>& parameters);

// The labels of a micro-batch, one per prediction (row, or token): class indices for cross_entropy,
// where kNoTarget asks for no loss, values for the other losses; with
// `teacher_logits` [batch, outputs] the loss is the distillation loss
//   alpha * T^2 * KL(softmax(teacher/T) || softmax(student/T)) + (1 - alpha) * label loss
// (Hinton et al. 2015, section 2).
inline constexpr int32_t kNoTarget = -1;
struct Targets {
  std::span<const int32_t> classes;
  std::span<const float> values;
  std::span<const float> teacher_logits;
};

// A sum over predictions that have a target, and how many these are.
struct LossSum {
  double sum = 0;
  double count = 0;
};

// The logits [predictions, outputs] of those from number `first` on, in order.
using TakeLogits = std::function<Status(int64_t first, std::span<const float> logits)>;

struct DistillOptions {
  double temperature = 2;
  double alpha = 0.5;
};

// Where a program that keeps no weights finds them (TrainingProgram::VisitWeights).
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Trained elements [begin, begin + to.size()), which all passes ask for in the same order.
  virtual Status Bring(int64_t begin, std::span<float> to) = 0;
  // What the next Bring will be of, so that it may be on its way meanwhile.
  virtual void Expect(int64_t /*begin*/, int64_t /*size*/) {}
  // Before each pass of Forward and Evaluate.
  virtual Status BeginForward() = 0;
  // Whether any of those that share the source is about to make such a pass; this one is not.
  virtual Result<bool> OthersForward() = 0;
};

class TrainingProgram {
 public:
  struct Options {
    spec::ModelSpec model;
    std::string loss = "cross_entropy";
    spec::OptimizerSpec optimizer;
    spec::ScheduleSpec schedule;
    int64_t total_steps = 1;        // for the schedule
    double clip_norm = 0;           // 0: none
    std::string precision = "f32";  // "bf16": bf16 GEMM inputs, f32 accumulation and masters
    // Keep only what flows between layers (residual blocks, hidden layers) for the backward pass,
    // and compute the rest again: less memory, one more forward pass, the same bits. ONNX graphs
    // have no layers, and nothing is saved there.
    bool recompute_activations = false;
    // Of Forward and Evaluate: "" for `precision`, or any that InferenceProgram takes.
    std::string inference_precision;
    uint64_t seed = 0;
    // False: for Forward and Evaluate alone, of any model that answers, be it with steps that have
    // no gradient. ForwardBackward is kFailedPrecondition, ApplyGradients gives NaN, gradients()
    // and optimizer_state() are empty. Needs keeps_weights, and an undivided model.
    bool trains = true;
    // False: the caller keeps the optimiser's state, and steps by ApplyPart.
    bool keeps_optimizer_state = true;
    // False: gradients() has the statistics alone, and a parameter's gradient is there within
    // WatchGradients' call only; its memory is then used for others. Needs a watcher, and the host.
    bool keeps_gradients = true;
    // False: VisitWeights may be called, and the first weights are drawn when somebody asks for
    // them. Needs keeps_packs to be false, and the host.
    bool keeps_weights = true;
    // False: kernels pack weights anew whenever they read them, instead of keeping copies.
    bool keeps_packs = true;
    // Divided: a transformer's layers are spread over so many ranks, of which this is one; what is
    // not divided (ParameterView::slice), each has whole. Passes, ApplyGradients and CollectWeights
    // are then collective over the ranks, which make the same calls, and fail with their group
    // (JoinTensorGroup). First weights are those of the undivided model. On the host.
    TensorPlace tensor;
    bool distill = false;
    DistillOptions distill_options;
    graph::Profile* profile = nullptr;  // of ForwardBackward and Forward; must outlive the program
    // Where everything is computed and kept; null: on the host. Must outlive the program.
    kernels::DeviceBackend* backend = nullptr;
  };

  static Result<std::unique_ptr<TrainingProgram>> Build(const Signature& signature,
                                                        const Options& options);
  virtual ~TrainingProgram() = default;

  virtual const Signature& signature() const = 0;
  virtual const std::vector<ParameterView>& parameters() const = 0;
  // For reading, or writing before the next call: who reads or writes later asks again, since the
  // program packs weights for its kernels, and on a device these are copies that the next call
  // does not keep up to date.
  virtual std::span<float> weights() = 0;
  // Elements [begin, begin + to.size()) of weights(), which need not be in memory for it as long as
  // nobody asked for all of them.
  virtual void ReadWeights(int64_t begin, std::span<float> to) {
    const std::span<float> from = weights().subspan(static_cast<size_t>(begin - weights_begin()));
    std::copy_n(from.begin(), to.size(), to.begin());
  }
  // The first element that weights() has: 0, or where the statistics begin.
  virtual int64_t weights_begin() const { return 0; }
  virtual std::span<float> gradients() = 0;
  // Adam's moments and the like, empty for plain SGD; checkpointed beside the weights.
  virtual std::span<float> optimizer_state() = 0;

  // Forward and backward over one micro-batch of any size >= 1 (plans are cached by shapes):
  // gradients() becomes the gradient of the SUM of the losses (the caller divides by their number
  // over the global batch through ApplyGradients' scale).
  virtual Result<LossSum> ForwardBackward(const Batch& batch, const Targets& targets, uint64_t step,
                                          uint32_t shard) = 0;

  // From the next ForwardBackward on, `ready(i)` is called within it, on its caller's thread, as
  // soon as the gradient of parameters()[i] is final, and the caller's to change: the last layers'
  // first, in an order that follows from the shapes. A gradient that is not named so is final when
  // ForwardBackward returns OK. Null: nobody wants to know.
  using GradientReady = std::function<void(size_t parameter)>;
  // Without keeps_gradients each is named, once in every ForwardBackward.
  virtual void WatchGradients(GradientReady) {}
  // Within such a call for this parameter, or with keeps_gradients.
  virtual std::span<const float> gradient(size_t parameter) {
    const ParameterView& view = parameters()[parameter];
    return gradients().subspan(static_cast<size_t>(view.offset), static_cast<size_t>(view.size));
  }
  // From here on the program has no trained weights of its own: weights() has the statistics alone,
  // and each pass brings from the source what a step is about to read, in runs of neighbours of at
  // least so many bytes, and drops it again (weight_visits.h). The passes' errors are then the
  // source's too. The source outlives its use; null takes it away, and passes fail. Whoever shares
  // it must make the same passes: PassThrough in place of a ForwardBackward without rows, and
  // AwaitForwards behind the last of some Forwards.
  virtual void VisitWeights(WeightSource* /*source*/, int64_t /*bucket_bytes*/) {}
  // As ForwardBackward, its calls of the source and the watcher too, but nothing is computed.
  virtual Status PassThrough() { return FailedPrecondition("the program keeps its weights"); }
  // Until nobody else has one to make.
  virtual Status AwaitForwards() { return Status::Ok(); }
  // How the ranks of a divided model talk; outlives its use. A group whose status() is not OK ends
  // calls with that; ApplyGradients gives NaN then.
  virtual void JoinTensorGroup(graph::TensorGroup* /*group*/) {}
  // Each parameter, undivided, in name order, on all that share the source, or the model. Ends with
  // `take`'s error.
  using TakeWeights = std::function<Status(const ParameterView&, std::span<const float>)>;
  virtual Status CollectWeights(const TakeWeights& take);
  // The most that was in memory at once of weights that came from a source.
  virtual size_t visiting_bytes() const { return 0; }

  // What ForwardBackward and Forward work in, in bytes, as of the largest batch so far.
  virtual size_t arena_bytes() const { return 0; }
  // Of the largest micro-batch's plan: what it needs, and the most that is alive at once in it.
  virtual std::pair<size_t, size_t> largest_plan() const { return {}; }
  // Copies of the weights that kernels have packed, evaluation's too.
  virtual size_t pack_bytes() const { return 0; }

  // gradients() * scale, clipped to clip_norm by global norm, applied at the schedule's rate for
  // `step` (0-based). Returns the gradient norm before clipping; NaN or infinity means that nothing
  // was applied.
  virtual double ApplyGradients(uint64_t step, double scale) = 0;
  virtual double LearningRate(uint64_t step) const = 0;
  // optimizer_state() becomes zeros, as before a first step: from `step` on, what the optimiser
  // corrects for its first steps counts anew. The schedule goes on.
  virtual void RestartOptimizer(uint64_t /*step*/) {}

  // A step in parts, on the host, for a caller that keeps the optimiser's state (ZeRO): ApplyPart
  // for any parts of the trained elements, then FinishParts, with gradients() * scale as of
  // ApplyGradients and the norm of all of it. Elements that were updated have the bits that
  // ApplyGradients gives them.
  struct Part {
    int64_t begin = 0;                 // the part's first element
    std::span<const float> gradients;  // of the part
    std::span<float> state;            // of the part: state_per_element() for each, as
                                       // optimizer_state() has them for all
    std::span<float> weights = {};     // of the part, where the caller has them
  };
  virtual int state_per_element() const { return 0; }
  virtual void ApplyPart(uint64_t /*step*/, double /*scale*/, double /*norm*/, const Part&) {}
  // Moves the statistics by their entries in gradients().
  virtual void FinishParts(double /*scale*/) {}

  // Logits [predictions, outputs], no dropout. The same row gives the same bits in any batch.
  virtual Status Forward(const Batch& batch, std::span<float> logits) = 0;
  // The same bits, where need be in pieces, so that at most 64 MiB of them are in memory: of a
  // language model on the host that has its weights. Ends with `take`'s error.
  virtual Status ForwardPieces(const Batch& batch, const TakeLogits& take);
  // The label losses.
  virtual Result<LossSum> Evaluate(const Batch& batch, const Targets& targets,
                                   std::span<float> logits) = 0;
  // The same, with the logits as of ForwardPieces.
  virtual Result<LossSum> EvaluatePieces(const Batch& batch, const Targets& targets,
                                         const TakeLogits& take);
};

// Forward only, for serving and teachers: same architecture, weights loaded by name. They lie in
// the program's own buffer, or where the caller has them: weights() or Bind comes first, then
// Prepare, else kFailedPrecondition. Kernels pack most of them, in memory that all batch sizes
// share; the rest they read in each pass.
class InferenceProgram {
 public:
  // `precision`: "f32", "bf16", or "int8": products and convolutions with weights in 8 bits, each
  // row and each output quantised by its own largest magnitude (runtime/ops/matmul_int8.h).
  static Result<std::unique_ptr<InferenceProgram>> Build(const Signature& signature,
                                                         const spec::ModelSpec& model,
                                                         const std::string& precision,
                                                         kernels::DeviceBackend* backend = nullptr);
  virtual ~InferenceProgram() = default;
  virtual const Signature& signature() const = 0;
  virtual const std::vector<ParameterView>& parameters() const = 0;
  // The program's own flat buffer, made at the first call.
  virtual std::span<float> weights() = 0;
  // Reads each parameter where it is, such as in a mapped file (weights.h), as parameters() has
  // them. Of one that is not f32 there, an f32 copy is kept only if passes read it otherwise than
  // by looking rows up; of one that is packed, or brought to a device, while that is done, one
  // after the other. What the weights borrow must outlive the program.
  virtual Status Bind(std::shared_ptr<StoredWeights> weights) = 0;
  // Call after the weights changed, or were bound (packs them once).
  virtual Status Prepare() = 0;
  // Of packed copies of the weights.
  virtual size_t pack_bytes() const = 0;
  // Threads: one caller at a time. Logits [predictions, outputs]; the same row gives the same bits
  // in any batch, and the same bits as TrainingProgram::Forward.
  virtual Status Forward(const Batch& batch, std::span<float> logits) = 0;
  // As TrainingProgram::ForwardPieces.
  virtual Status ForwardPieces(const Batch& batch, const TakeLogits& take) = 0;
  // Of a language model on the host, after Prepare: texts that go on token by token, with these
  // weights as they are now, and packed as they are here. kInvalidArgument for other models.
  virtual Result<std::unique_ptr<DecodingProgram>> MakeDecoder(
      const DecodingProgram::Options& options) = 0;
};

}  // namespace lepton::nn
