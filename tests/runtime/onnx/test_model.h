// Models of a few nodes, for tests of how they are imported. Threads: one caller.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/onnx.pb.h"

namespace lepton::onnx {

// TensorProto.DataType
inline constexpr int kFloatCode = 1, kInt32Code = 6, kInt64Code = 7, kBoolCode = 9;

struct TestModel {
  explicit TestModel(int64_t version = 13) {
    proto.set_ir_version(9);
    proto.add_opset_import()->set_version(version);
  }

  onnx_proto::GraphProto& graph() { return *proto.mutable_graph(); }

  // An extent of -1 is open.
  TestModel& Input(const std::string& name, int code, const std::vector<int64_t>& extents) {
    auto* info = graph().add_input();
    info->set_name(name);
    auto* tensor = info->mutable_type()->mutable_tensor_type();
    tensor->set_elem_type(code);
    for (const int64_t extent : extents) {
      auto* dim = tensor->mutable_shape()->add_dim();
      if (extent >= 0) dim->set_dim_value(extent);
      if (extent < 0) dim->set_dim_param("open" + std::to_string(tensor->shape().dim_size()));
    }
    return *this;
  }
  TestModel& Output(const std::string& name) {
    auto* info = graph().add_output();
    info->set_name(name);
    info->mutable_type()->mutable_tensor_type()->set_elem_type(kFloatCode);
    return *this;
  }
  TestModel& Floats(const std::string& name, const std::vector<int64_t>& extents,
                    const std::vector<float>& numbers) {
    auto* tensor = Initializer(name, kFloatCode, extents);
    for (const float number : numbers) tensor->add_float_data(number);
    return *this;
  }
  TestModel& Integers(const std::string& name, const std::vector<int64_t>& extents,
                      const std::vector<int64_t>& numbers) {
    auto* tensor = Initializer(name, kInt64Code, extents);
    for (const int64_t number : numbers) tensor->add_int64_data(number);
    return *this;
  }
  TestModel& Integers32(const std::string& name, const std::vector<int64_t>& extents,
                        const std::vector<int32_t>& numbers) {
    auto* tensor = Initializer(name, kInt32Code, extents);
    for (const int32_t number : numbers) tensor->add_int32_data(number);
    return *this;
  }
  TestModel& Node(const std::string& op, const std::vector<std::string>& inputs,
                  const std::string& output,
                  const std::vector<std::pair<std::string, int64_t>>& attributes = {}) {
    auto* node = graph().add_node();
    node->set_op_type(op);
    for (const std::string& input : inputs) node->add_input(input);
    node->add_output(output);
    for (const auto& [name, number] : attributes) {
      auto* attribute = node->add_attribute();
      attribute->set_name(name);
      attribute->set_type(2);  // INT
      attribute->set_i(number);
    }
    return *this;
  }
  // Of the node added last.
  TestModel& List(const std::string& name, const std::vector<int64_t>& numbers) {
    auto* attribute = graph().mutable_node(graph().node_size() - 1)->add_attribute();
    attribute->set_name(name);
    attribute->set_type(7);  // INTS
    for (const int64_t number : numbers) attribute->add_ints(number);
    return *this;
  }

  // The first output for these values of the first input, with batch and sequence open.
  Result<std::vector<float>> RunOpen(const std::vector<int64_t>& extents,
                                     const std::vector<double>& x) {
    ImportOptions options;
    options.open = true;
    LEPTON_ASSIGN_OR_RETURN(ImportedModel imported, Import(proto, {}, options));
    const DType dtype = imported.graph->type(imported.inputs.at(0).ref.id).dtype;
    NamedValues inputs;
    inputs[proto.graph().input(0).name()] = {
        HostValue::Kind::kTensor, TensorOf(dtype, Shape(extents), x), {}};
    LEPTON_ASSIGN_OR_RETURN(NamedValues outputs, onnx::Run(imported, inputs));
    const std::vector<double> y = AsDoubles(outputs.at(proto.graph().output(0).name()).tensor);
    return std::vector<float>(y.begin(), y.end());
  }

  onnx_proto::ModelProto proto;

 private:
  onnx_proto::TensorProto* Initializer(const std::string& name, int code,
                                       const std::vector<int64_t>& extents) {
    auto* tensor = graph().add_initializer();
    tensor->set_name(name);
    tensor->set_data_type(code);
    for (const int64_t extent : extents) tensor->add_dims(extent);
    return tensor;
  }
};

}  // namespace lepton::onnx
