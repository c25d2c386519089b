// A model of one operator, of any type and any operator that is imported. Threads: one caller.
#pragma once

#include <algorithm>
#include <cctype>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/graph/autodiff.h"

namespace lepton::onnx {

using onnx_proto::NodeProto;

// AttributeProto.AttributeType
inline constexpr int kFloatKind = 1, kIntKind = 2, kTextKind = 3, kTensorKind = 4, kGraphKind = 5,
                     kIntsKind = 7;

// TensorProto.DataType of each type.
inline const std::map<std::string, int>& TypeCodes() {
  static const std::map<std::string, int> codes = {
      {"f32", 1},  {"u8", 2},   {"i8", 3},   {"u16", 4},  {"i16", 5},  {"i32", 6},  {"i64", 7},
      {"bool", 9}, {"f16", 10}, {"f64", 11}, {"u32", 12}, {"u64", 13}, {"bf16", 16}};
  return codes;
}

inline std::vector<int64_t> NumbersOf(std::string text, char separator) {
  std::replace(text.begin(), text.end(), separator, ' ');
  std::istringstream stream(text);
  std::vector<int64_t> numbers;
  for (int64_t number = 0; stream >> number;) numbers.push_back(number);
  return numbers;
}

// How an operator is asked. `inputs`: TYPE:EXTENTS[:NUMBERS] each, TYPE t for the type in question,
// 2x3 for extents, none for a number alone, "-" for no input; the default numbers are small and
// positive. `attributes`: NAME=VALUE each, t for the type's code.
struct Asked {
  std::string operators;
  std::string inputs;
  std::string attributes = "";
  int outputs = 1;
};

inline const std::vector<Asked>& AskedOperators() {
  static const std::vector<Asked> asked = {
      {"Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Flatten Floor Gelu "
       "HardSigmoid HardSwish Hardmax Identity IsInf IsNaN LeakyRelu Log LogSoftmax "
       "LpNormalization Mish Neg NonZero Reciprocal ReduceL1 ReduceL2 ReduceLogSum "
       "ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu "
       "Round Selu Shape Shrink Sigmoid Sign Sin Sinh Size Softmax Softplus Softsign Sqrt Tan "
       "Tanh ThresholdedRelu Transpose ArgMax ArgMin BitwiseNot Dropout EyeLike Not Trilu",
       "t:2x3"},
      {"Add And BitwiseAnd BitwiseOr BitwiseXor CastLike Div Equal Greater GreaterOrEqual Less "
       "LessOrEqual Max Mean Min Mul Or PRelu Pow Sub Sum Xor",
       "t:2x3 t:2x3"},
      {"Gemm MatMul MatMulInteger", "t:2x3 t:3x2"},
      {"Einsum", "t:2x3 t:3x2", "equation=ij,jk->ik"},
      {"BitShift", "t:2x3 t:2x3", "direction=LEFT"},
      {"Mod", "t:2x3 t:2x3", "fmod=1"},
      {"Conv ConvInteger ConvTranspose", "t:2x2x4x4 t:2x2x3x3"},
      {"MaxPool AveragePool LpPool", "t:2x2x4x4", "kernel_shape=2,2"},
      {"GlobalAveragePool GlobalMaxPool MeanVarianceNormalization", "t:2x2x4x4"},
      {"LRN", "t:2x2x4x4", "size=3"},
      {"MaxUnpool", "t:1x1x2x2 i64:1x1x2x2:0,3,8,10", "kernel_shape=2,2 strides=2,2"},
      {"BatchNormalization", "t:2x2x4x4 t:2 t:2 t:2 t:2"},
      {"InstanceNormalization", "t:2x2x4x4 t:2 t:2"},
      {"LayerNormalization", "t:2x3 t:3 t:3"},
      {"GroupNormalization", "t:2x2x4x4 t:1 t:1", "num_groups=1"},
      {"Gather", "t:2x3 i64:2:0,1"},
      {"GatherElements", "t:2x3 i64:2x3:0,1,0,1,0,1"},
      {"GatherND", "t:2x3 i64:2x1:0,1"},
      {"Scatter ScatterElements", "t:2x3 i64:2x3:0,1,0,1,0,1 t:2x3"},
      {"ScatterND", "t:2x3 i64:2x1:0,1 t:2x3"},
      {"Where", "bool:2x3 t:2x3 t:2x3"},
      {"Clip", "t:2x3 t::1 t::3"},
      {"CumSum", "t:2x3 i64::0"},
      {"TopK", "t:2x3 i64:1:1", "", 2},
      {"Slice", "t:2x3 i64:1:0 i64:1:1"},
      {"Reshape", "t:2x3 i64:2:3,2"},
      {"Expand", "t:2x3 i64:3:2,2,3"},
      {"Tile", "t:2x3 i64:2:2,1"},
      {"Squeeze", "t:1x2x3 i64:1:0"},
      {"Unsqueeze", "t:2x3 i64:1:0"},
      {"Pad", "t:2x3 i64:4:0,0,1,1 t::0"},
      {"CenterCropPad", "t:2x3 i64:2:1,1"},
      {"Unique", "t:3"},
      {"Compress", "t:3 bool:3:1,0,1"},
      {"Concat", "t:2x3 t:2x3", "axis=0"},
      {"Split", "t:2x3", "axis=1", 3},
      {"DepthToSpace", "t:1x4x2x2", "blocksize=2"},
      {"SpaceToDepth", "t:2x2x4x4", "blocksize=2"},
      {"Resize", "t:2x2x4x4 - f32:4:1,1,2,2", "mode=nearest"},
      {"GridSample", "t:2x2x4x4 t:2x2x2x2:0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0"},
      {"Det", "t:2x2:1,2,3,5"},
      {"OneHot", "i64:2:0,1 i64::3 t:2:0,1"},
      {"Range", "t::0 t::4 t::1"},
      {"RNN", "t:2x1x3 t:1x2x3 t:1x2x2", "hidden_size=2"},
      {"GRU", "t:2x1x3 t:1x6x3 t:1x6x2", "hidden_size=2"},
      {"LSTM", "t:2x1x3 t:1x8x3 t:1x8x2", "hidden_size=2"},
      {"NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss", "t:2x3 i64:2:0,1"},
      {"QuantizeLinear", "t:2x3 f32::1 u8::0"},
      {"DequantizeLinear", "t:2x3 f32::2"},
      {"DynamicQuantizeLinear", "t:2x3", "", 3},
      {"QLinearMatMul", "t:2x3 f32::1 t::0 t:3x2 f32::1 t::0 f32::2 t::0"},
      {"QLinearConv", "t:2x2x4x4 f32::1 t::0 t:2x2x3x3 f32::1 t::0 f32::2 t::0"},
      {"NonMaxSuppression", "t:1x2x4:0,0,1,1,2,2,3,3 t:1x1x2:3,2 i64::2"},
      {"DFT", "t:1x4x1"},
      {"STFT", "t:1x8x1 i64::2 - i64::4"},
      {"BlackmanWindow HammingWindow HannWindow", "i64::6", "output_datatype=t"},
      {"Cast", "f32:2x3", "to=t"},
      {"ConstantOfShape", "i64:2:2,3", "value=tensor"},
      {"Constant", "", "value=tensor"},
      {"If", "bool::1 t:2x3", "then_branch=graph else_branch=graph"},
      {"Loop", "i64::2 bool::1 t:2x3", "body=graph"},
      {"SequenceConstruct SequenceAt SequenceLength SequenceErase SequenceInsert SequenceEmpty "
       "SequenceMap Optional OptionalGetElement OptionalHasElement",
       "t:2x3"},
      {"Adam", "f32::1 i64::0 t:3 t:3 t:3 t:3", "alpha=0.5 epsilon=0.5", 3},
      {"Momentum", "f32::1 i64::0 t:3 t:3 t:3",
       "alpha=0.5 beta=0.5 norm_coefficient=0.5 mode=standard", 2},
  };
  return asked;
}

// A model of one operator and what gives it its lists.
class TypedNode {
 public:
  TypedNode(const OperatorSupport& support, const Asked& asked, const std::string& type)
      : type_(type) {
    model_.set_ir_version(9);
    auto* set = model_.add_opset_import();
    set->set_domain(support.domain);
    const int64_t usual = support.domain.empty() ? 17 : 1;
    set->set_version(support.name == "Scatter" ? 9 : std::max(support.since, usual));
    if (!support.domain.empty()) model_.add_opset_import()->set_version(17);
    std::vector<std::string> names;
    std::istringstream stream(asked.inputs);
    for (std::string input; stream >> input;) names.push_back(AddInput(input));
    const std::string& op = support.name;
    if (op.starts_with("Sequence") || op.starts_with("Optional")) {
      AddWithLists(op, names.front());
      return;
    }
    if (op == "If") names.pop_back();  // the branches read it from outside
    NodeProto* node = Node(op, names, "y0");
    node->set_domain(support.domain);
    for (int i = 1; i < asked.outputs; ++i) node->add_output("y" + std::to_string(i));
    std::istringstream attributes(asked.attributes);
    for (std::string attribute; attributes >> attribute;) {
      const size_t middle = attribute.find('=');
      Set(node, attribute.substr(0, middle), attribute.substr(middle + 1));
    }
    Output("y0");
  }

  // The first output.
  Result<HostTensor> Run() {
    LEPTON_ASSIGN_OR_RETURN(ImportedModel imported, Import(model_, inputs_));
    LEPTON_ASSIGN_OR_RETURN(NamedValues outputs, onnx::Run(imported, inputs_));
    return std::move(outputs.at(model_.graph().output(0).name()).tensor);
  }

  // The gradient of the first output by the first input of f32, as a graph.
  Status Differentiate() {
    LEPTON_ASSIGN_OR_RETURN(ImportedModel imported, Import(model_, inputs_));
    for (const NamedRef& input : imported.inputs) {
      if (imported.graph->type(input.ref.id).dtype != DType::kF32) continue;
      const graph::ValueId wanted[] = {input.ref.id};
      return graph::AddGradients(*imported.graph, imported.outputs.front().ref.id, wanted).status();
    }
    return InvalidArgument("no input of f32");
  }

 private:
  onnx_proto::GraphProto& graph() { return *model_.mutable_graph(); }
  int code() const { return TypeCodes().at(type_); }

  std::string AddInput(const std::string& text) {
    if (text == "-") return "";
    std::istringstream stream(text);
    std::string type, extents, numbers;
    std::getline(stream, type, ':');
    std::getline(stream, extents, ':');
    std::getline(stream, numbers, ':');
    const int code = TypeCodes().at(type == "t" ? type_ : type);
    const Shape shape(NumbersOf(extents, 'x'));
    std::vector<double> values;
    for (const int64_t number : NumbersOf(numbers, ','))
      values.push_back(static_cast<double>(number));
    for (int64_t i = 0; numbers.empty() && i < shape.elements(); ++i) {
      values.push_back(static_cast<double>(i % 3 + 1));
    }
    const std::string name = "x" + std::to_string(graph().input_size());
    auto* info = graph().add_input();
    info->set_name(name);
    auto* tensor = info->mutable_type()->mutable_tensor_type();
    tensor->set_elem_type(code);
    for (const int64_t extent : shape.extents()) {
      tensor->mutable_shape()->add_dim()->set_dim_value(extent);
    }
    tensor->mutable_shape();
    inputs_[name] = {HostValue::Kind::kTensor, TensorOf(*DTypeFromCode(code), shape, values), {}};
    return name;
  }

  NodeProto* Node(const std::string& op, const std::vector<std::string>& inputs,
                  const std::string& output) {
    NodeProto* node = graph().add_node();
    node->set_op_type(op);
    for (const std::string& input : inputs) node->add_input(input);
    node->add_output(output);
    return node;
  }

  void Output(const std::string& name) {
    graph().add_output()->set_name(name);
    graph().mutable_output(0)->mutable_type()->mutable_tensor_type()->set_elem_type(code());
  }

  void Set(NodeProto* node, const std::string& name, const std::string& value) {
    auto* attribute = node->add_attribute();
    attribute->set_name(name);
    if (value == "tensor") {
      attribute->set_type(kTensorKind);
      attribute->mutable_t()->set_data_type(code());
      attribute->mutable_t()->add_dims(1);
      const HostTensor one = TensorOf(*DTypeFromCode(code()), Shape({1}), {1});
      attribute->mutable_t()->set_raw_data(one.data.data(), one.data.size());
    } else if (value == "graph") {
      attribute->set_type(kGraphKind);
      SetBody(node->op_type(), attribute->mutable_g());
    } else if (value.find('.') != value.npos) {
      attribute->set_type(kFloatKind);
      attribute->set_f(std::stof(value));
    } else if (value == "t" ||
               (std::isdigit(value.front()) != 0 && value.find(',') == value.npos)) {
      attribute->set_type(kIntKind);
      attribute->set_i(value == "t" ? code() : std::stoi(value));
    } else if (std::isdigit(value.front()) != 0) {
      attribute->set_type(kIntsKind);
      for (const int64_t number : NumbersOf(value, ',')) attribute->add_ints(number);
    } else {
      attribute->set_type(kTextKind);
      attribute->set_s(value);
    }
  }

  // If's branch, or the body of Loop or SequenceMap: gives what it takes.
  void SetBody(const std::string& op, onnx_proto::GraphProto* body) {
    const auto identity = [&](const std::string& from, const std::string& to, int type) {
      auto* node = body->add_node();
      node->set_op_type("Identity");
      node->add_input(from);
      node->add_output(to);
      body->add_output()->set_name(to);
      body->mutable_output(body->output_size() - 1)
          ->mutable_type()
          ->mutable_tensor_type()
          ->set_elem_type(type);
    };
    const auto input = [&](const std::string& name, int type) {
      body->add_input()->set_name(name);
      body->mutable_input(body->input_size() - 1)
          ->mutable_type()
          ->mutable_tensor_type()
          ->set_elem_type(type);
    };
    body->set_name("body");
    if (op == "If") {
      static int branches = 0;
      identity("x1", "branch" + std::to_string(branches++), code());
      return;
    }
    if (op == "Loop") {
      input("iteration", TypeCodes().at("i64"));
      input("more", TypeCodes().at("bool"));
      identity("more", "more_still", TypeCodes().at("bool"));
    }
    input("item", code());
    identity("item", "same", code());
  }

  void AddWithLists(const std::string& op, const std::string& x) {
    if (op.starts_with("Optional")) {
      Node("Optional", {x}, "list");
      if (op == "Optional") Node("OptionalGetElement", {"list"}, "y0");
      if (op != "Optional") Node(op, {"list"}, "y0");
      return Output("y0");
    }
    Node("Identity", {"place"}, "zero");
    auto* zero = graph().add_initializer();
    zero->set_name("place");
    zero->set_data_type(TypeCodes().at("i64"));
    zero->add_int64_data(0);
    if (op == "SequenceEmpty") Set(Node(op, {}, "first"), "dtype", "t");
    if (op != "SequenceEmpty") Node("SequenceConstruct", {x, x}, "first");
    if (op == "SequenceAt" || op == "SequenceLength") {
      Node(op,
           op == "SequenceAt" ? std::vector<std::string>{"first", "zero"}
                              : std::vector<std::string>{"first"},
           "y0");
      return Output("y0");
    }
    std::string list = "first";
    if (op == "SequenceErase" || op == "SequenceMap") {
      NodeProto* node = Node(op, {"first"}, "second");
      if (op == "SequenceMap") Set(node, "body", "graph");
      list = "second";
    } else if (op == "SequenceInsert" || op == "SequenceEmpty") {
      Node("SequenceInsert", {"first", x}, "second");
      list = "second";
    }
    Node("SequenceAt", {list, "zero"}, "y0");
    Output("y0");
  }

  const std::string type_;
  onnx_proto::ModelProto model_;
  NamedValues inputs_;
};

inline const Asked* FindAsked(const std::string& op) {
  for (const Asked& asked : AskedOperators()) {
    std::istringstream names(asked.operators);
    for (std::string name; names >> name;) {
      if (name == op) return &asked;
    }
  }
  return nullptr;
}

}  // namespace lepton::onnx
