// Models as PyTorch exports them as programs: the same answers as PyTorch's, gradients that equal
// finite differences, training that gets somewhere, and the way back to ONNX.
#include "runtime/nn/onnx_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "runtime/nn/weights.h"
#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/gradient_check.h"
#include "tests/runtime/nn/onnx_golden.h"
#include "tests/runtime/onnx/test_model.h"

namespace lepton::nn {
namespace {

namespace fs = std::filesystem;

Golden LoadGolden(const std::string& name) {
  return ReadGolden(fs::path(LEPTON_SOURCE_DIR) / "tests/golden/onnx" / name);
}

// The golden's inputs as the data gives them.
struct GoldenBatch {
  explicit GoldenBatch(Golden& golden, const Signature& signature) {
    tensors.resize(signature.inputs.size());
    for (size_t i = 0; i < signature.inputs.size(); ++i) {
      const std::string& name = signature.inputs[i].name;
      const std::string source = name == "tokens"        ? "input_ids"
                                 : name == "token_types" ? "token_type_ids"
                                 : name == "mask"        ? "attention_mask"
                                                         : name;
      const bool hides = name == "mask" && golden.inputs.contains("key_padding_mask");
      const onnx::HostTensor& given = golden.inputs.at(hides ? "key_padding_mask" : source).tensor;
      std::vector<double> numbers = onnx::AsDoubles(given);
      if (name == "mask") {
        for (double& number : numbers) number = (number == 0) != hides ? -1e9 : 0;
      }
      Shape shape = given.type.shape;
      if (golden.batch_second) {  // [n, batch, m] as [batch, n, m]
        const std::vector<double> turned = numbers;
        const int64_t n = shape[0], rows = shape[1], m = shape[2];
        for (int64_t k = 0; k < n * rows * m; ++k) {
          numbers[(k / m % rows * n + k / m / rows) * m + k % m] = turned[k];
        }
        shape = Shape({rows, n, m});
      }
      if (name == "x") shape = Shape({shape[0], shape.elements() / shape[0]});
      tensors[i] = onnx::TensorOf(signature.inputs[i].type.dtype, shape, numbers);
      batch.inputs.push_back(tensors[i].view());
    }
  }
  std::vector<onnx::HostTensor> tensors;
  Batch batch;
};

struct Case {
  std::string name;
  DataShape data;
};
void PrintTo(const Case& test, std::ostream* out) {
  *out << test.name;
}

DataShape Features(int64_t features, int64_t outputs) {
  DataShape data;
  data.features = features;
  data.outputs = outputs;
  return data;
}
DataShape Images(int64_t side, int64_t outputs) {
  DataShape data;
  data.kind = DataShape::Kind::kImages;
  data.channels = 3;
  data.height = data.width = side;
  data.outputs = outputs;
  return data;
}
DataShape Texts(int64_t outputs, bool per_token) {
  DataShape data;
  data.kind = DataShape::Kind::kTokens;
  data.vocabulary = 20;
  data.context = 10;
  data.outputs = outputs;
  data.per_token = per_token;
  return data;
}

class OnnxModel : public testing::TestWithParam<Case> {};

TEST_P(OnnxModel, AnswersAsItsMakerDid) {
  Golden golden = LoadGolden(GetParam().name);
  const auto signature = MakeSignature(golden.model, GetParam().data);
  ASSERT_TRUE(signature.ok()) << signature.status().ToString();
  auto program = InferenceProgram::Build(*signature, golden.model, "f32");
  ASSERT_TRUE(program.ok()) << program.status().ToString();
  CopyTo(golden, (*program)->parameters(), (*program)->weights());
  ASSERT_TRUE((*program)->Prepare().ok());
  const GoldenBatch batch(golden, *signature);
  std::vector<float> logits(golden.logits.size());
  const Status status = (*program)->Forward(batch.batch, logits);
  ASSERT_TRUE(status.ok()) << status.ToString();
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(logits[i], golden.logits[i], 2e-5);
}

TEST_P(OnnxModel, In8BitsAnswersAlmostTheSame) {
  Golden golden = LoadGolden(GetParam().name);
  const Signature signature = *MakeSignature(golden.model, GetParam().data);
  auto program = InferenceProgram::Build(signature, golden.model, "int8");
  ASSERT_TRUE(program.ok()) << program.status().ToString();
  CopyTo(golden, (*program)->parameters(), (*program)->weights());
  ASSERT_TRUE((*program)->Prepare().ok());
  const GoldenBatch batch(golden, signature);
  std::vector<float> logits(golden.logits.size());
  const Status status = (*program)->Forward(batch.batch, logits);
  ASSERT_TRUE(status.ok()) << status.ToString();
  double largest = 0, error = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    largest = std::max(largest, std::abs(double{golden.logits[i]}));
    error = std::max(error, std::abs(double{logits[i]} - golden.logits[i]));
  }
  EXPECT_GT(error, 1e-5 * largest) << "nothing was quantised";
  EXPECT_LT(error, 0.06 * largest);
}

TEST_P(OnnxModel, GradientsEqualFiniteDifferencesAndTheWayBackIsTheSameModel) {
  Golden golden = LoadGolden(GetParam().name);
  const Signature signature = *MakeSignature(golden.model, GetParam().data);
  TrainingProgram::Options options;
  options.model = golden.model;
  options.optimizer.lr = 0.01;
  auto built = TrainingProgram::Build(signature, options);
  ASSERT_TRUE(built.ok()) << built.status().ToString();
  TrainingProgram& program = **built;
  CopyTo(golden, program.parameters(), program.weights());
  const GoldenBatch batch(golden, signature);
  const int64_t predictions = Predictions(signature, batch.batch);
  std::vector<int32_t> classes(predictions);
  for (int64_t i = 0; i < predictions; ++i) {
    classes[i] = static_cast<int32_t>((i * 7 + 1) % signature.outputs);
  }
  Targets targets;
  targets.classes = classes;
  // A residual network has too many kinks for differences of its whole loss: its ops are checked
  // one by one in the engine's tests.
  if (GetParam().name != "resnet") CheckGradients(program, batch.batch, targets);

  std::vector<float> logits(golden.logits.size());
  const double before = program.Evaluate(batch.batch, targets, logits).value().sum;
  for (uint64_t step = 0; step < 20; ++step) {
    ASSERT_TRUE(program.ForwardBackward(batch.batch, targets, step, 0).ok());
    program.ApplyGradients(step, 1.0 / static_cast<double>(predictions));
  }
  EXPECT_LT(program.Evaluate(batch.batch, targets, logits).value().sum, 0.8 * before);

  std::map<std::string, TensorView> weights;
  for (const ParameterView& view : program.parameters()) {
    weights[view.name] = {program.weights().data() + view.offset, {DType::kF32, Shape(view.shape)}};
  }
  const auto whole = onnx::PutTogether(*golden.model.onnx_graph, weights);
  ASSERT_TRUE(whole.ok()) << whole.status().ToString();
  onnx_proto::ModelProto proto;
  ASSERT_TRUE(onnx::ParseModel(whole->model, &proto).ok());
  auto again = onnx::Import(proto, golden.inputs);
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  auto outputs = onnx::Run(*again, golden.inputs);
  ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
  const auto y = onnx::AsDoubles(outputs->at("logits").tensor);
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(logits[i], y[i], 1e-4);
}

INSTANTIATE_TEST_SUITE_P(
    All, OnnxModel,
    testing::Values(Case{"mlp", Features(5, 3)}, Case{"resnet", Images(12, 3)},
                    Case{"bert", Texts(3, false)}, Case{"bert_opset17", Texts(3, false)},
                    Case{"gpt", Texts(0, true)}, Case{"gpt2", Texts(0, true)},
                    Case{"fixed_batch", Features(4, 2)}, Case{"library_rows", Features(24, 3)},
                    Case{"library_columns", Features(24, 3)},
                    Case{"library_weights", Features(24, 3)},
                    Case{"library_texts", Texts(3, false)}, Case{"library_gpt", Texts(0, true)}),
    [](const auto& info) { return info.param.name; });

TEST(OnnxModelSignature, WhatDoesNotFitSaysSo) {
  const Golden golden = LoadGolden("mlp");
  const auto says = [&](const DataShape& data, const std::string& text) {
    const Status status = MakeSignature(golden.model, data).status();
    EXPECT_NE(status.message().find(text), std::string::npos) << status.ToString();
  };
  says(Features(6, 3), "takes 5 numbers a row, but the data has 6 features");
  says(Features(5, 4), "gives 3 outputs, but the data has 4");
  says(Texts(3, false), "input_ids");
  says(Images(12, 3), "does not take pictures of [3, 12, 12]");
  const Status open = MakeSignature(LoadGolden("library_encoder").model, Features(64, 3)).status();
  EXPECT_NE(open.message().find("only the batch may be open"), std::string::npos);
  spec::ModelSpec empty;
  empty.arch = "onnx";
  EXPECT_EQ(MakeSignature(empty, Features(5, 3)).status().code(), StatusCode::kFailedPrecondition);
}

spec::ModelSpec SpecOf(const onnx::TestModel& test) {
  spec::ModelSpec model{.arch = "onnx"};
  model.onnx_graph = std::make_shared<std::string>(test.proto.SerializeAsString());
  return model;
}

// x [batch, 2] in, y [batch, 2] out, and constants that tests use.
onnx::TestModel Rows() {
  onnx::TestModel m;
  m.Input("x", onnx::kFloatCode, {-1, 2}).Output("y");
  m.Integers("axis0", {1}, {0}).Integers("axis1", {1}, {1}).Integers("pair", {2}, {0, 1});
  m.Integers("zero", {}, {0}).Integers("one", {}, {1});
  return m;
}

// A batch is padded, divided and joined with other requests' rows: a row's answer is its own.
TEST(OnnxModelRows, GraphsThatMixTheRowsOfABatchAreRefused) {
  const auto refused = [](const std::string& node, auto&& add) {
    onnx::TestModel m = Rows();
    add(m);
    const Status status = MakeSignature(SpecOf(m), Features(2, 2)).status();
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << node << ": " << status.ToString();
    EXPECT_NE(status.message().find(node), std::string::npos) << status.ToString();
    EXPECT_NE(status.message().find("rows of the batch"), std::string::npos) << status.ToString();
  };
  refused("ReduceMean", [](auto& m) {
    m.Node("ReduceMean", {"x"}, "mean").List("axes", {0}).Node("Sub", {"x", "mean"}, "y");
  });
  refused("ReduceMax", [](auto& m) {
    m.Node("ReduceMax", {"x"}, "most").List("axes", {0, 1}).Node("Sub", {"x", "most"}, "y");
  });
  refused("DynamicQuantizeLinear", [](auto& m) {
    m.Node("DynamicQuantizeLinear", {"x"}, "q");
    m.graph().mutable_node(0)->add_output("scale");
    m.graph().mutable_node(0)->add_output("middle");
    m.Node("DequantizeLinear", {"q", "scale", "middle"}, "y");
  });
  refused("Softmax", [](auto& m) { m.Node("Softmax", {"x"}, "y", {{"axis", 0}}); });
  refused("CumSum", [](auto& m) { m.Node("CumSum", {"x", "zero"}, "y"); });
  refused("ArgMax", [](auto& m) {
    m.Node("ArgMax", {"x"}, "at", {{"axis", 0}}).Node("Cast", {"at"}, "f", {{"to", 1}});
    m.Node("Add", {"x", "f"}, "y");
  });
  refused("Gather", [](auto& m) {
    m.Node("Gather", {"x", "axis0"}, "first").Node("Sub", {"x", "first"}, "y");
  });
  refused("GatherND", [](auto& m) {
    m.Integers("place", {1, 1}, {0}).Node("GatherND", {"x", "place"}, "first");
    m.Node("Sub", {"x", "first"}, "y");
  });
  refused("GatherElements", [](auto& m) {
    m.Integers("places", {1, 2}, {0, 0}).Node("GatherElements", {"x", "places"}, "first");
    m.Node("Sub", {"x", "first"}, "y");
  });
  refused("MatMul", [](auto& m) {
    m.Node("Transpose", {"x"}, "t").List("perm", {1, 0}).Node("MatMul", {"t", "x"}, "gram");
    m.Node("MatMul", {"x", "gram"}, "y");
  });
  refused("MatMul", [](auto& m) {
    m.Node("Transpose", {"x"}, "t").List("perm", {1, 0}).Node("MatMul", {"x", "t"}, "pairs");
    m.Node("MatMul", {"pairs", "x"}, "y");
  });
  refused("Sub", [](auto& m) {
    m.Node("Unsqueeze", {"x", "axis1"}, "rows").Node("Sub", {"x", "rows"}, "differences");
    m.Node("ReduceMax", {"differences"}, "y", {{"keepdims", 0}}).List("axes", {1});
  });
  refused("Reshape", [](auto& m) {  // the numbers of [2, 3] in the order of [3, 2]
    m.Node("Shape", {"x"}, "shape").Node("Gather", {"shape", "swapped"}, "wanted");
    m.Integers("swapped", {2}, {1, 0}).Node("Reshape", {"x", "wanted"}, "moved");
    m.Node("Transpose", {"moved"}, "y").List("perm", {1, 0});
  });
  refused("Softmax", [](auto& m) {  // over all numbers of all rows
    m.Integers("column", {2}, {-1, 1}).Node("Reshape", {"x", "column"}, "all");
    m.Node("Shape", {"x"}, "shape").Node("Softmax", {"all"}, "p", {{"axis", 0}});
    m.Node("Reshape", {"p", "shape"}, "y");
  });
  refused("Max", [](auto& m) {
    m.Node("Shape", {"x"}, "shape").Node("Gather", {"shape", "zero"}, "n");
    m.Node("Range", {"zero", "n", "one"}, "number").Node("Max", {"number", "one"}, "most");
    m.Node("Cast", {"most"}, "f", {{"to", 1}}).Node("Unsqueeze", {"f", "axis1"}, "column");
    m.Node("Add", {"x", "column"}, "y");
  });
  refused("Cast", [](auto& m) {  // where a row lies in its batch
    m.Node("Shape", {"x"}, "shape").Node("Gather", {"shape", "zero"}, "n");
    m.Node("Range", {"zero", "n", "one"}, "number").Node("Cast", {"number"}, "f", {{"to", 1}});
    m.Node("Unsqueeze", {"f", "axis1"}, "column").Node("Add", {"x", "column"}, "y");
  });
}

// x[arange(batch), argmax(x)]: by its place in the batch a row finds itself.
TEST(OnnxModelRows, RowsMayBeTakenByTheirOwnPlaces) {
  onnx::TestModel m = Rows();
  m.Node("ArgMax", {"x"}, "best", {{"axis", 1}, {"keepdims", 1}});
  m.Node("Shape", {"x"}, "shape").Node("Gather", {"shape", "zero"}, "n");
  m.Node("Range", {"zero", "n", "one"}, "number").Node("Unsqueeze", {"number", "axis1"}, "column");
  m.Node("Concat", {"column", "best"}, "places", {{"axis", 1}});
  m.Node("GatherND", {"x", "places"}, "most").Node("Unsqueeze", {"most", "axis1"}, "wide");
  m.Node("Sub", {"x", "wide"}, "y");
  const auto signature = MakeSignature(SpecOf(m), Features(2, 2));
  ASSERT_TRUE(signature.ok()) << signature.status().ToString();
  auto program = InferenceProgram::Build(*signature, SpecOf(m), "f32");
  ASSERT_TRUE(program.ok()) << program.status().ToString();
  ASSERT_TRUE((*program)->Bind(std::make_shared<StoredWeights>(std::vector<const float*>())).ok());
  ASSERT_TRUE((*program)->Prepare().ok());
  const std::vector<float> x = {1, 3, 5, 4, 7, 7};
  std::vector<float> logits(6);
  ASSERT_TRUE((*program)->Forward(Batch::Features(x, 2), logits).ok());
  EXPECT_EQ(logits, (std::vector<float>{-2, 0, 0, -1, 0, 0}));
}

// As PyTorch's exporter writes x[arange(batch), index]: the indices get the shape of their largest.
TEST(OnnxModelRows, OfNumbersOfRowsTheShapeMayBeAsked) {
  onnx::TestModel m = Rows();
  m.Node("ArgMax", {"x"}, "best", {{"axis", 1}, {"keepdims", 0}});
  m.Node("Shape", {"x"}, "shape").Node("Gather", {"shape", "zero"}, "n");
  m.Node("Range", {"zero", "n", "one"}, "number");
  m.Node("Max", {"number", "best"}, "broad").Node("Shape", {"broad"}, "common");
  for (const std::string name : {"number", "best"}) {
    m.Node("Expand", {name, "common"}, name + ".all");
    m.Node("Unsqueeze", {name + ".all", "axis1"}, name + ".column");
  }
  m.Node("Concat", {"number.column", "best.column"}, "places", {{"axis", 1}});
  m.Node("GatherND", {"x", "places"}, "most").Node("Unsqueeze", {"most", "axis1"}, "wide");
  m.Node("Sub", {"x", "wide"}, "y");
  const auto signature = MakeSignature(SpecOf(m), Features(2, 2));
  EXPECT_TRUE(signature.ok()) << signature.status().ToString();
}

// As newer models of transformers read their attention_mask: [batch, sequence] by [batch, 1] and
// [sequence].
TEST(OnnxModelRows, AMaskMayBeReadByItsOwnPlaces) {
  onnx::TestModel m;
  m.Input("input_ids", onnx::kInt64Code, {-1, -1})
      .Input("attention_mask", onnx::kInt64Code, {-1, -1});
  m.Output("y")
      .Floats("table", {3, 1}, {1, 10, 100})
      .Node("Gather", {"table", "input_ids"}, "vectors");
  m.Integers("zero", {}, {0}).Integers("one", {}, {1}).Integers("axis1", {1}, {1});
  m.Integers("axis2", {1}, {2}).Node("Shape", {"attention_mask"}, "shape");
  m.Node("Gather", {"shape", "zero"}, "rows").Node("Gather", {"shape", "one"}, "length");
  m.Node("Range", {"zero", "rows", "one"}, "row").Node("Unsqueeze", {"row", "axis1"}, "row.wide");
  m.Node("Range", {"zero", "length", "one"}, "place");
  m.Node("Max", {"row.wide", "place"}, "broad").Node("Shape", {"broad"}, "common");
  for (const std::string name : {"row.wide", "place"}) {
    m.Node("Expand", {name, "common"}, name + ".all");
    m.Node("Unsqueeze", {name + ".all", "axis2"}, name + ".last");
  }
  m.Node("Concat", {"row.wide.last", "place.last"}, "places", {{"axis", 2}});
  m.Node("GatherND", {"attention_mask", "places"}, "seen");
  m.Node("Cast", {"seen"}, "weights", {{"to", onnx::kFloatCode}});
  m.Node("Unsqueeze", {"weights", "axis2"}, "w").Node("Mul", {"vectors", "w"}, "kept");
  m.Node("ReduceSum", {"kept", "axis1"}, "y", {{"keepdims", 0}});
  const auto signature = MakeSignature(SpecOf(m), Texts(1, false));
  EXPECT_TRUE(signature.ok()) << signature.status().ToString();
}

// A text classifier of `tokens` and a mask of this name and type: the mean of the tokens that the
// mask says are there (`hides`: are not there).
onnx::TestModel Masked(const std::string& mask, int code, bool hides, int64_t batch = -1) {
  onnx::TestModel m;
  m.Input("tokens", onnx::kInt64Code, {batch, -1}).Input(mask, code, {batch, -1}).Output("y");
  m.Floats("table", {3, 1}, {1, 10, 100}).Node("Gather", {"table", "tokens"}, "vectors");
  m.Node("Cast", {mask}, "given", {{"to", onnx::kFloatCode}});
  m.Floats("all", {}, {1}).Integers("axis1", {1}, {1}).Integers("axis2", {1}, {2});
  m.Node(hides ? "Sub" : "Mul", {"all", "given"}, "seen").Node("Unsqueeze", {"seen", "axis2"}, "s");
  m.Node("Mul", {"vectors", "s"}, "kept");
  m.Node("ReduceSum", {"kept", "axis1"}, "y", {{"keepdims", 0}});
  return m;
}

TEST(OnnxModelMasks, AKeyPaddingMaskIsTrueForWhatIsNoToken) {
  struct Named {
    std::string mask;
    int code;
    bool hides;
  };
  for (const Named& named : {Named{"attention_mask", onnx::kInt64Code, false},
                             Named{"src_key_padding_mask", onnx::kBoolCode, true},
                             Named{"key_padding_mask", onnx::kInt64Code, true}}) {
    const spec::ModelSpec model = SpecOf(Masked(named.mask, named.code, named.hides));
    DataShape data = Texts(1, false);
    data.vocabulary = 3;
    const auto signature = MakeSignature(model, data);
    ASSERT_TRUE(signature.ok()) << signature.status().ToString();
    auto program = InferenceProgram::Build(*signature, model, "f32");
    ASSERT_TRUE(program.ok()) << program.status().ToString();
    ASSERT_TRUE(
        (*program)->Bind(std::make_shared<StoredWeights>(std::vector<const float*>())).ok());
    ASSERT_TRUE((*program)->Prepare().ok());
    onnx::HostTensor tokens = onnx::TensorOf(DType::kI32, Shape({2, 3}), {0, 1, 2, 2, 1, 0});
    onnx::HostTensor mask = onnx::TensorOf(DType::kF32, Shape({2, 3}), {0, 0, 0, 0, -1e9, -1e9});
    Batch batch;
    batch.inputs = {tokens.view(), mask.view()};
    std::vector<float> logits(2);
    ASSERT_TRUE((*program)->Forward(batch, logits).ok());
    EXPECT_EQ(logits, (std::vector<float>{111, 100})) << named.mask;
  }
}

// Of [1, length] the open axis is no batch.
TEST(OnnxModelMasks, ABatchOfOneMayBeFixedBesideAnOpenLength) {
  const spec::ModelSpec model = SpecOf(Masked("attention_mask", onnx::kInt64Code, false, 1));
  const auto signature = MakeSignature(model, Texts(1, false));
  ASSERT_TRUE(signature.ok()) << signature.status().ToString();
}

TEST(OnnxModelMasks, AMaskThatMayMeanEitherIsRefused) {
  for (const auto& [mask, code] :
       std::vector<std::pair<std::string, int>>{{"padding_mask", onnx::kBoolCode},
                                                {"pad_mask", onnx::kInt64Code},
                                                {"key_padding_mask", onnx::kFloatCode}}) {
    const Status status =
        MakeSignature(SpecOf(Masked(mask, code, false)), Texts(1, false)).status();
    EXPECT_FALSE(status.ok());
    EXPECT_NE(status.message().find("input '" + mask + "'"), std::string::npos)
        << status.ToString();
  }
}

TEST(OnnxModelPrecision, WithoutProductsThereIsNothingToQuantize) {
  onnx_proto::ModelProto proto;
  ASSERT_TRUE(
      onnx::ParseModel(*ReadFile(fs::path(LEPTON_SOURCE_DIR) / "tests/golden/onnx/mlp/model.onnx"),
                       &proto)
          .ok());
  auto& graph = *proto.mutable_graph();
  const std::string x = graph.input(0).name(), y = graph.output(0).name();
  graph.mutable_output(0)->mutable_type()->CopyFrom(graph.input(0).type());
  graph.clear_node();
  graph.clear_initializer();
  auto* node = graph.add_node();
  node->set_op_type("Relu");
  node->add_input(x);
  node->add_output(y);
  spec::ModelSpec model{.arch = "onnx"};
  model.onnx_graph = std::make_shared<std::string>(proto.SerializeAsString());
  const auto signature = MakeSignature(model, Features(5, 5));
  ASSERT_TRUE(signature.ok()) << signature.status().ToString();
  EXPECT_TRUE(InferenceProgram::Build(*signature, model, "f32").ok());
  const auto program = InferenceProgram::Build(*signature, model, "int8");
  ASSERT_FALSE(program.ok());
  EXPECT_NE(program.status().message().find("precision: int8: this ONNX model has no product"),
            std::string::npos)
      << program.status().ToString();
}

TEST(OnnxModelFacts, SayWhatAModelTakes) {
  const auto mlp = ExamineOnnx(LoadGolden("mlp").model);
  ASSERT_TRUE(mlp.ok()) << mlp.status().ToString();
  EXPECT_EQ(mlp->data.features, 5);
  EXPECT_EQ(mlp->data.outputs, 3);
  EXPECT_TRUE(mlp->trains) << mlp->reason;
  const auto gpt = ExamineOnnx(LoadGolden("gpt").model);
  ASSERT_TRUE(gpt.ok()) << gpt.status().ToString();
  EXPECT_EQ(gpt->data.kind, DataShape::Kind::kTokens);
  EXPECT_TRUE(gpt->data.per_token);
  EXPECT_EQ(gpt->data.vocabulary, 20);
  EXPECT_EQ(gpt->data.context, 10);
  EXPECT_EQ(ExamineOnnx(LoadGolden("bert").model)->data.context, 10);
  DataShape longer = Texts(0, true);
  longer.context = 11;
  const Status status = MakeSignature(LoadGolden("gpt").model, longer).status();
  EXPECT_NE(status.message().find("context: the model has places for 10 tokens"), std::string::npos)
      << status.ToString();
  const auto resnet = ExamineOnnx(LoadGolden("resnet").model);
  ASSERT_TRUE(resnet.ok()) << resnet.status().ToString();
  EXPECT_EQ(resnet->data.height, 12);
}

}  // namespace
}  // namespace lepton::nn
