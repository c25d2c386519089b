// A model of one operator, for tests of its rule. Threads: one caller.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/onnx.pb.h"

namespace lepton::onnx {

using onnx_proto::ModelProto;

inline constexpr int kFloat = 1, kInt64 = 7;                 // TensorProto.DataType
inline constexpr int kIntAttribute = 2, kTextAttribute = 3;  // AttributeProto.AttributeType

// One node, with its first input from outside and the others as constants. An extent of -1 is open.
struct OneNode {
  OneNode(const std::string& op, int64_t version, const std::vector<int64_t>& extents) {
    model.set_ir_version(9);
    model.add_opset_import()->set_version(version);
    auto* graph = model.mutable_graph();
    Declare(graph->add_input(), "x", &extents);
    Declare(graph->add_output(), "y", nullptr);
    node = graph->add_node();
    node->set_op_type(op);
    node->add_input("x");
    node->add_output("y");
    shape = Shape(extents);
  }

  static void Declare(onnx_proto::ValueInfoProto* info, const std::string& name,
                      const std::vector<int64_t>* extents) {
    info->set_name(name);
    auto* tensor = info->mutable_type()->mutable_tensor_type();
    tensor->set_elem_type(kFloat);
    if (extents == nullptr) return;
    for (const int64_t extent : *extents) {
      auto* dim = tensor->mutable_shape()->add_dim();
      if (extent >= 0) dim->set_dim_value(extent);
      if (extent < 0) dim->set_dim_param("open" + std::to_string(tensor->shape().dim_size()));
    }
  }

  onnx_proto::TensorProto* Constant(int type, const std::vector<int64_t>& extents) {
    auto* tensor = model.mutable_graph()->add_initializer();
    tensor->set_name("c" + std::to_string(model.graph().initializer_size()));
    tensor->set_data_type(type);
    for (const int64_t extent : extents) tensor->add_dims(extent);
    node->add_input(tensor->name());
    return tensor;
  }
  OneNode& Floats(const std::vector<float>& numbers) {
    auto* tensor = Constant(kFloat, {static_cast<int64_t>(numbers.size())});
    for (const float number : numbers) tensor->add_float_data(number);
    return *this;
  }
  OneNode& Integers(const std::vector<int64_t>& numbers) {
    auto* tensor = Constant(kInt64, {static_cast<int64_t>(numbers.size())});
    for (const int64_t number : numbers) tensor->add_int64_data(number);
    return *this;
  }
  OneNode& Integer(int64_t number) {
    Constant(kInt64, {})->add_int64_data(number);
    return *this;
  }
  OneNode& Nothing() {
    node->add_input("");
    return *this;
  }
  OneNode& Set(const std::string& name, int64_t value) {
    auto* attribute = node->add_attribute();
    attribute->set_name(name);
    attribute->set_type(kIntAttribute);
    attribute->set_i(value);
    return *this;
  }
  OneNode& Set(const std::string& name, const std::string& value) {
    auto* attribute = node->add_attribute();
    attribute->set_name(name);
    attribute->set_type(kTextAttribute);
    attribute->set_s(value);
    return *this;
  }

  OneNode& Of(DType type) {
    dtype = type;
    for (const auto& [known, code] :
         {std::pair{DType::kU8, 2}, {DType::kI8, 3}, {DType::kI32, 6}}) {
      if (known != type) continue;
      model.mutable_graph()->mutable_input(0)->mutable_type()->mutable_tensor_type()->set_elem_type(
          code);
    }
    return *this;
  }

  Result<std::vector<float>> Run(const std::vector<float>& x) {
    NamedValues inputs;
    inputs["x"] = {HostValue::Kind::kTensor, TensorOf(dtype, shape, {x.begin(), x.end()}), {}};
    LEPTON_ASSIGN_OR_RETURN(ImportedModel imported, Import(model, inputs));
    LEPTON_ASSIGN_OR_RETURN(NamedValues outputs, onnx::Run(imported, inputs));
    const std::vector<double> y = AsDoubles(outputs.at("y").tensor);
    return std::vector<float>(y.begin(), y.end());
  }

  // With its batch and sequence open, for an input of these extents.
  Result<std::vector<float>> RunOpen(const std::vector<int64_t>& extents,
                                     const std::vector<float>& x) {
    ImportOptions options;
    options.open = true;
    LEPTON_ASSIGN_OR_RETURN(ImportedModel imported, Import(model, {}, options));
    NamedValues inputs;
    inputs["x"] = {
        HostValue::Kind::kTensor, TensorOf(dtype, Shape(extents), {x.begin(), x.end()}), {}};
    LEPTON_ASSIGN_OR_RETURN(NamedValues outputs, onnx::Run(imported, inputs));
    const std::vector<double> y = AsDoubles(outputs.at("y").tensor);
    return std::vector<float>(y.begin(), y.end());
  }

  ModelProto model;
  onnx_proto::NodeProto* node;
  Shape shape;
  DType dtype = DType::kF32;
};

inline void ExpectValues(const Result<std::vector<float>>& got, const std::vector<double>& wanted) {
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  ASSERT_EQ(got->size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR((*got)[i], wanted[i], 1e-5) << i;
}

}  // namespace lepton::onnx
