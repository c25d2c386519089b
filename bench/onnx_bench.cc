// Models as PyTorch exports them against the same models built natively: one forward pass of 16
// rows through InferenceProgram each, in turns. The imported model's answers are compared with
// PyTorch's first.
//   onnx_bench FOLDER [rounds]     FOLDER: made by tests/golden/onnx/make_models.py FOLDER --large
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/model_file.h"
#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/nn/model_list.h"

namespace lepton {
namespace {

namespace fs = std::filesystem;

template <typename T>
T Must(Result<T> result) {
  if (result.ok()) return std::move(result).value();
  std::fprintf(stderr, "onnx_bench: %s\n", result.status().ToString().c_str());
  std::exit(1);
}

struct Side {
  std::unique_ptr<nn::InferenceProgram> program;
  nn::Signature signature;
};

Side Build(const spec::ModelSpec& model, const nn::DataShape& data) {
  Side side;
  const spec::ModelSpec resolved = Must(nn::ResolveModel(model, data));
  side.signature = Must(nn::MakeSignature(resolved, data));
  side.program = Must(nn::InferenceProgram::Build(side.signature, resolved, "f32"));
  return side;
}

struct Inputs {
  std::map<std::string, onnx::HostTensor> tensors;  // by the data's names
  nn::Batch For(const nn::Signature& signature) {
    nn::Batch batch;
    for (const auto& input : signature.inputs)
      batch.inputs.push_back(tensors.at(input.name).view());
    return batch;
  }
};

Inputs ReadInputs(const fs::path& folder, const onnx_proto::GraphProto& graph) {
  Inputs inputs;
  for (int i = 0; i < graph.input_size(); ++i) {
    const std::string bytes =
        Must(ReadFile(folder / "test_data_set_0" / ("input_" + std::to_string(i) + ".pb")));
    const auto value = Must(onnx::ParseValue(bytes, graph.input(i).type()));
    const std::string& name = graph.input(i).name();
    std::vector<double> numbers = onnx::AsDoubles(value.tensor);
    const Shape shape = value.tensor.type.shape;
    if (name == "attention_mask") {
      for (double& number : numbers) number = number == 0 ? -1e9 : 0;
      inputs.tensors["mask"] = onnx::TensorOf(DType::kF32, shape, numbers);
    } else if (name == "input_ids" || name == "token_type_ids") {
      inputs.tensors[name == "input_ids" ? "tokens" : "token_types"] =
          onnx::TensorOf(DType::kI32, shape, numbers);
    } else {
      inputs.tensors[name] = onnx::TensorOf(DType::kF32, shape, numbers);
    }
  }
  return inputs;
}

double Milliseconds(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Compare(const fs::path& folder, const spec::ModelSpec& native_model, const nn::DataShape& data,
             int rounds) {
  const std::string bytes = Must(ReadFile(folder / "model.onnx"));
  onnx_proto::ModelProto proto;
  if (!onnx::ParseModel(bytes, &proto).ok()) std::exit(1);
  Inputs inputs = ReadInputs(folder, proto.graph());
  const onnx::TakenApart apart = Must(onnx::TakeApart(bytes, folder));
  spec::ModelSpec imported_model;
  imported_model.arch = "onnx";
  imported_model.onnx_graph = std::make_shared<const std::string>(apart.graph);
  Side imported = Build(imported_model, data), native = Build(native_model, data);
  for (const auto& view : imported.program->parameters()) {
    for (const auto& weight : apart.weights) {
      if (weight.name != view.name) continue;
      std::memcpy(imported.program->weights().data() + view.offset, weight.tensor.data.data(),
                  weight.tensor.type.bytes());
    }
  }
  for (size_t i = 0; i < native.program->weights().size(); ++i) {
    native.program->weights()[i] = 0.02f * std::sin(static_cast<float>(i));
  }
  for (Side* side : {&imported, &native}) {
    if (!side->program->Prepare().ok()) std::exit(1);
  }
  const nn::Batch ours = inputs.For(imported.signature), theirs = inputs.For(native.signature);
  const auto wanted = Must(onnx::ParseValue(Must(ReadFile(folder / "test_data_set_0/output_0.pb")),
                                            proto.graph().output(0).type()));
  std::vector<float> logits(nn::Predictions(imported.signature, ours) * imported.signature.outputs);
  std::vector<float> other(nn::Predictions(native.signature, theirs) * native.signature.outputs);
  const auto run = [](Side& side, const nn::Batch& batch, std::vector<float>& y) {
    if (!side.program->Forward(batch, y).ok()) std::exit(1);
  };
  run(imported, ours, logits);
  run(native, theirs, other);
  const std::vector<double> right = onnx::AsDoubles(wanted.tensor);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::abs(logits[i] - right[i]) > 1e-3 * (1 + std::abs(right[i]))) {
      std::fprintf(stderr, "%s: logit %zu is %g; PyTorch's is %g\n", folder.c_str(), i, logits[i],
                   right[i]);
      std::exit(1);
    }
  }
  std::vector<double> a, b, ratios;
  for (int round = 0; round < rounds; ++round) {
    a.push_back(Milliseconds([&] { run(imported, ours, logits); }));
    b.push_back(Milliseconds([&] { run(native, theirs, other); }));
    ratios.push_back(a.back() / b.back());
  }
  std::sort(ratios.begin(), ratios.end());
  std::printf("%-8s imported %8.3f ms, native %8.3f ms, ratio %.2f (%.2f to %.2f)\n",
              folder.filename().c_str(), Median(a), Median(b), Median(ratios),
              ratios[ratios.size() / 10], ratios[ratios.size() - 1 - ratios.size() / 10]);
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: onnx_bench FOLDER [rounds]\n");
    return 2;
  }
  const fs::path folder = argv[1];
  const int rounds = argc > 2 ? std::max(1, std::atoi(argv[2])) : 21;
  nn::DataShape data;
  data.features = 784;
  data.outputs = 10;
  spec::ModelSpec mlp;
  mlp.hidden = {1024, 1024};
  Compare(folder / "mlp", mlp, data, rounds);

  data = {};
  data.kind = nn::DataShape::Kind::kImages;
  data.channels = 3;
  data.height = data.width = 32;
  data.outputs = 10;
  Compare(folder / "resnet", spec::DefaultModel("resnet18"), data, rounds);

  data = {};
  data.kind = nn::DataShape::Kind::kTokens;
  data.vocabulary = 1000;
  data.context = 128;
  data.outputs = 3;
  spec::ModelSpec bert = spec::DefaultModel("transformer", "bert");
  bert.transformer.layers = 4;
  bert.transformer.width = 256;
  bert.transformer.heads = 4;
  Compare(folder / "bert", bert, data, rounds);
  return 0;
}

}  // namespace
}  // namespace lepton

int main(int argc, char** argv) {
  return lepton::Main(argc, argv);
}
