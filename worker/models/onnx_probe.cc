#include "worker/models/onnx_probe.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "runtime/nn/training_program.h"
#include "worker/data/batch_buffer.h"
#include "worker/data/text_rows.h"

namespace lepton::worker {
namespace {

constexpr int64_t kLength = 16;  // of the longer text
constexpr int kTexts = 2;

Status Refused(const std::string& what) {
  return FailedPrecondition("model.onnx: " + what);
}

class Prober {
 public:
  Prober(const nn::Signature& signature, nn::InferenceProgram& program)
      : signature_(signature), program_(program), buffer_(signature) {}

  // Logits of the texts, all padded to a length.
  Result<std::vector<float>> Ask(const std::vector<std::vector<int32_t>>& texts, int64_t length) {
    buffer_.Resize(kTexts, length);
    int32_t* const types = buffer_.Ints("token_types");
    float* const mask = buffer_.Floats("mask");
    for (int64_t row = 0; row < kTexts; ++row) {
      const auto size = static_cast<int64_t>(texts[row].size());
      int32_t* const tokens = buffer_.Ints("tokens") + row * length;
      std::fill(std::copy(texts[row].begin(), texts[row].end(), tokens), tokens + length, 0);
      if (types != nullptr) std::fill_n(types + row * length, length, 0);
      for (int64_t t = 0; mask != nullptr && t < length; ++t) {
        mask[row * length + t] = t < size ? 0.0f : kPaddingBias;
      }
    }
    const nn::Batch batch = buffer_.batch();
    std::vector<float> logits(nn::Predictions(signature_, batch) * signature_.outputs);
    LEPTON_RETURN_IF_ERROR(program_.Forward(batch, logits));
    return logits;
  }

  // Whether a text's first `tokens` answers (its one answer) are the same but for rounding. Where
  // no number comes out at all there is nothing to compare.
  bool Same(const std::vector<float>& a, const std::vector<float>& b, int64_t row,
            int64_t tokens) const {
    const int64_t count = (signature_.per_token ? tokens : 1) * signature_.outputs;
    const auto begin = [&](const std::vector<float>& logits) {
      return logits.begin() + row * static_cast<int64_t>(logits.size()) / kTexts;
    };
    const auto x = begin(a), y = begin(b);
    const auto finite = [](float number) { return std::isfinite(number); };
    if (!std::all_of(x, x + count, finite)) return true;
    float largest = 1e-5f;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(x[i]));
    for (int64_t i = 0; i < count; ++i) {
      if (!(std::abs(x[i] - y[i]) <= 1e-3f * largest)) return false;
    }
    return true;
  }

 private:
  const nn::Signature& signature_;
  nn::InferenceProgram& program_;
  BatchBuffer buffer_;
};

}  // namespace

Status ProbeTexts(const spec::ModelSpec& model, const nn::DataShape& data,
                  const nn::SourceTensors& weights) {
  // The padded texts must fit the model's context, and the longer one has no padding at first.
  const int64_t length =
      data.context == 0 ? kLength : std::clamp<int64_t>(data.context / 2, 1, kLength);
  const int64_t padded = data.context == 1 ? 1 : 2 * length;
  const int64_t few = std::max<int64_t>(1, length / 3);
  const int64_t ids = data.vocabulary > 0 ? data.vocabulary : 3;
  std::vector<std::vector<int32_t>> texts(kTexts);
  for (int64_t t = 0; t < length; ++t) {  // not 0, which pads
    texts[0].push_back(static_cast<int32_t>(ids > 1 ? 1 + t * 7 % (ids - 1) : 0));
  }
  texts[1].assign(texts[0].begin(), texts[0].begin() + few);

  LEPTON_ASSIGN_OR_RETURN(const nn::Signature signature, nn::MakeSignature(model, data));
  LEPTON_ASSIGN_OR_RETURN(const auto program, nn::InferenceProgram::Build(signature, model, "f32"));
  LEPTON_ASSIGN_OR_RETURN(auto stored, nn::StoredWeights::Make(weights, program->parameters()));
  LEPTON_RETURN_IF_ERROR(program->Bind(std::move(stored)));
  LEPTON_RETURN_IF_ERROR(program->Prepare());
  Prober prober(signature, *program);
  LEPTON_ASSIGN_OR_RETURN(const std::vector<float> plain, prober.Ask(texts, length));
  LEPTON_ASSIGN_OR_RETURN(const std::vector<float> longer, prober.Ask(texts, padded));
  if (!prober.Same(plain, longer, 0, length) || !prober.Same(plain, longer, 1, few)) {
    return Refused(
        "its answer depends on the padding behind a text: give it an input attention_mask, 1 for a "
        "token and 0 for padding, and use it");
  }
  if (!signature.per_token || length < 2) return Status::Ok();
  int32_t& last = texts[0].back();
  last = static_cast<int32_t>((last + 1) % ids);
  LEPTON_ASSIGN_OR_RETURN(const std::vector<float> changed, prober.Ask(texts, length));
  if (!prober.Same(plain, changed, 0, length - 1)) {
    return Refused(
        "what it says of a token depends on the tokens behind it: of the models with an output per "
        "token, only language models that go from the first to the last can be stored");
  }
  return Status::Ok();
}

}  // namespace lepton::worker
