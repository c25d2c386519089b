// Masks of an open sequence against attention written out here: where a mask is causal for every
// length the fast op takes its place, and where it hides or weighs more it stays what it is.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/graph/passes/live_nodes.h"
#include "tests/runtime/onnx/one_node.h"

namespace lepton::onnx {
namespace {

constexpr int64_t kLength = 48, kContext = 64, kWidth = 8, kHeads = 2, kBatch = 2;
constexpr int kBool = 9;
constexpr double kHidden = -std::numeric_limits<double>::infinity();

// What is added to the score of a query and a key.
using Bias = std::function<double(int64_t query, int64_t key)>;

class MaskedAttention {
 public:
  MaskedAttention() {
    model_.set_ir_version(8);
    model_.add_opset_import()->set_version(17);
    Declare(model_.mutable_graph()->add_input(), "x");
    Declare(model_.mutable_graph()->add_output(), "y");
    const std::string heads = Integers({0, 0, kHeads, kWidth / kHeads});
    const std::string split = Add("Reshape", {"x", heads});
    const std::string queries = Add("Transpose", {split}, "perm", {0, 2, 1, 3});
    const std::string keys = Add("Transpose", {split}, "perm", {0, 2, 3, 1});
    scores_ = Add("Mul", {Add("MatMul", {queries, keys}), Floats({0.5})});
    values_ = queries;
    length = Add("Gather", {Add("Shape", {"x"}), Integer(1)});
    const std::string places = Add("Range", {Integer(0), length, Integer(1)});
    query = Add("Unsqueeze", {places, Integers({1})});
    key = Add("Unsqueeze", {places, Integers({0})});
  }

  std::string Add(const std::string& op, const std::vector<std::string>& inputs) {
    auto* node = model_.mutable_graph()->add_node();
    node->set_op_type(op);
    for (const std::string& input : inputs) node->add_input(input);
    const std::string name = "v" + std::to_string(model_.graph().node_size());
    node->add_output(name);
    return name;
  }
  std::string Add(const std::string& op, const std::vector<std::string>& inputs,
                  const std::string& attribute, const std::vector<int64_t>& integers) {
    const std::string name = Add(op, inputs);
    auto& node = *model_.mutable_graph()->mutable_node(model_.graph().node_size() - 1);
    auto* list = node.add_attribute();
    list->set_name(attribute);
    list->set_type(static_cast<decltype(list->type())>(7));
    for (const int64_t integer : integers) list->add_ints(integer);
    return name;
  }
  std::string ToFloat(const std::string& input) {
    const std::string name = Add("Cast", {input});
    auto& node = *model_.mutable_graph()->mutable_node(model_.graph().node_size() - 1);
    auto* to = node.add_attribute();
    to->set_name("to");
    to->set_type(static_cast<decltype(to->type())>(2));
    to->set_i(kFloat);
    return name;
  }
  std::string Integers(const std::vector<int64_t>& numbers) {
    auto* tensor = Constant(kInt64, {static_cast<int64_t>(numbers.size())});
    for (const int64_t number : numbers) tensor->add_int64_data(number);
    return tensor->name();
  }
  std::string Integer(int64_t number) {
    auto* tensor = Constant(kInt64, {});
    tensor->add_int64_data(number);
    return tensor->name();
  }
  std::string Floats(const std::vector<double>& numbers) {
    auto* tensor = Constant(kFloat, {static_cast<int64_t>(numbers.size())});
    for (const double number : numbers) tensor->add_float_data(static_cast<float>(number));
    return tensor->name();
  }
  // A table over the longest context, cut to the length: what exporters make of buffers.
  std::string Table(int type, const Bias& element) {
    auto* tensor = Constant(type, {1, 1, kContext, kContext});
    for (int64_t i = 0; i < kContext * kContext; ++i) {
      const double number = element(i / kContext, i % kContext);
      if (type == kBool) {
        tensor->add_int32_data(number != 0 ? 1 : 0);
      } else {
        tensor->add_float_data(static_cast<float>(number));
      }
    }
    const std::string end = Add("Unsqueeze", {length, Integers({0})});
    const std::string rows =
        Add("Slice", {tensor->name(), Integers({0}), end, Integers({2}), Integers({1})});
    return Add("Slice", {rows, Integers({0}), end, Integers({3}), Integers({1})});
  }
  void Show(const std::string& seen) { scores_ = Add("Where", {seen, scores_, Floats({kHidden})}); }
  void Weigh(const std::string& mask) { scores_ = Add("Add", {scores_, mask}); }

  // Whether the fast op was taken; the numbers must be right in any case.
  bool IsFast(const Bias& bias) {
    const std::string mixed = Add("MatMul", {Add("Softmax", {scores_}), values_});
    const std::string moved = Add("Transpose", {mixed}, "perm", {0, 2, 1, 3});
    auto* node = model_.mutable_graph()->add_node();
    node->set_op_type("Reshape");
    node->add_input(moved);
    node->add_input(Integers({0, 0, kWidth}));
    node->add_output("y");
    ImportOptions options;
    options.open = true;
    auto model = Import(model_, {}, options);
    if (!model.ok()) {
      ADD_FAILURE() << model.status().ToString();
      return false;
    }
    int fast = 0;
    for (const graph::NodeId id : graph::ScheduleLiveNodes(*model->graph).body) {
      fast += model->graph->nodes()[id].op->name() == "attention" ? 1 : 0;
    }
    std::vector<double> x;
    for (int64_t i = 0; i < kBatch * kLength * kWidth; ++i) {
      x.push_back(std::sin(1.0 + 0.7 * static_cast<double>(i)));
    }
    NamedValues inputs;
    inputs["x"].kind = HostValue::Kind::kTensor;
    inputs["x"].tensor = TensorOf(DType::kF32, Shape({kBatch, kLength, kWidth}), x);
    auto outputs = Run(*model, inputs);
    if (!outputs.ok()) {
      ADD_FAILURE() << outputs.status().ToString();
      return false;
    }
    const std::vector<double> wanted = Attention(x, bias);
    const std::vector<double> got = AsDoubles(outputs->at("y").tensor);
    EXPECT_EQ(got.size(), wanted.size());
    for (size_t i = 0; i < std::min(got.size(), wanted.size()); ++i) {
      EXPECT_NEAR(got[i], wanted[i], 1e-4) << "row " << i / kWidth % kLength;
      if (std::abs(got[i] - wanted[i]) > 1e-4) break;
    }
    return fast == 1;
  }

  std::string length, query, key;  // [], [sequence, 1], [1, sequence]

 private:
  static void Declare(onnx_proto::ValueInfoProto* info, const std::string& name) {
    info->set_name(name);
    auto* tensor = info->mutable_type()->mutable_tensor_type();
    tensor->set_elem_type(kFloat);
    for (const char* open : {"batch", "sequence"}) {
      tensor->mutable_shape()->add_dim()->set_dim_param(open);
    }
    tensor->mutable_shape()->add_dim()->set_dim_value(kWidth);
  }

  onnx_proto::TensorProto* Constant(int type, const std::vector<int64_t>& extents) {
    auto* tensor = model_.mutable_graph()->add_initializer();
    tensor->set_name("c" + std::to_string(model_.graph().initializer_size()));
    tensor->set_data_type(type);
    for (const int64_t extent : extents) tensor->add_dims(extent);
    return tensor;
  }

  static std::vector<double> Attention(const std::vector<double>& x, const Bias& bias) {
    constexpr int64_t kSize = kWidth / kHeads;
    std::vector<double> y(x.size(), 0);
    for (int64_t part = 0; part < kBatch * kHeads; ++part) {
      const int64_t start = part / kHeads * kLength * kWidth + part % kHeads * kSize;
      for (int64_t query = 0; query < kLength; ++query) {
        const double* q = x.data() + start + query * kWidth;
        std::vector<double> weights;
        double sum = 0;
        for (int64_t key = 0; key < kLength; ++key) {
          const double* k = x.data() + start + key * kWidth;
          double score = 0;
          for (int64_t i = 0; i < kSize; ++i) score += 0.5 * q[i] * k[i];
          weights.push_back(std::exp(score + bias(query, key)));
          sum += weights.back();
        }
        for (int64_t key = 0; key < kLength; ++key) {
          for (int64_t i = 0; i < kSize; ++i) {
            y[start + query * kWidth + i] += weights[key] / sum * x[start + key * kWidth + i];
          }
        }
      }
    }
    return y;
  }

  onnx_proto::ModelProto model_;
  std::string scores_, values_;
};

double Causal(int64_t query, int64_t key) {
  return key <= query ? 0 : kHidden;
}
double Window(int64_t query, int64_t key) {
  return key <= query && key > query - 16 ? 0 : kHidden;
}
double Sloped(int64_t query, int64_t key) {
  return key <= query ? 0.25 * static_cast<double>(key - query) : kHidden;
}
Bias Seen(const Bias& bias) {
  return [bias](int64_t query, int64_t key) { return bias(query, key) == 0 ? 1.0 : 0.0; };
}

TEST(OnnxAttentionMask, CausalOfEveryLengthIsFast) {
  MaskedAttention compared;
  compared.Show(compared.Add("LessOrEqual", {compared.key, compared.query}));
  EXPECT_TRUE(compared.IsFast(Causal));
  MaskedAttention hidden;  // by the difference, and chosen the other way round
  const std::string ahead = hidden.Add("Sub", {hidden.key, hidden.query});
  hidden.Show(hidden.Add("Not", {hidden.Add("Greater", {ahead, hidden.Integer(0)})}));
  EXPECT_TRUE(hidden.IsFast(Causal));
  MaskedAttention table;
  table.Show(table.Table(kBool, Seen(Causal)));
  EXPECT_TRUE(table.IsFast(Causal));
  MaskedAttention added;
  added.Weigh(
      added.Table(kFloat, [](int64_t query, int64_t key) { return key <= query ? 0 : -1e9; }));
  EXPECT_TRUE(added.IsFast(Causal));
  MaskedAttention chosen;
  chosen.Weigh(chosen.Add("Where", {chosen.Add("LessOrEqual", {chosen.key, chosen.query}),
                                    chosen.Floats({0}), chosen.Floats({kHidden})}));
  EXPECT_TRUE(chosen.IsFast(Causal));
  // What is seen within a window or without one is seen without one.
  MaskedAttention either;
  const std::string causal = either.Add("LessOrEqual", {either.key, either.query});
  const std::string near =
      either.Add("Greater", {either.key, either.Add("Sub", {either.query, either.Integer(16)})});
  either.Show(either.Add("Or", {either.Add("And", {causal, near}), causal}));
  EXPECT_TRUE(either.IsFast(Causal));
}

TEST(OnnxAttentionMask, WindowsStay) {
  MaskedAttention compared;
  const std::string causal = compared.Add("LessOrEqual", {compared.key, compared.query});
  const std::string near = compared.Add(
      "Greater", {compared.key, compared.Add("Sub", {compared.query, compared.Integer(16)})});
  compared.Show(compared.Add("And", {causal, near}));
  EXPECT_FALSE(compared.IsFast(Window));
  MaskedAttention table;
  table.Show(table.Table(kBool, Seen(Window)));
  EXPECT_FALSE(table.IsFast(Window));
  MaskedAttention added;
  added.Weigh(added.Table(
      kFloat, [](int64_t query, int64_t key) { return Window(query, key) == 0 ? 0 : -1e9; }));
  EXPECT_FALSE(added.IsFast(Window));
}

TEST(OnnxAttentionMask, ChunksStay) {
  const auto chunk = [](int64_t query, int64_t key) {
    return key <= query && key / 16 == query / 16 ? 0 : kHidden;
  };
  MaskedAttention divided;
  const std::string causal = divided.Add("LessOrEqual", {divided.key, divided.query});
  const std::string size = divided.Integer(16);
  const std::string same = divided.Add("Equal", {divided.Add("Div", {divided.key, size}),
                                                 divided.Add("Div", {divided.query, size})});
  divided.Show(divided.Add("And", {causal, same}));
  EXPECT_FALSE(divided.IsFast(chunk));
  MaskedAttention table;
  table.Show(table.Table(kBool, Seen(chunk)));
  EXPECT_FALSE(table.IsFast(chunk));
  // Far keys are hidden wherever the query is.
  const auto early = [](int64_t query, int64_t key) {
    return key <= query && key < 20 ? 0 : kHidden;
  };
  MaskedAttention limited;
  limited.Show(limited.Add("And", {limited.Add("LessOrEqual", {limited.key, limited.query}),
                                   limited.Add("Less", {limited.key, limited.Integer(20)})}));
  EXPECT_FALSE(limited.IsFast(early));
  MaskedAttention cut;
  cut.Show(cut.Table(kBool, Seen(early)));
  EXPECT_FALSE(cut.IsFast(early));
}

TEST(OnnxAttentionMask, BiasOfWhatIsSeenStays) {
  MaskedAttention table;
  table.Weigh(table.Table(kFloat, Sloped));
  EXPECT_FALSE(table.IsFast(Sloped));
  MaskedAttention computed;
  const std::string back =
      computed.Add("Mul", {computed.ToFloat(computed.Add("Sub", {computed.key, computed.query})),
                           computed.Floats({0.25})});
  computed.Weigh(computed.Add("Where", {computed.Add("LessOrEqual", {computed.key, computed.query}),
                                        back, computed.Floats({kHidden})}));
  EXPECT_FALSE(computed.IsFast(Sloped));
}

}  // namespace
}  // namespace lepton::onnx
