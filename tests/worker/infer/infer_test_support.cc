#include "tests/worker/infer/infer_test_support.h"

#include <gtest/gtest.h>

#include "runtime/nn/training_program.h"
#include "worker/train/model_files.h"

namespace lepton::worker {

std::unique_ptr<TestModel> MakeTestModel(const std::string& loss) {
  auto model = std::make_unique<TestModel>();
  model->objects = storage::ObjectStore::Open(model->folder.path()).value();
  spec::JobSpec spec;
  spec.dataset.name = "any";
  spec.model.hidden = {};
  storage::ModelManifest& manifest = model->manifest;
  manifest.model_spec_json = ModelSpecToText(spec.model);
  manifest.loss = loss;
  manifest.precision = "f32";
  manifest.feature_names = {"width", "height", "depth"};
  manifest.mean = {1, 2, 3};
  manifest.scale = {2, 4, 8};
  manifest.label_name = "kind";
  if (loss == "cross_entropy") manifest.classes = {"ant", "bee", "cat"};
  if (loss == "binary_cross_entropy") manifest.classes = {"no", "yes"};
  const int64_t outputs = loss == "cross_entropy" ? 3 : 1;
  auto program =
      nn::InferenceProgram::Build(nn::Signature::Features(3, outputs), spec.model, "f32");
  EXPECT_TRUE(program.ok()) << program.status().ToString();
  const std::span<float> weights = (*program)->weights();
  for (const nn::ParameterView& parameter : (*program)->parameters()) {
    for (int64_t i = 0; i < parameter.size; ++i) {
      const bool bias = parameter.shape.size() == 1;
      float value = bias && loss == "mse" ? 0.5f : 0.0f;
      if (!bias) value = outputs == 1 || i % 4 == 0 ? 1.0f : 0.0f;  // ones, or the identity
      weights[static_cast<size_t>(parameter.offset + i)] = value;
    }
  }
  auto written =
      WriteModel(*model->objects, manifest, (*program)->parameters(), (*program)->weights());
  EXPECT_TRUE(written.ok()) << written.status().ToString();
  model->digest = written->manifest;
  return model;
}

}  // namespace lepton::worker
