// Whole models on the device train as they do on the host: losses, gradients, weights and logits
// agree within what rounding explains; the same run gives the same bits; recorded steps too.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "runtime/nn/model_list.h"
#include "runtime/nn/weights.h"
#include "tests/runtime/cuda/cuda_test.h"
#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::cuda_test {
namespace {

using nn::TrainingProgram;

// A model with a batch of examples for it.
struct Subject {
  std::string name;
  spec::ModelSpec model;
  nn::Signature signature;
  std::string precision = "f32";
  std::string loss = "cross_entropy";
  std::vector<std::vector<float>> features = {};
  std::function<nn::Batch(Subject&)> batch = {};
  std::vector<int32_t> classes = {};
  std::vector<float> values = {};
  std::shared_ptr<nn::TextBatch> texts = {};
  std::string optimizer = "sgd";
};

Subject Mlp(const std::string& precision, double dropout) {
  Subject subject{"mlp_" + precision, spec::DefaultModel("mlp"), nn::Signature::Features(9, 5)};
  subject.model.hidden = {24, 16};
  subject.model.activation = precision == "f32" ? "relu" : "gelu";
  subject.model.dropout = dropout;
  subject.model.layer_norm = true;
  subject.precision = precision;
  subject.features = {nn::Noise(13 * 9, 1)};
  subject.batch = [](Subject& self) { return nn::Batch::Features(self.features[0], 9); };
  subject.classes = nn::Classes(13, 5, 2);
  return subject;
}

Subject MlpOnValues() {
  Subject subject = Mlp("f32", 0);
  subject.name = "mlp_values";
  subject.signature = nn::Signature::Features(9, 2);
  subject.loss = "mse";
  subject.values = nn::Noise(13 * 2, 3);
  subject.optimizer = "adamw";
  return subject;
}

Subject Text(const std::string& style, const std::string& precision, double dropout = 0) {
  Subject subject{style + "_" + precision, {}, {}};
  spec::ModelSpec tiny = nn::TinyTransformer(style);
  tiny.dropout = dropout;
  const bool encoder = style == "bert";
  const auto built = nn::Resolve(tiny, nn::TextShape(64, 32, encoder ? 3 : 0, !encoder));
  subject.model = built.model;
  subject.signature = built.signature;
  subject.precision = precision;
  std::vector<std::vector<int32_t>> rows(3);
  for (int row = 0; row < 3; ++row) rows[row] = nn::Classes(encoder ? 12 + row : 20, 64, 7 + row);
  subject.texts = std::make_shared<nn::TextBatch>(subject.signature, rows);
  subject.batch = [](Subject& self) { return self.texts->batch(); };
  subject.classes = encoder ? nn::Classes(3, 3, 4) : subject.texts->next_tokens();
  return subject;
}

Subject Pictures(const std::string& arch, const std::string& precision) {
  Subject subject{arch + "_" + precision, spec::DefaultModel(arch), {}};
  if (arch == "vit") {
    subject.model.vit.layers = 2;
    subject.model.vit.heads = 2;
    subject.model.vit.width = 32;
  } else {
    subject.model.resnet.stem_width = 8;
    subject.model.resnet.widths = {8, 16};
    subject.model.resnet.depths = {1, 1};
  }
  const nn::DataShape shape{
      .kind = nn::DataShape::Kind::kImages, .channels = 1, .height = 8, .width = 8, .outputs = 4};
  subject.signature = nn::MakeSignature(subject.model, shape).value();
  subject.model = nn::ResolveModel(subject.model, shape).value();
  subject.precision = precision;
  subject.features = {nn::Noise(6 * 64, 5)};
  subject.batch = [](Subject& self) {
    return nn::Batch{{{self.features[0].data(), {DType::kF32, {6, 1, 8, 8}}}}};
  };
  subject.classes = nn::Classes(6, 4, 6);
  return subject;
}

std::vector<Subject> Subjects() {
  std::vector<Subject> subjects;
  subjects.push_back(Mlp("f32", 0.2));
  subjects.push_back(Mlp("bf16", 0));
  subjects.push_back(MlpOnValues());
  subjects.push_back(Text("gpt2", "f32", 0.1));
  subjects.push_back(Text("gpt2", "bf16"));
  subjects.push_back(Text("llama", "f32"));
  subjects.push_back(Text("llama", "bf16"));
  subjects.push_back(Text("bert", "f32"));
  subjects.push_back(Pictures("vit", "f32"));
  subjects.push_back(Pictures("resnet18", "f32"));
  subjects.push_back(Pictures("resnet18", "bf16"));
  return subjects;
}

struct History {
  std::vector<double> losses, norms;
  std::vector<float> first_gradients, weights, logits;
};

History Train(Subject subject, CudaDevice* device, int steps = 4) {
  TrainingProgram::Options options;
  options.model = subject.model;
  options.loss = subject.loss;
  options.optimizer = {
      .name = subject.optimizer, .lr = 0.02, .weight_decay = 0.01, .momentum = 0.9};
  options.total_steps = steps;
  options.clip_norm = 1;
  options.precision = subject.precision;
  options.seed = 11;
  options.backend = device;
  const auto program = nn::MustBuild(subject.signature, options);
  const nn::Targets targets{.classes = subject.classes, .values = subject.values};
  History history;
  for (int step = 0; step < steps; ++step) {
    const auto loss = program->ForwardBackward(subject.batch(subject), targets, step, 1);
    EXPECT_TRUE(loss.ok()) << loss.status().ToString();
    if (!loss.ok()) return history;
    history.losses.push_back(loss->sum / loss->count);
    if (step == 0) {
      const auto gradients = program->gradients();
      history.first_gradients.assign(gradients.begin(), gradients.end());
    }
    history.norms.push_back(program->ApplyGradients(step, 1 / loss->count));
  }
  const nn::Batch batch = subject.batch(subject);
  history.logits.resize(nn::Predictions(subject.signature, batch) * subject.signature.outputs);
  EXPECT_TRUE(program->Forward(batch, history.logits).ok());
  const auto weights = program->weights();
  history.weights.assign(weights.begin(), weights.end());
  return history;
}

// The length of the difference over that of what is wanted.
template <typename T>
double RelativeDistance(const std::vector<T>& got, const std::vector<T>& wanted) {
  EXPECT_EQ(got.size(), wanted.size());
  double difference = 0, length = 1e-30;
  for (size_t i = 0; i < std::min(got.size(), wanted.size()); ++i) {
    difference += (double{got[i]} - wanted[i]) * (double{got[i]} - wanted[i]);
    length += double{wanted[i]} * wanted[i];
  }
  return std::sqrt(difference / length);
}

class DeviceTraining : public testing::TestWithParam<size_t> {};

TEST_P(DeviceTraining, EqualsTheHosts) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  const Subject subject = Subjects()[GetParam()];
  SCOPED_TRACE(subject.name);
  const History on_host = Train(subject, nullptr);
  const History on_device = Train(subject, device);
  ASSERT_EQ(on_device.losses.size(), on_host.losses.size());
  const double tolerance = subject.precision == "f32" ? 2e-4 : 3e-2;
  EXPECT_LT(RelativeDistance(on_device.losses, on_host.losses), tolerance);
  EXPECT_LT(RelativeDistance(on_device.norms, on_host.norms), tolerance);
  EXPECT_LT(RelativeDistance(on_device.first_gradients, on_host.first_gradients), tolerance);
  EXPECT_LT(RelativeDistance(on_device.weights, on_host.weights), tolerance);
  EXPECT_LT(RelativeDistance(on_device.logits, on_host.logits), tolerance);
  // It learnt something, so agreeing means something.
  EXPECT_NE(on_device.losses.front(), on_device.losses.back());
  const History again = Train(subject, device);
  EXPECT_TRUE(nn::SameBits(again.weights, on_device.weights));
  EXPECT_TRUE(nn::SameBits(again.logits, on_device.logits));
}

// As evaluations and teachers use a stored model: nothing is kept that only training needs.
TEST_P(DeviceTraining, AnEvaluatorMeasuresThereAsOnTheHost) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  Subject subject = Subjects()[GetParam()];
  SCOPED_TRACE(subject.name);
  const History trained = Train(subject, nullptr, 2);
  std::vector<double> losses;
  std::vector<std::vector<float>> answers;
  for (CudaDevice* const place : {static_cast<CudaDevice*>(nullptr), device}) {
    TrainingProgram::Options options;
    options.model = subject.model;
    options.loss = subject.loss;
    options.precision = subject.precision;
    options.trains = false;
    options.backend = place;
    const auto program = nn::MustBuild(subject.signature, options);
    std::copy(trained.weights.begin(), trained.weights.end(), program->weights().begin());
    const nn::Targets targets{.classes = subject.classes, .values = subject.values};
    std::vector<float> logits(trained.logits.size());
    const auto loss = program->Evaluate(subject.batch(subject), targets, logits);
    ASSERT_TRUE(loss.ok()) << loss.status().ToString();
    losses.push_back(loss->sum / loss->count);
    answers.push_back(logits);
  }
  const double tolerance = subject.precision == "f32" ? 2e-4 : 3e-2;
  EXPECT_NEAR(losses[1], losses[0], tolerance * std::abs(losses[0]));
  EXPECT_LT(RelativeDistance(answers[1], answers[0]), tolerance);
}

// As predictions use a stored model: weights that stay on the host, and others later.
TEST_P(DeviceTraining, WhatItTrainedAnswersThereAsOnTheHost) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  Subject subject = Subjects()[GetParam()];
  SCOPED_TRACE(subject.name);
  const auto program =
      nn::InferenceProgram::Build(subject.signature, subject.model, subject.precision, device);
  ASSERT_TRUE(program.ok()) << program.status().ToString();
  const nn::Batch batch = subject.batch(subject);
  History last;
  for (const int steps : {1, 3}) {
    const History trained = Train(subject, nullptr, steps);
    std::vector<const float*> parameters;
    for (const nn::ParameterView& view : (*program)->parameters()) {
      parameters.push_back(trained.weights.data() + view.offset);
    }
    ASSERT_TRUE((*program)->Bind(std::make_shared<nn::StoredWeights>(parameters)).ok());
    ASSERT_TRUE((*program)->Prepare().ok());
    std::vector<float> logits(trained.logits.size());
    const Status done = (*program)->Forward(batch, logits);
    ASSERT_TRUE(done.ok()) << done.ToString();
    EXPECT_LT(RelativeDistance(logits, trained.logits), subject.precision == "f32" ? 2e-4 : 3e-2);
    EXPECT_NE(logits, last.logits);
    last.logits = logits;
  }
}

TEST_P(DeviceTraining, WeightsInHalvesGiveTheBitsOfTheSameInF32) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  Subject subject = Subjects()[GetParam()];
  SCOPED_TRACE(subject.name);
  const auto program =
      nn::InferenceProgram::Build(subject.signature, subject.model, subject.precision, device)
          .value();
  const nn::Batch batch = subject.batch(subject);
  const std::vector<float> trained = Train(subject, nullptr, 1).weights;
  std::vector<uint16_t> halves;
  std::vector<float> floats;
  for (const float weight : trained) {
    halves.push_back(BF16::FromFloat(weight).bits);
    floats.push_back(BF16::ToFloat({halves.back()}));
  }
  nn::SourceTensors in_halves, in_f32;
  for (const nn::ParameterView& view : program->parameters()) {
    in_halves[view.name] = {DType::kBF16, view.shape, halves.data() + view.offset};
    in_f32[view.name] = {DType::kF32, view.shape, floats.data() + view.offset};
  }
  std::vector<std::vector<float>> logits;
  for (const nn::SourceTensors* tensors : {&in_halves, &in_f32}) {
    const auto weights = nn::StoredWeights::Make(*tensors, program->parameters()).value();
    ASSERT_TRUE(program->Bind(weights).ok());
    ASSERT_TRUE(program->Prepare().ok());
    logits.emplace_back(
        static_cast<size_t>(nn::Predictions(subject.signature, batch) * subject.signature.outputs));
    const Status done = program->Forward(batch, logits.back());
    ASSERT_TRUE(done.ok()) << done.ToString();
    EXPECT_EQ(weights->copied_bytes(), 0u);
    EXPECT_LT(weights->most_copied_bytes(), floats.size() * sizeof(float));
  }
  EXPECT_TRUE(nn::SameBits(logits[0], logits[1]));
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceTraining, testing::Range<size_t>(0, 11),
                         [](const auto& info) { return Subjects()[info.param].name; });

}  // namespace
}  // namespace lepton::cuda_test
