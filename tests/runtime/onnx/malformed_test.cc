// What is not a sound model ends in a Status: no crash, no unbounded memory.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>

#include "runtime/base/file.h"
#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/onnx.pb.h"

namespace lepton::onnx {
namespace {

using onnx_proto::ModelProto;
using onnx_proto::TensorProto;

void AddValue(onnx_proto::ValueInfoProto* info, const std::string& name,
              const std::vector<int64_t>& extents) {
  info->set_name(name);
  auto* tensor = info->mutable_type()->mutable_tensor_type();
  tensor->set_elem_type(1);
  for (const int64_t extent : extents) {
    tensor->mutable_shape()->add_dim()->set_dim_value(extent);
  }
}

onnx_proto::NodeProto* AddNode(ModelProto& model, const std::string& op,
                               const std::vector<std::string>& inputs, const std::string& output) {
  auto* node = model.mutable_graph()->add_node();
  node->set_op_type(op);
  for (const std::string& input : inputs) node->add_input(input);
  node->add_output(output);
  return node;
}

TensorProto* AddInitializer(ModelProto& model, const std::string& name,
                            const std::vector<int64_t>& extents) {
  TensorProto* tensor = model.mutable_graph()->add_initializer();
  tensor->set_name(name);
  tensor->set_data_type(1);
  for (const int64_t extent : extents) tensor->add_dims(extent);
  return tensor;
}

// y = relu(x w + v): x [2, 3], w [3, 4], v [4].
ModelProto SmallModel() {
  ModelProto model;
  model.set_ir_version(8);
  model.add_opset_import()->set_version(17);
  AddValue(model.mutable_graph()->add_input(), "x", {2, 3});
  AddValue(model.mutable_graph()->add_output(), "y", {2, 4});
  TensorProto* w = AddInitializer(model, "w", {3, 4});
  for (int i = 0; i < 12; ++i) w->add_float_data(0.1f * static_cast<float>(i));
  TensorProto* v = AddInitializer(model, "v", {4});
  const float bias[4] = {-1, 0, 1, 2};
  v->set_raw_data(bias, sizeof(bias));
  AddNode(model, "MatMul", {"x", "w"}, "xw");
  AddNode(model, "Add", {"xw", "v"}, "sum");
  AddNode(model, "Relu", {"sum"}, "y");
  return model;
}

ImportOptions Small() {
  ImportOptions options;
  options.limits = {.value_bytes = 1 << 20, .total_bytes = 1 << 22, .nodes = 1000};
  return options;
}

Status ImportStatus(const ModelProto& model, const ImportOptions& options = Small()) {
  return Import(model, {}, options).status();
}

// The most memory that this process has had so far.
int64_t PeakBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} << 10;
}

testing::AssertionResult Says(const Status& status, std::string_view text) {
  if (!status.ok() && status.message().find(text) != std::string::npos) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << status.ToString() << " does not say: " << text;
}

TEST(Onnx, RunsASmallModel) {
  auto model = Import(SmallModel(), {}, Small());
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  NamedValues inputs;
  inputs["x"].kind = HostValue::Kind::kTensor;
  inputs["x"].tensor = TensorOf(DType::kF32, Shape({2, 3}), {1, 0, 0, 0, 0, 1});
  auto outputs = onnx::Run(*model, inputs);
  ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
  const std::vector<double> y = AsDoubles(outputs->at("y").tensor);
  const std::vector<double> wanted = {0, 0.1, 1.2, 2.3, 0, 0.9, 2, 3.1};
  ASSERT_EQ(y.size(), wanted.size());
  for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], wanted[i], 1e-6);
  // Of another shape than imported.
  inputs["x"].tensor = TensorOf(DType::kF32, Shape({1, 3}), {1, 0, 0});
  EXPECT_TRUE(Says(onnx::Run(*model, inputs).status(), "input 'x' is f32[1, 3]"));
}

TEST(Onnx, TruncatedModelsAreRefused) {
  const std::string bytes = SmallModel().SerializeAsString();
  for (size_t size = 0; size < bytes.size(); ++size) {
    ModelProto model;
    EXPECT_FALSE(ParseModel(std::string_view(bytes).substr(0, size), &model).ok()) << size;
  }
}

// Flipped bytes give models of every kind of wrongness. Import and run whatever still parses.
TEST(Onnx, FlippedBytesNeverCrash) {
  const std::string good = SmallModel().SerializeAsString();
  uint64_t random = 1;
  int refused = 0, ran = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string bytes = good;
    for (int flips = 1 + round % 4; flips > 0; --flips) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      bytes[(random >> 33) % bytes.size()] = static_cast<char>(random >> 24);
    }
    ModelProto proto;
    if (!ParseModel(bytes, &proto).ok()) {
      ++refused;
      continue;
    }
    auto model = Import(proto, {}, Small());
    if (!model.ok()) {
      ++refused;
      continue;
    }
    NamedValues inputs;
    for (const NamedRef& input : model->inputs) {
      inputs[input.name].kind = HostValue::Kind::kTensor;
      inputs[input.name].tensor = HostTensor(model->graph->type(input.ref.id));
    }
    ran += onnx::Run(*model, inputs).ok() ? 1 : 0;
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(ran, 100);
}

TEST(Onnx, CyclesAreRefused) {
  ModelProto model = SmallModel();
  model.mutable_graph()->mutable_node(0)->set_input(0, "y");
  EXPECT_TRUE(Says(ImportStatus(model), "'y' is not known here"));
}

TEST(Onnx, NamesAreGivenOnce) {
  ModelProto model = SmallModel();
  AddNode(model, "Relu", {"xw"}, "y");
  EXPECT_TRUE(Says(ImportStatus(model), "'y' is given twice"));
}

TEST(Onnx, UnknownOperatorsAreNamed) {
  ModelProto model = SmallModel();
  AddNode(model, "Frobnicate", {"x"}, "z");
  EXPECT_TRUE(Says(ImportStatus(model), "operator Frobnicate"));
  model = SmallModel();
  model.mutable_opset_import(0)->set_version(99);
  EXPECT_TRUE(Says(ImportStatus(model), "operator set 99"));
}

TEST(Onnx, HugeShapesTakeNoMemory) {
  ModelProto model = SmallModel();
  model.mutable_graph()->mutable_initializer(0)->set_dims(0, int64_t{1} << 40);
  EXPECT_TRUE(Says(ImportStatus(model), "at most"));
  model.mutable_graph()->mutable_initializer(0)->set_dims(1, int64_t{1} << 40);
  EXPECT_TRUE(Says(ImportStatus(model), "beyond 64 bits"));
  model = SmallModel();
  model.mutable_graph()->mutable_initializer(0)->set_dims(0, -3);
  EXPECT_TRUE(Says(ImportStatus(model), "negative"));
  model = SmallModel();
  model.mutable_graph()->mutable_initializer(0)->set_dims(0, 300);
  EXPECT_TRUE(Says(ImportStatus(model), "its shape needs"));

  model = SmallModel();
  TensorProto* shape = AddInitializer(model, "s", {2});
  shape->set_data_type(7);
  shape->add_int64_data(int64_t{1} << 40);
  shape->add_int64_data(int64_t{1} << 40);
  AddNode(model, "ConstantOfShape", {"s"}, "z");
  EXPECT_TRUE(Says(ImportStatus(model), "beyond 64 bits"));
  AddValue(model.mutable_graph()->add_input(), "huge", {int64_t{1} << 60, 16});
  EXPECT_FALSE(ImportStatus(model).ok());
}

TEST(Onnx, EndlessLoopsEnd) {
  ModelProto model = SmallModel();
  auto* loop = AddNode(model, "Loop", {"", "", "x"}, "z");
  auto* attribute = loop->add_attribute();
  attribute->set_name("body");
  auto* body = attribute->mutable_g();
  for (const char* name : {"i", "go", "carried"}) body->add_input()->set_name(name);
  auto* node = body->add_node();
  node->set_op_type("Relu");
  node->add_input("carried");
  node->add_output("next");
  for (const char* name : {"go", "next"}) body->add_output()->set_name(name);
  EXPECT_TRUE(Says(ImportStatus(model), "more than 1000 nodes"));
}

// A body without a node, whose condition stays true.
TEST(Onnx, EmptyLoopsEnd) {
  ModelProto model = SmallModel();
  auto* loop = AddNode(model, "Loop", {"", "", "x"}, "z");
  auto* attribute = loop->add_attribute();
  attribute->set_name("body");
  auto* body = attribute->mutable_g();
  for (const char* name : {"i", "go", "carried"}) body->add_input()->set_name(name);
  for (const char* name : {"go", "carried"}) body->add_output()->set_name(name);
  const Status status = ImportStatus(model);
  EXPECT_TRUE(Says(status, "more than 1000 nodes"));
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
}

// What an operator makes of a number in the model is weighed before there is memory for it.
TEST(Onnx, HugeNumbersTakeNoMemory) {
  const auto refused = [](const std::string& op, const std::vector<int64_t>& numbers,
                          const std::string& mode) {
    ModelProto model = SmallModel();
    TensorProto* tensor = AddInitializer(model, "n", {static_cast<int64_t>(numbers.size())});
    tensor->set_data_type(7);
    for (const int64_t number : numbers) tensor->add_int64_data(number);
    auto* node = AddNode(model, op, {"x", "n"}, "z");
    if (op == "OneHot") node->add_input("v");
    if (!mode.empty()) {
      auto* attribute = node->add_attribute();
      attribute->set_name("mode");
      attribute->set_s(mode);
    }
    const int64_t before = PeakBytes();
    const Status status = ImportStatus(model);
    EXPECT_LT(PeakBytes() - before, int64_t{1} << 28) << op;
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << op << status.ToString();
    return Says(status, "at most 1048576");
  };
  EXPECT_TRUE(refused("OneHot", {1'000'000'000}, ""));
  EXPECT_TRUE(refused("Pad", {0, 0, 0, 300'000'000}, "edge"));
  EXPECT_TRUE(refused("Pad", {0, INT64_MAX, 0, INT64_MAX}, "wrap"));
  EXPECT_TRUE(refused("Pad", {0, 300'000'000, 0, 0}, "constant"));
}

TEST(Onnx, DeepNestingIsRefused) {
  ModelProto model = SmallModel();
  auto* graph = model.mutable_graph();
  for (int depth = 0; depth < 200; ++depth) {
    auto* node = graph->add_node();
    node->set_op_type("If");
    auto* attribute = node->add_attribute();
    attribute->set_name("then_branch");
    graph = attribute->mutable_g();
  }
  ModelProto parsed;
  EXPECT_TRUE(Says(ParseModel(model.SerializeAsString(), &parsed), "model:"));
}

class ExternalDataFiles : public testing::Test {
 protected:
  Status ImportWith(const std::string& location, const std::string& offset = "0") {
    ModelProto model = SmallModel();
    TensorProto* v = model.mutable_graph()->mutable_initializer(1);
    v->clear_raw_data();
    v->set_data_location(1);
    for (const auto& [key, value] : {std::pair{"location", location}, {"offset", offset}}) {
      auto* entry = v->add_external_data();
      entry->set_key(key);
      entry->set_value(value);
    }
    ImportOptions options = Small();
    options.external = {folder_.path() / "model", closed};
    return ImportStatus(model, options);
  }

  void SetUp() override {
    ASSERT_TRUE(MakeFolders(folder_.path() / "model").ok());
    for (const char* name : {"model/weights.bin", "secret.bin"}) {
      std::ofstream(folder_.path() / name, std::ios::binary) << std::string(20, '\0');
    }
    std::filesystem::create_symlink(folder_.path() / "secret.bin",
                                    folder_.path() / "model" / "link.bin");
  }

  TempFolder folder_;
  std::filesystem::path closed;
};

TEST_F(ExternalDataFiles, IsNotReadWhereOthersMayNot) {
  ASSERT_TRUE(MakeFolders(folder_.path() / "model" / "data").ok());
  std::ofstream(folder_.path() / "model" / "data" / "key", std::ios::binary)
      << std::string(20, '\0');
  EXPECT_TRUE(ImportWith("data/key").ok());
  closed = folder_.path() / "model" / "data";
  EXPECT_TRUE(Says(ImportWith("data/key"), "is not to be read"));
  EXPECT_TRUE(ImportWith("weights.bin").ok());
  closed = folder_.path();  // a folder below it was opened on purpose
  EXPECT_TRUE(ImportWith("data/key").ok());
}

TEST_F(ExternalDataFiles, IsReadWithinTheFolderOnly) {
  EXPECT_TRUE(ImportWith("weights.bin").ok());
  EXPECT_TRUE(ImportWith("weights.bin", "4").ok());
  EXPECT_TRUE(Says(ImportWith("weights.bin", "5"), "shorter than the model says"));
  EXPECT_TRUE(Says(ImportWith("weights.bin", "-1"), "not a number of bytes"));
  EXPECT_TRUE(Says(ImportWith("weights.bin", "99999999999999999999"), "not a number of bytes"));
  EXPECT_TRUE(Says(ImportWith("../secret.bin"), "outside of the model's folder"));
  EXPECT_TRUE(Says(ImportWith("link.bin"), "outside of the model's folder"));
  EXPECT_TRUE(Says(ImportWith("/etc/hostname"), "outside of the model's folder"));
  EXPECT_TRUE(Says(ImportWith("missing.bin"), "no file missing.bin"));
}

}  // namespace
}  // namespace lepton::onnx
