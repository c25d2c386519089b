// Graphs leave as ONNX and come back: every op's cases give the same numbers through our own
// importer, and what has no form in ONNX says so. With LEPTON_EXPORT_DIR set the models are also
// left in that folder, for the public checker (export_checker_test.sh).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "runtime/base/file.h"
#include "runtime/formats/onnx/export.h"
#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/graph/executor.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::onnx {
namespace {

using engine_test::OpCase;
using engine_test::RandomTensor;
using graph::Graph;
using graph::ValueId;

void Leave(const std::string& name, const std::string& bytes) {
  if (const char* folder = std::getenv("LEPTON_EXPORT_DIR")) {
    ASSERT_TRUE(WriteFileAtomic(std::filesystem::path(folder) / name, bytes).ok());
  }
}

// The graph's single output for the inputs given, by our executor.
HostTensor RunGraph(const Graph& graph, ValueId output,
                    const std::map<ValueId, TensorView>& sources) {
  Graph copy = graph;
  EXPECT_TRUE(copy.AddOutput(output, false).ok());
  std::vector<TensorType> types;
  for (size_t i = 0; i < graph.values().size(); ++i) {
    if (graph.values()[i].kind == graph::ValueKind::kInput) {
      types.push_back(sources.at(static_cast<ValueId>(i)).type);
    }
  }
  auto plan = graph::Plan::Make(copy, kernels::CpuKernels(), {}, types);
  EXPECT_TRUE(plan.ok()) << plan.status().ToString();
  for (const auto& [id, view] : sources) (*plan)->Bind(id, view.data);
  (*plan)->RunPrologue({});
  (*plan)->Run({});
  const TensorView& view = (*plan)->view(output);
  return HostTensor(view.type, view.data);
}

Result<HostTensor> RunOnnx(const ExportedModel& exported, NamedValues inputs,
                           const std::filesystem::path& folder = {}) {
  onnx_proto::ModelProto proto;
  LEPTON_RETURN_IF_ERROR(ParseModel(exported.model, &proto));
  ImportOptions options;
  options.external = folder;
  LEPTON_ASSIGN_OR_RETURN(ImportedModel model, Import(proto, inputs, options));
  LEPTON_ASSIGN_OR_RETURN(NamedValues outputs, Run(model, inputs));
  return std::move(outputs.begin()->second.tensor);
}

// Imported with its batch and sequence open.
Result<HostTensor> RunOpen(const ExportedModel& exported, NamedValues inputs) {
  onnx_proto::ModelProto proto;
  LEPTON_RETURN_IF_ERROR(ParseModel(exported.model, &proto));
  ImportOptions options;
  options.open = true;
  LEPTON_ASSIGN_OR_RETURN(ImportedModel model, Import(proto, {}, options));
  LEPTON_ASSIGN_OR_RETURN(NamedValues outputs, Run(model, inputs));
  return std::move(outputs.begin()->second.tensor);
}

void ExpectClose(const HostTensor& got, const HostTensor& wanted, double tolerance,
                 const std::string& what) {
  ASSERT_EQ(got.type, wanted.type) << what;
  const auto a = AsDoubles(got), b = AsDoubles(wanted);
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_NEAR(a[i], b[i], tolerance * (1 + std::abs(b[i]))) << what << ", element " << i;
  }
}

HostValue ValueOf(const TensorView& view) {
  HostValue value;
  value.kind = HostValue::Kind::kTensor;
  value.tensor = HostTensor(view.type, view.data);
  return value;
}

TEST(OnnxExport, EveryForwardOpHasAnExporterOrAReason) {
  std::set<std::string_view> listed;
  for (const ExportSupport& support : ExportedOps()) {
    EXPECT_TRUE(listed.insert(support.op).second) << support.op << " is listed twice";
    EXPECT_NE(ops::OpList().Find(support.op), nullptr) << support.op << " is no op";
  }
  for (const graph::Op* op : ops::OpList().ops()) {
    if (op->name().ends_with("_grad")) continue;
    EXPECT_TRUE(listed.contains(op->name()))
        << op->name() << ": add an exporter or a reason (runtime/formats/onnx/export_rule_list.cc)";
  }
}

// The case through ONNX and back; the status of the export when that is refused.
Status RoundTrip(std::string_view op, OpCase& op_case, const std::string& file) {
  Graph graph(ops::OpList());
  std::map<ValueId, TensorView> sources;
  std::vector<ValueId> inputs;
  NamedValues named;
  for (size_t i = 0; i < op_case.inputs.size(); ++i) {
    const std::string name = "input" + std::to_string(i);
    inputs.push_back(graph.AddInput(name, op_case.inputs[i].type));
    sources[inputs.back()] = op_case.inputs[i].view();
    named[name] = ValueOf(op_case.inputs[i].view());
  }
  LEPTON_ASSIGN_OR_RETURN(const ValueId y, graph.Add(op, inputs, op_case.attributes));
  ExportRequest request;
  request.graph = &graph;
  request.outputs = {{"y", y}};
  LEPTON_ASSIGN_OR_RETURN(const ExportedModel exported, Export(request));
  Leave(file, exported.model);
  auto got = RunOnnx(exported, std::move(named));
  EXPECT_TRUE(got.ok()) << file << ": " << got.status().ToString();
  if (got.ok()) ExpectClose(*got, RunGraph(graph, y, sources), 2e-5, file + " " + op_case.label);
  return Status::Ok();
}

TEST(OnnxExport, EveryOpsCasesComeBackTheSame) {
  // Forms that only gradients or callers outside of models use.
  const std::set<std::string> refused = {
      "matmul: rows of three axes, transposed",
      "rope: angles",
  };
  int cases = 0;
  for (const ExportSupport& support : ExportedOps()) {
    if (!support.reason.empty() || support.op == "cast" || support.op == "dropout") continue;
    int index = 0;
    std::vector<OpCase> list = engine_test::CasesFor(support.op, DType::kF32, 3, 8);
    if (list.empty()) list = engine_test::CasesFor(support.op, DType::kI32, 3, 8);
    for (OpCase& op_case : list) {
      if (op_case.attributes.Int("training") != 0) continue;
      const std::string label = std::string(support.op) + ": " + op_case.label;
      const std::string file = std::string(support.op) + std::to_string(index++) + ".onnx";
      const Status status = RoundTrip(support.op, op_case, file);
      EXPECT_EQ(status.ok(), !refused.contains(label)) << label << ": " << status.ToString();
      ++cases;
    }
    EXPECT_GT(index, 0) << support.op << " has no case";
  }
  EXPECT_GT(cases, 60);
}

// A block of a transformer, with everything open that may be.
struct Block {
  explicit Block(bool causal) {
    const TensorType open{DType::kF32, {Shape::kBatch, Shape::kSequence, 16}};
    const ValueId tokens =
        graph.AddInput("tokens", {DType::kI32, {Shape::kBatch, Shape::kSequence}});
    const ValueId mask = graph.AddInput("mask", {DType::kF32, {Shape::kBatch, Shape::kSequence}});
    const ValueId table = Weight("embedding.weight", {11, 16});
    const ValueId x = Add("gather", {table, tokens}, {{"axis", int64_t{0}}});
    const ValueId q = Add("rope", {Linear("q", x, 16, 16)}, {{"size", int64_t{4}}});
    const ValueId k = Add("rope", {Linear("k", x, 16, 8)}, {{"size", int64_t{4}}});
    const ValueId v = Linear("v", x, 16, 8);
    std::vector<ValueId> inputs = {q, k, v};
    if (!causal) inputs.push_back(mask);
    const ValueId mixed =
        Add("attention", inputs,
            {{"heads", int64_t{4}}, {"kv_heads", int64_t{2}}, {"causal", int64_t{causal}}});
    const ValueId y = Add("add", {x, Linear("o", mixed, 16, 16)});
    const ValueId normed = Add("rms_norm", {y, Weight("norm.weight", {16})}, {{"epsilon", 1e-6}});
    out = Linear("head", Add("silu", {normed}), 16, 11);
    this->tokens = tokens;
    this->mask = mask;
  }

  ValueId Add(std::string_view op, std::vector<ValueId> inputs, graph::Attributes attributes = {}) {
    auto added =
        graph.Add(op, std::move(inputs), std::move(attributes), "block/" + std::string(op));
    EXPECT_TRUE(added.ok()) << added.status().ToString();
    return added.ok() ? *added : 0;
  }
  ValueId Weight(const std::string& name, const Shape& shape) {
    const ValueId id = graph.AddParameter(name, {DType::kF32, shape});
    tensors.push_back(RandomTensor({DType::kF32, shape}, 100 + id, -0.5, 0.5));
    weights[id] = {};
    ids.push_back(id);
    return id;
  }
  ValueId Linear(const std::string& name, ValueId x, int64_t in, int64_t out_width) {
    return Add("matmul", {x, Weight(name + ".weight", {in, out_width})});
  }
  void BindWeights() {
    for (size_t i = 0; i < ids.size(); ++i) weights[ids[i]] = tensors[i].view();
  }

  Graph graph{ops::OpList()};
  std::vector<engine_test::HostTensor> tensors;
  std::vector<ValueId> ids;
  std::map<ValueId, TensorView> weights;
  ValueId tokens = 0, mask = 0, out = 0;
};

NamedValues TokenInputs(const TensorView& tokens, const TensorView& mask) {
  std::vector<double> ids, kept;
  for (const int32_t id : tokens.span<int32_t>()) ids.push_back(id);
  for (const float bias : mask.span<float>()) kept.push_back(bias == 0 ? 1 : 0);
  NamedValues named;
  named["input_ids"].kind = named["attention_mask"].kind = HostValue::Kind::kTensor;
  named["input_ids"].tensor = TensorOf(DType::kI64, tokens.shape(), ids);
  named["attention_mask"].tensor = TensorOf(DType::kI64, mask.shape(), kept);
  return named;
}

TEST(OnnxExport, OpenTransformerBlocksFitEveryBatchAndLength) {
  for (const bool causal : {false, true}) {
    Block block(causal);
    block.BindWeights();
    ExportRequest request;
    request.graph = &block.graph;
    request.outputs = {{"logits", block.out}};
    request.weights = block.weights;
    request.metadata = {{"task", "test"}};
    const auto exported = Export(request);
    ASSERT_TRUE(exported.ok()) << exported.status().ToString();
    EXPECT_TRUE(exported->data.empty());
    Leave(causal ? "block_causal.onnx" : "block_mask.onnx", exported->model);
    for (const Shape& shape : {Shape({1, 1}), Shape({2, 5}), Shape({3, 9})}) {
      auto tokens = RandomTensor({DType::kI32, shape}, 3, 0, 11);
      auto mask = RandomTensor({DType::kF32, shape}, 4, -1, 1);
      for (int64_t i = 0; i < shape.elements(); ++i) {
        // The first token of a row always counts.
        mask.floats()[i] = i % shape[1] > 0 && mask.floats()[i] > 0 ? -1e9f : 0.0f;
      }
      std::map<ValueId, TensorView> sources = block.weights;
      sources[block.tokens] = tokens.view();
      sources[block.mask] = mask.view();
      const HostTensor wanted = RunGraph(block.graph, block.out, sources);
      auto got = RunOnnx(*exported, TokenInputs(tokens.view(), mask.view()));
      ASSERT_TRUE(got.ok()) << got.status().ToString();
      ExpectClose(*got, wanted, 1e-5, shape.ToString());
      got = RunOpen(*exported, TokenInputs(tokens.view(), mask.view()));
      ASSERT_TRUE(got.ok()) << got.status().ToString();
      ExpectClose(*got, wanted, 1e-5, "open " + shape.ToString());
    }
  }
}

// x [batch, 3] -> relu(x w): raw numbers in, a missing one is taken for the mean.
TEST(OnnxExport, NormalizationGoesIntoTheModel) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", {DType::kF32, {Shape::kBatch, 3}});
  const ValueId w = graph.AddParameter("w", {DType::kF32, {3, 2}});
  const ValueId y = *graph.Add("matmul", {x, w});
  std::vector<float> weights = {1, 0, 0, 1, 1, 1};
  ExportRequest request;
  request.graph = &graph;
  request.outputs = {{"y", y}};
  request.weights[w] = {weights.data(), graph.type(w)};
  request.normalize = {{"x", {1, 2, 3}, {2, 4, 8}}};
  const auto exported = Export(request);
  ASSERT_TRUE(exported.ok()) << exported.status().ToString();
  Leave("normalize.onnx", exported->model);
  NamedValues inputs;
  inputs["x"].kind = HostValue::Kind::kTensor;
  inputs["x"].tensor = TensorOf(DType::kF32, {2, 3}, {3, 6, 11, std::nan(""), 2, -5});
  auto got = RunOnnx(*exported, std::move(inputs));
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  EXPECT_EQ(AsDoubles(*got), (std::vector<double>{2, 2, -1, -1}));
  request.normalize->mean.pop_back();
  EXPECT_EQ(Export(request).status().code(), StatusCode::kInvalidArgument);
}

TEST(OnnxExport, LargeWeightsLeaveInASecondFile) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", {DType::kF32, {Shape::kBatch, 40}});
  const ValueId w = graph.AddParameter("w", {DType::kF32, {40, 30}});
  const ValueId v = graph.AddParameter("v", {DType::kF32, {30, 20}});
  const ValueId y = *graph.Add("matmul", {*graph.Add("matmul", {x, w}), v});
  auto weight = RandomTensor(graph.type(w), 1);
  auto second = RandomTensor(graph.type(v), 2);
  ExportRequest request;
  request.graph = &graph;
  request.outputs = {{"y", y}};
  request.weights = {{w, weight.view()}, {v, second.view()}};
  request.inline_bytes = 100;
  request.data_file = "second.data";
  const auto exported = Export(request);
  ASSERT_TRUE(exported.ok()) << exported.status().ToString();
  EXPECT_EQ(exported->data.size(), 8192 + 30 * 20 * 4);
  const auto folder = std::filesystem::temp_directory_path() / "lepton_onnx_export_test";
  std::filesystem::create_directories(folder);
  ASSERT_TRUE(WriteFileAtomic(folder / "second.data", exported->data).ok());
  Leave("second.data", exported->data);
  Leave("second.onnx", exported->model);
  auto input = RandomTensor({DType::kF32, {4, 40}}, 3);
  NamedValues inputs;
  inputs["x"] = ValueOf(input.view());
  auto got = RunOnnx(*exported, std::move(inputs), folder);
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  ExpectClose(*got, RunGraph(graph, y, {{x, input.view()}, {w, weight.view()}, {v, second.view()}}),
              1e-5, "second file");
  std::filesystem::remove_all(folder);
}

TEST(OnnxExport, MissingWeightsAndLossesAreRefused) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", {DType::kF32, {Shape::kBatch, 3}});
  const ValueId w = graph.AddParameter("w", {DType::kF32, {3, 2}});
  const ValueId y = *graph.Add("matmul", {x, w});
  ExportRequest request;
  request.graph = &graph;
  request.outputs = {{"y", y}};
  EXPECT_EQ(Export(request).status().code(), StatusCode::kInvalidArgument);
  const ValueId target = graph.AddInput("target", {DType::kF32, {Shape::kBatch, 2}});
  const ValueId loss = *graph.Add("mse", {y, target}, {}, "loss");
  std::vector<float> weights(6);
  request.weights[w] = {weights.data(), graph.type(w)};
  request.outputs = {{"loss", loss}};
  const Status status = Export(request).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("mse"), std::string::npos) << status.ToString();
}

}  // namespace
}  // namespace lepton::onnx
