// A small model of each kind with weights, and rows for it: for tests of which bits answers have.
// Threads: one caller.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "runtime/nn/training_program.h"
#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/onnx_golden.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::nn {

// The last two came as ONNX: goldens.
inline constexpr const char* kModelKinds[] = {"resnet18", "vit",         "bert",
                                              "llama",    "onnx_resnet", "onnx_bert"};

struct SmallModel {
  spec::ModelSpec model;  // resolved
  Signature signature;
  int64_t length = 0;          // of its texts
  std::vector<float> weights;  // far from all alike

  TrainingProgram::Options options(const std::string& precision) const {
    TrainingProgram::Options options;
    options.model = model;
    options.precision = precision;
    options.optimizer = {.name = "adamw", .lr = 1e-3};
    options.total_steps = 10;
    options.seed = 3;
    return options;
  }
  std::unique_ptr<TrainingProgram> Trains(const std::string& precision) const {
    auto program = MustBuild(signature, options(precision));
    std::copy(weights.begin(), weights.end(), program->weights().begin());
    return program;
  }
  std::unique_ptr<InferenceProgram> Answers(const std::string& precision) const {
    auto program = InferenceProgram::Build(signature, model, precision);
    EXPECT_TRUE(program.ok()) << program.status().ToString();
    EXPECT_EQ((*program)->weights().size(), weights.size());
    std::copy(weights.begin(), weights.end(), (*program)->weights().begin());
    EXPECT_TRUE((*program)->Prepare().ok());
    return *std::move(program);
  }
};

inline DataShape SmallPictures(int64_t side, int64_t outputs) {
  return {.kind = DataShape::Kind::kImages,
          .channels = 3,
          .height = side,
          .width = side,
          .outputs = outputs};
}

// `source`: of this repository.
inline SmallModel MakeSmallModel(const std::string& kind, const std::filesystem::path& source) {
  SmallModel small;
  spec::ModelSpec model = spec::DefaultModel(kind);
  DataShape data = SmallPictures(16, 10);
  Golden golden;
  if (kind == "resnet18") {
    model.resnet.stem_width = 32;
    model.resnet.widths = {32, 64};
    model.resnet.depths = {2, 1};
  } else if (kind == "vit") {
    model.vit.layers = 2;
    model.vit.heads = 2;
    model.vit.width = 64;
  } else if (kind == "onnx_resnet" || kind == "onnx_bert") {
    const std::string name = kind.substr(5);
    golden = ReadGolden(source / "tests/golden/onnx" / name);
    model = golden.model;
    data = name == "bert" ? TextShape(20, 10, 3, false) : SmallPictures(12, 3);
    small.length = 10;
  } else {
    model = TinyTransformer(kind);
    model.transformer.width = 64;
    data = TextShape(128, 64, 5, kind == "llama");
    small.length = 40;
  }
  const auto [resolved, signature] = Resolve(model, data);
  small.model = resolved;
  small.signature = signature;
  const auto program = MustBuild(signature, small.options("f32"));
  small.weights.assign(program->weights().begin(), program->weights().end());
  if (model.arch == "onnx") {
    CopyTo(golden, program->parameters(), small.weights);
  } else if (model.arch == "transformer" || model.arch == "vit") {
    for (float& weight : small.weights) weight *= 4;
  }
  return small;
}

// Rows of noise for any signature; of texts some are shorter, and padded.
class RandomRows {
 public:
  RandomRows(const SmallModel& small, int64_t rows, uint64_t seed) {
    for (const InputSpec& input : small.signature.inputs) {
      std::vector<int64_t> extents = input.type.shape.extents();
      extents[0] = 1;
      for (int64_t& extent : extents) extent = extent == Shape::kSequence ? small.length : extent;
      const Shape row(extents);
      const int64_t numbers = row.elements() * rows;
      std::vector<int32_t> integers;
      std::vector<float> floats;
      if (input.type.dtype == DType::kI32) {
        integers = Classes(numbers, static_cast<int>(input.limit == 0 ? 2 : input.limit), seed++);
      } else if (input.name == "mask") {
        for (int64_t i = 0; i < numbers; ++i) {
          const int64_t there = small.length - i / small.length * 3 % (small.length / 2);
          floats.push_back(i % small.length < there ? 0.0f : -1e9f);
        }
      } else {
        floats = Noise(numbers, seed++, 2);
      }
      inputs_.push_back({{input.type.dtype, row}, std::move(integers), std::move(floats)});
    }
  }
  // Borrows.
  Batch Some(int64_t first, int64_t count) {
    Batch batch;
    for (Input& input : inputs_) {
      std::vector<int64_t> extents = input.row.shape.extents();
      const int64_t from = first * input.row.shape.elements();
      extents[0] = count;
      void* data = input.integers.empty() ? static_cast<void*>(input.floats.data() + from)
                                          : static_cast<void*>(input.integers.data() + from);
      batch.inputs.push_back({data, {input.row.dtype, Shape(extents)}});
    }
    return batch;
  }

 private:
  struct Input {
    TensorType row;
    std::vector<int32_t> integers;
    std::vector<float> floats;
  };
  std::vector<Input> inputs_;
};

}  // namespace lepton::nn
