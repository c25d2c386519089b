// A stored model ready to compute: what a replica serves, what an evaluation measures and what a
// batch prediction asks, so that all do the same arithmetic on the same rows.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/mapped_file.h"
#include "runtime/base/status.h"
#include "runtime/kernels/device_backend.h"
#include "runtime/nn/training_program.h"
#include "runtime/nn/weights.h"
#include "storage/models/model_manifest.h"
#include "storage/objects/object_store.h"
#include "worker/data/batch_buffer.h"
#include "worker/data/text_encoder.h"
#include "worker/infer/model_rows.h"

namespace lepton::worker {

// x = (raw - mean) / scale by the training loop's NormalizeValue: NaN (missing) is taken for mean.
// `raw` and `x`: [rows, mean.size() * plane], row-major; each mean is for `plane` numbers.
void Normalize(std::span<const double> raw, std::span<const double> mean,
               std::span<const double> scale, int64_t plane, std::span<float> x);

// What a row's logits say, by the manifest's loss.
struct Prediction {
  int64_t class_index = -1;          // -1 for mse, and without an answer
  std::string label;                 // classes[class_index]; else ""
  std::vector<float> probabilities;  // per class; two for binary_cross_entropy; empty for mse
};
// Softmax for cross_entropy (ties: the lowest index), sigmoid for binary_cross_entropy (class 1
// from 0.5 on). What CheckAnswer refuses is no answer: the probabilities are NaN.
Prediction Decode(const storage::ModelManifest& manifest, std::span<const float> logits);

// kInvalidArgument where a row's answer, or what is most likely, is no number: weights that
// diverged, or data far outside of what the model was made for.
Status CheckAnswer(const storage::ModelManifest& manifest, std::span<const float> logits);

// Threads: one caller at a time for Run and Forward, any for the rest. Owns manifest, weights and
// program.
class LoadedModel {
 public:
  // Reads the manifest object and the objects it names, and builds the program. `precision`: as
  // spec::DeploymentSpec has it, "model" for the manifest's own. `device`: what it computes on;
  // null: the host. kNotFound/kDataLoss for missing or damaged objects, kInvalidArgument for
  // weights that do not fit the architecture.
  static Result<std::unique_ptr<LoadedModel>> Load(
      const storage::ObjectStore& objects, const storage::Digest& manifest,
      const std::string& precision = "model", std::unique_ptr<kernels::DeviceBackend> device = {});

  const storage::ModelManifest& manifest() const { return manifest_; }
  const nn::Signature& signature() const { return signature_; }
  // Numbers of a row; 0 for a model of texts.
  int64_t numbers() const { return numbers_; }
  int64_t outputs() const { return signature_.outputs; }
  // Of a model of texts whose tokenizer is known; else nullptr.
  const std::shared_ptr<const TextEncoder>& encoder() const { return encoder_; }
  // The data's tokenizer ("" for none), for a model that came without one; else nothing happens.
  Status Adopt(const storage::ObjectStore& objects, const std::string& tokenizer);
  // Whether generation ends at this token: the model's eos_token_id, as a Hugging Face folder says
  // it, or the tokenizer's own end of a text.
  bool IsEnd(uint32_t id) const;

  // `logits`: [rows, outputs]. kInvalidArgument for rows of another kind or size. Not for language
  // models, whose answers are per token.
  Status Run(const ModelRows& rows, std::span<float> logits);
  // Rows that mean nothing, for a first pass.
  ModelRows BlankRows(int64_t rows) const;

  // Texts that go on from a cache, at most `slots` at once and each of up to `context` tokens, in
  // as much memory as `most_bytes`; kept for the next one who asks for as much. kInvalidArgument
  // for a model that cannot: ask Forward for all of each text then.
  Result<nn::DecodingProgram*> Decoder(const nn::DecodingProgram::Options& wanted);

  // Prepared examples: logits [predictions, outputs].
  Status Forward(const nn::Batch& batch, std::span<float> logits) {
    return program_->Forward(batch, logits);
  }
  // The same in pieces (nn/training_program.h).
  Status ForwardPieces(const nn::Batch& batch, const nn::TakeLogits& take) {
    return program_->ForwardPieces(batch, take);
  }

 private:
  LoadedModel() = default;
  Status FillRows(const ModelRows& rows);

  storage::ModelManifest manifest_;
  nn::Signature signature_;
  int64_t numbers_ = 0;
  std::shared_ptr<const TextEncoder> encoder_;
  std::vector<uint32_t> ends_;  // what the model says; the encoder knows more
  // What the program's weights lie in and what it runs on; declared before it.
  std::vector<std::shared_ptr<const MappedFile>> mapped_;
  std::unique_ptr<kernels::DeviceBackend> device_;
  std::unique_ptr<nn::InferenceProgram> program_;
  std::unique_ptr<nn::DecodingProgram> decoder_;
  nn::DecodingProgram::Options decoder_for_;  // what was asked for
  std::unique_ptr<BatchBuffer> buffer_;       // scratch of Run
};

}  // namespace lepton::worker
