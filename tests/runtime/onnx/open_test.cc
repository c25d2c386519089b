// Models as PyTorch exports them (tests/golden/onnx), imported with their batch and sequence open:
// the same numbers for any batch, by the ops that are fast and have gradients.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "runtime/base/file.h"
#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/graph/passes/live_nodes.h"
#include "tests/runtime/onnx/one_node.h"
#include "tests/runtime/onnx/test_model.h"

namespace lepton::onnx {
namespace {

namespace fs = std::filesystem;

struct GoldenCase {
  onnx_proto::ModelProto proto;
  NamedValues inputs, outputs;
};

GoldenCase ReadGolden(const std::string& name) {
  GoldenCase golden;
  const fs::path folder = fs::path(LEPTON_SOURCE_DIR) / "tests/golden/onnx" / name;
  const auto bytes = ReadFile(folder / "model.onnx");
  EXPECT_TRUE(bytes.ok() && ParseModel(*bytes, &golden.proto).ok()) << folder;
  const auto read = [&](const std::string& stem, const auto& infos, NamedValues& values) {
    for (int i = 0; i < infos.size(); ++i) {
      const auto data = ReadFile(folder / "test_data_set_0" / (stem + std::to_string(i) + ".pb"));
      EXPECT_TRUE(data.ok()) << data.status().ToString();
      values[infos[i].name()] = *ParseValue(*data, infos[i].type());
    }
  };
  read("input_", golden.proto.graph().input(), golden.inputs);
  read("output_", golden.proto.graph().output(), golden.outputs);
  return golden;
}

// The rows, `times` one after the other.
NamedValues Repeated(const NamedValues& values, int64_t times) {
  NamedValues repeated;
  for (const auto& [name, value] : values) {
    std::vector<int64_t> extents = value.tensor.type.shape.extents();
    extents[0] *= times;
    HostValue& copy = repeated[name];
    copy.kind = value.kind;
    copy.tensor = HostTensor(TensorType{value.tensor.type.dtype, Shape(extents)});
    const size_t bytes = value.tensor.type.bytes();
    for (int64_t i = 0; i < times; ++i) {
      std::memcpy(copy.tensor.data.as<char>() + i * bytes, value.tensor.data.data(), bytes);
    }
  }
  return repeated;
}

std::multiset<std::string> LiveOps(const graph::Graph& graph) {
  std::multiset<std::string> ops;
  const graph::Schedule schedule = graph::ScheduleLiveNodes(graph);
  for (const graph::NodeId id : schedule.body)
    ops.insert(std::string(graph.nodes()[id].op->name()));
  return ops;
}

void ExpectRight(const std::string& name, std::multiset<std::string> wanted_ops) {
  const GoldenCase golden = ReadGolden(name);
  ImportOptions options;
  options.open = true;
  auto model = Import(golden.proto, {}, options);
  ASSERT_TRUE(model.ok()) << name << ": " << model.status().ToString();
  EXPECT_EQ(model->graph->type(model->outputs[0].ref.id).shape[0], Shape::kBatch);
  for (const int64_t times : {1, 3}) {
    NamedValues inputs = Repeated(golden.inputs, times);
    const NamedValues wanted = Repeated(golden.outputs, times);
    auto got = Run(*model, inputs);
    ASSERT_TRUE(got.ok()) << name << ": " << got.status().ToString();
    const HostTensor& y = got->at("logits").tensor;
    ASSERT_EQ(y.type, wanted.at("logits").tensor.type) << name;
    const auto a = AsDoubles(y), b = AsDoubles(wanted.at("logits").tensor);
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-5) << name << " " << i;
  }
  if (wanted_ops.empty()) return;
  const auto ops = LiveOps(*model->graph);
  EXPECT_EQ(ops, wanted_ops) << name << ":\n" << model->graph->ToString();
}

TEST(OnnxOpen, Mlp) {
  ExpectRight("mlp",
              {"matmul", "matmul", "matmul", "bias_add", "bias_add", "bias_add", "relu", "relu"});
}

TEST(OnnxOpen, ResNet) {
  std::multiset<std::string> ops = {"max_pool2d", "reduce", "matmul", "bias_add"};
  for (int i = 0; i < 6; ++i)
    ops.insert({"conv2d", "add"});  // the exporter folds norms into biases
  for (int i = 0; i < 2; ++i) ops.insert("add");
  for (int i = 0; i < 5; ++i) ops.insert("relu");
  ops.insert("reshape");  // of the pictures to rows, for their mean
  ExpectRight("resnet", ops);
}

TEST(OnnxOpen, Bert) {
  for (const char* name : {"bert", "bert_opset17"}) {
    ExpectRight(name, {});
    const GoldenCase golden = ReadGolden(name);
    ImportOptions options;
    options.open = true;
    const auto model = Import(golden.proto, {}, options);
    ASSERT_TRUE(model.ok());
    const auto ops = LiveOps(*model->graph);
    EXPECT_EQ(ops.count("attention"), 1) << model->graph->ToString();
    EXPECT_EQ(ops.count("gelu"), 1);
    EXPECT_EQ(ops.count("layer_norm"), 3);
    for (const char* part : {"batch_matmul", "softmax", "unary_math", "div"}) {
      EXPECT_EQ(ops.count(part), 0) << part << "\n" << model->graph->ToString();
    }
  }
}

TEST(OnnxOpen, GptIsCausalAttention) {
  ExpectRight("gpt", {});
  const GoldenCase golden = ReadGolden("gpt");
  ImportOptions options;
  options.open = true;
  const auto model = Import(golden.proto, {}, options);
  ASSERT_TRUE(model.ok());
  const auto ops = LiveOps(*model->graph);
  EXPECT_EQ(ops.count("attention"), 1) << model->graph->ToString();
  EXPECT_EQ(ops.count("softmax"), 0);
  EXPECT_EQ(ops.count("gelu_tanh"), 1);
}

// The batch and the heads are one axis there, and the length and the batch.
TEST(OnnxOpen, TheLibrarysEncoderIsAttention) {
  for (const char* name : {"library_encoder", "library_rows", "library_texts", "library_gpt"}) {
    ExpectRight(name, {});
    const GoldenCase golden = ReadGolden(name);
    ImportOptions options;
    options.open = true;
    const auto model = Import(golden.proto, {}, options);
    ASSERT_TRUE(model.ok());
    const auto ops = LiveOps(*model->graph);
    EXPECT_EQ(ops.count("attention"), 1) << name << "\n" << model->graph->ToString();
    EXPECT_EQ(ops.count("layer_norm"), 2);
    // The model itself turns its texts, and the mask of keys becomes one of two axes.
    const size_t turns = name == std::string("library_gpt")     ? 3
                         : name == std::string("library_texts") ? 2
                                                                : 0;
    for (const char* part : {"batch_matmul", "softmax", "div"}) {
      const bool averages = part == std::string("div") && std::string(name) == "library_texts";
      EXPECT_EQ(ops.count(part), averages ? 1 : 0) << name << part << model->graph->ToString();
    }
    EXPECT_EQ(ops.count("transpose"), turns) << name << "\n" << model->graph->ToString();
  }
}

}  // namespace
}  // namespace lepton::onnx
