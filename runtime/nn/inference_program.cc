#include "runtime/nn/forward_program.h"
#include "runtime/nn/training_program.h"

namespace lepton::nn {
namespace {

class GraphInference final : public InferenceProgram {
 public:
  GraphInference(const Signature& signature, std::unique_ptr<ForwardProgram> forward)
      : signature_(signature),
        forward_(std::move(forward)),
        parameters_(ParameterViews(forward_->parameters())),
        weights_(forward_->parameter_elements() * sizeof(float)) {}

  Status Bind() { return forward_->Bind(weights()); }

  const Signature& signature() const override { return signature_; }
  const std::vector<ParameterView>& parameters() const override { return parameters_; }
  std::span<float> weights() override {
    return {weights_.as<float>(), weights_.size() / sizeof(float)};
  }
  Status Prepare() override {
    forward_->Prepare();
    return Status::Ok();
  }
  Status Forward(const Batch& batch, std::span<float> logits) override {
    return forward_->Forward(batch, logits);
  }

 private:
  const Signature signature_;
  std::unique_ptr<ForwardProgram> forward_;
  std::vector<ParameterView> parameters_;
  Buffer weights_;
};

}  // namespace

Result<std::unique_ptr<InferenceProgram>> InferenceProgram::Build(const Signature& signature,
                                                                  const spec::ModelSpec& model,
                                                                  const std::string& precision) {
  LEPTON_ASSIGN_OR_RETURN(auto forward, ForwardProgram::Build(signature, model, precision));
  auto program = std::make_unique<GraphInference>(signature, std::move(forward));
  LEPTON_RETURN_IF_ERROR(program->Bind());
  return std::unique_ptr<InferenceProgram>(std::move(program));
}

}  // namespace lepton::nn
