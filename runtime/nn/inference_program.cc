#include "runtime/nn/forward_program.h"
#include "runtime/nn/graph_decoding.h"
#include "runtime/nn/training_program.h"

namespace lepton::nn {
namespace {

class GraphInference final : public InferenceProgram {
 public:
  GraphInference(const Signature& signature, const spec::ModelSpec& model, std::string precision,
                 bool on_host, std::unique_ptr<ForwardProgram> forward)
      : signature_(signature),
        model_(model),
        precision_(std::move(precision)),
        on_host_(on_host),
        forward_(std::move(forward)),
        parameters_(ParameterViews(forward_->parameters())) {}

  const Signature& signature() const override { return signature_; }
  const std::vector<ParameterView>& parameters() const override { return parameters_; }
  std::span<float> weights() override {
    const int64_t elements = forward_->parameter_elements();
    if (weights_.size() == 0) weights_ = Buffer(elements * sizeof(float));
    const std::span<float> weights(weights_.as<float>(), elements);
    forward_->Bind(weights);
    bound_ = true;
    return weights;
  }
  Status Bind(std::shared_ptr<StoredWeights> weights) override {
    if (weights->size() != parameters_.size()) {
      return InvalidArgument("parameters: there are " + std::to_string(weights->size()) +
                             "; must be " + std::to_string(parameters_.size()));
    }
    forward_->Bind(std::move(weights));
    weights_ = {};
    bound_ = true;
    return Status::Ok();
  }
  Status Prepare() override {
    if (!bound_) return FailedPrecondition("the program has no weights yet");
    forward_->Prepare(++version_);
    return Status::Ok();
  }
  size_t pack_bytes() const override { return forward_->pack_bytes(); }
  Status Forward(const Batch& batch, std::span<float> logits) override {
    if (!bound_) return FailedPrecondition("the program has no weights yet");
    return forward_->Forward(batch, logits);
  }
  Status ForwardPieces(const Batch& batch, const TakeLogits& take) override {
    if (!bound_) return FailedPrecondition("the program has no weights yet");
    return forward_->ForwardPieces(batch, take);
  }
  Result<std::unique_ptr<DecodingProgram>> MakeDecoder(
      const DecodingProgram::Options& options) override {
    if (!bound_ || version_ == 0) return FailedPrecondition("the program is not prepared yet");
    if (!on_host_) return InvalidArgument("texts go on from a cache on the host only");
    graph::Executor& executor = forward_->executor();
    return MakeDecoding({.signature = &signature_,
                         .model = &model_,
                         .precision = precision_,
                         .weights = forward_->bound(),
                         .version = forward_->version(),
                         .packs = executor.packs().store(),
                         .arena = executor.arena()},
                        options);
  }

 private:
  const Signature signature_;
  const spec::ModelSpec model_;
  const std::string precision_;
  const bool on_host_;
  std::unique_ptr<ForwardProgram> forward_;
  std::vector<ParameterView> parameters_;
  Buffer weights_;  // empty when they lie elsewhere
  bool bound_ = false;
  uint64_t version_ = 0;
};

}  // namespace

Result<std::unique_ptr<InferenceProgram>> InferenceProgram::Build(const Signature& signature,
                                                                  const spec::ModelSpec& model,
                                                                  const std::string& precision,
                                                                  kernels::DeviceBackend* backend) {
  LEPTON_ASSIGN_OR_RETURN(auto forward,
                          ForwardProgram::Build(signature, model, precision, backend));
  return std::unique_ptr<InferenceProgram>(std::make_unique<GraphInference>(
      signature, model, precision, backend == nullptr, std::move(forward)));
}

}  // namespace lepton::nn
