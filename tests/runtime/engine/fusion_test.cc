// Simplification and fusion change no bit, and do what they are there for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/graph/passes/simplify.h"
#include "runtime/kernels/cpu/bf16_sums.h"
#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::graph {
namespace {

using engine_test::F32;
using engine_test::HostTensor;
using engine_test::RandomTensor;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::Not;

constexpr int64_t kB = Shape::kBatch;

// A residual MLP block with a norm, in f32 or bf16, and its gradients.
struct Block {
  explicit Block(bool bf16, int64_t width = 48, int64_t hidden = 80) : graph(ops::OpList()) {
    const auto narrow = [&](ValueId value) {
      return bf16 ? graph.Add("cast", {value}, {{"to", "bf16"}}).value() : value;
    };
    x = graph.AddInput("x", F32({kB, 3, width}));
    const ValueId gain = Weight("gain", {width}), shift = Weight("shift", {width});
    const ValueId up = Weight("up", {width, hidden}), up_bias = Weight("up_bias", {hidden});
    const ValueId down = Weight("down", {width, hidden}), down_bias = Weight("down_bias", {width});
    const ValueId normed = narrow(graph.Add("layer_norm", {x, gain, shift}).value());
    const ValueId product = graph.Add("matmul", {normed, narrow(up)}).value();
    const ValueId before = narrow(graph.Add("bias_add", {product, up_bias}).value());
    const ValueId dropped =
        graph.Add("dropout", {before}, {{"rate", 0.2}, {"stream", int64_t{1}}}).value();
    const ValueId active = graph.Add("gelu", {dropped}).value();
    const ValueId back =
        graph.Add("matmul", {active, narrow(down)}, {{"transpose_b", int64_t{1}}}).value();
    const ValueId biased = graph.Add("bias_add", {back, down_bias}).value();
    const ValueId residual = graph.Add("add", {x, biased}).value();
    const ValueId scale = Weight("scale", {1});
    y = graph.Add("mul", {residual, scale}).value();
    const ValueId squares = graph.Add("mul", {y, y}).value();
    gradients = AddGradients(graph, squares, weights).value();
    EXPECT_TRUE(graph.AddOutput(y, false).ok());
    for (const ValueId gradient : gradients) EXPECT_TRUE(graph.AddOutput(gradient, false).ok());
  }

  ValueId Weight(const std::string& name, Shape shape) {
    weights.push_back(graph.AddParameter(name, F32(std::move(shape))));
    data.push_back(RandomTensor(graph.type(weights.back()), 30 + weights.size(), -0.4, 0.6));
    return weights.back();
  }

  // Everything that comes out, as bytes.
  std::string Run(const PlanOptions& options, int64_t batch) {
    Executor executor(graph, kernels::CpuKernels(), {}, options);
    Plan* plan = executor.PlanForBatch(batch).value();
    names = plan->KernelNames();
    has_prologue = plan->has_prologue();
    HostTensor input = RandomTensor({DType::kF32, graph.type(x).shape.WithBatch(batch)}, 3);
    plan->Bind(x, input.data.data());
    for (size_t i = 0; i < weights.size(); ++i) plan->Bind(weights[i], data[i].data.data());
    std::string bytes;
    for (uint64_t version = 1; version < 3; ++version) {
      plan->RunPrologue({7, 8, 9}, version);
      plan->Run({7, 8, 9});
      for (const Output& output : graph.outputs()) {
        const TensorView& view = plan->view(output.value);
        bytes.append(view.as<char>(), view.type.bytes());
      }
    }
    return bytes;
  }

  Graph graph;
  ValueId x = kNoValue, y = kNoValue;
  std::vector<ValueId> weights, gradients;
  std::vector<HostTensor> data;
  std::vector<std::string> names;
  bool has_prologue = false;
};

struct Fusion : testing::TestWithParam<bool> {};

TEST_P(Fusion, GivesTheBitsOfOneNodeAfterTheOther) {
  for (const auto& [width, hidden] : {std::pair{48, 80}, {33, 1100}, {7, 5}}) {
    Block block(GetParam(), width, hidden);
    for (const int64_t batch : {1, 2, 13, 120}) {
      const std::string wanted = block.Run({.frozen_parameters = false, .fuse = false}, batch);
      EXPECT_THAT(block.names, Each(Not(HasSubstr("+"))));
      EXPECT_EQ(block.Run({.frozen_parameters = false, .fuse = true}, batch), wanted);
      EXPECT_EQ(block.Run({.frozen_parameters = true, .fuse = true}, batch), wanted);
      EXPECT_EQ(block.Run({.frozen_parameters = true, .fuse = false}, batch), wanted);
    }
  }
}

TEST_P(Fusion, PutsWhatFollowsAProductIntoItsStep) {
  Block block(GetParam());
  block.Run({.frozen_parameters = true, .fuse = true}, 4);
  const std::string cast = GetParam() ? "+cast" : "";
  EXPECT_THAT(block.names, Contains("matmul+bias_add" + cast + "+dropout+gelu: gemm"));
  EXPECT_THAT(block.names, Contains("matmul+bias_add+add+mul+mul: gemm"));
  EXPECT_THAT(block.names, Contains(testing::StartsWith("layer_norm" + cast)));
}

INSTANTIATE_TEST_SUITE_P(Both, Fusion, testing::Bool(),
                         [](const auto& info) { return std::string(info.param ? "bf16" : "f32"); });

// The rounded copy of a weight that only a packing kernel reads is never made.
// A convolution of bf16 and the cast behind it, whose f32 result somebody else may want, too.
std::string Convolved(const PlanOptions& options, int64_t width, int64_t stride, bool wide,
                      std::vector<std::string>& names) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", {DType::kBF16, {kB, 32, 6, width}});
  const ValueId weights = graph.AddParameter("weights", F32({32, 32, 3, 3}));
  const ValueId narrow = graph.Add("cast", {weights}, {{"to", "bf16"}}).value();
  const ValueId y = graph
                        .Add("conv2d", {x, narrow},
                             {{"strides", std::vector<int64_t>{stride, stride}},
                              {"pads", std::vector<int64_t>{1, 1, 1, 1}}})
                        .value();
  const ValueId rounded = graph.Add("cast", {y}, {{"to", "bf16"}}).value();
  EXPECT_TRUE(graph.AddOutput(graph.Add("relu", {rounded}).value(), false).ok());
  if (wide) {
    EXPECT_TRUE(graph.AddOutput(graph.Add("relu", {y}).value(), false).ok());
  }
  Executor executor(graph, kernels::CpuKernels(), {}, options);
  Plan* plan = executor.PlanForBatch(3).value();
  names = plan->KernelNames();
  HostTensor wide_x = RandomTensor(F32({3, 32, 6, width}), 5, -1, 1);
  HostTensor data = engine_test::MakeTensor({DType::kBF16, {3, 32, 6, width}});
  for (int64_t i = 0; i < data.type.shape.elements(); ++i) {
    data.data.as<BF16>()[i] = BF16::FromFloat(wide_x.floats()[i]);
  }
  HostTensor weight_data = RandomTensor(F32({32, 32, 3, 3}), 6, -1, 1);
  plan->Bind(x, data.data.data());
  plan->Bind(weights, weight_data.data.data());
  plan->RunPrologue({7, 8, 9}, 1);
  plan->Run({7, 8, 9});
  std::string bytes;
  for (const Output& output : graph.outputs()) {
    const TensorView& view = plan->view(output.value);
    bytes.append(view.as<char>(), view.type.bytes());
  }
  return bytes;
}

TEST(ConvolutionFusion, AConvolutionRoundsAsItStores) {
  PlanOptions apart;
  apart.fuse = false;
  for (const bool wide : {false, true}) {
    for (const auto& [width, stride] : {std::pair{16, 1}, {48, 1}, {11, 1}, {16, 2}}) {
      std::vector<std::string> names, names_apart;
      const std::string together = Convolved({}, width, stride, wide, names);
      EXPECT_EQ(together, Convolved(apart, width, stride, wide, names_apart))
          << width << " " << stride << " " << wide;
      EXPECT_THAT(names, Contains(HasSubstr("conv2d+cast")));
      EXPECT_THAT(names_apart, Not(Contains(HasSubstr("conv2d+cast"))));
    }
  }
}

// A convolution and a chain behind it, which reads a whole image of f32, a mask of bf16 and, if
// `row`, a line again and again.
std::string Chained(bool fuse, const Shape& x_shape, bool row, std::vector<std::string>& names) {
  Graph graph(ops::OpList());
  const int64_t channels = x_shape[1];
  const ValueId x = graph.AddInput("x", {DType::kBF16, x_shape});
  const ValueId weights = graph.AddInput("weights", {DType::kBF16, {40, channels, 3, 3}});
  const Shape shape({kB, 40, x_shape[2], x_shape[3]});
  const ValueId other = graph.AddInput("other", F32(shape));
  const ValueId mask = graph.AddInput("mask", {DType::kBF16, shape});
  const ValueId line = graph.AddInput("line", F32({x_shape[3]}));
  ValueId y = graph
                  .Add("conv2d", {x, weights},
                       {{"strides", std::vector<int64_t>{1, 1}},
                        {"pads", std::vector<int64_t>{1, 1, 1, 1}}})
                  .value();
  y = graph.Add("add", {other, y}).value();
  if (row) y = graph.Add("bias_add", {y, line}).value();
  y = graph.Add("relu", {y}).value();
  EXPECT_TRUE(graph.AddOutput(y, false).ok());
  const ValueId narrow = graph.Add("cast", {y}, {{"to", "bf16"}}).value();
  EXPECT_TRUE(graph.AddOutput(graph.Add("relu_grad", {mask, narrow}).value(), false).ok());
  Executor executor(graph, kernels::CpuKernels(), {}, {.fuse = fuse});
  Plan* plan = executor.PlanForBatch(5).value();
  names = plan->KernelNames();
  std::vector<HostTensor> data;
  for (const ValueId value : {x, weights, other, mask, line}) {
    const TensorType& type = graph.type(value);
    data.push_back(RandomTensor({type.dtype, type.shape.WithBatch(5)}, 7 + data.size(), -1, 1));
  }
  size_t next = 0;
  for (const ValueId value : {x, weights, other, mask, line}) {
    plan->Bind(value, data[next++].data.data());
  }
  plan->RunPrologue({1, 2, 3});
  plan->Run({1, 2, 3});
  std::string bytes;
  for (const Output& output : graph.outputs()) {
    const TensorView& view = plan->view(output.value);
    bytes.append(view.as<char>(), view.type.bytes());
  }
  return bytes;
}

// Whole planes at a time, lines, and parts of lines; the last channels fill no block.
TEST(ConvolutionFusion, AChainGivesTheBitsOfOneNodeAfterTheOther) {
  for (const Shape& x : {Shape({kB, 32, 4, 4}), Shape({kB, 32, 6, 11}), Shape({kB, 64, 8, 16}),
                         Shape({kB, 32, 3, 90})}) {
    for (const bool row : {false, true}) {
      std::vector<std::string> names, names_apart;
      EXPECT_TRUE(Chained(true, x, row, names) == Chained(false, x, row, names_apart))
          << x.ToString() << (row ? " with a row" : "");
      if (!row && kernels::CurrentBf16Sums() == kernels::Bf16Sums::kPairs &&
          kernels::simd::CpuHasAvx2()) {
        EXPECT_THAT(names, Contains(HasSubstr("conv2d+add+relu+cast+relu_grad"))) << x.ToString();
      }
    }
  }
}

// Planes of many pixels, of few, of one number, and of none.
TEST(BatchNormFusion, GivesTheBitsOfOneNodeAfterTheOther) {
  for (const Shape& shape : {Shape({kB, 7, 20, 19}), Shape({kB, 70, 5, 3}), Shape({kB, 9, 11}),
                             Shape({kB, 700}), Shape({kB, 5, 0, 4})}) {
    for (const int64_t training : {0, 1}) {
      for (const bool bf16 : {false, true}) {
        Graph graph(ops::OpList());
        const ValueId x = graph.AddInput("x", {bf16 ? DType::kBF16 : DType::kF32, shape});
        const ValueId other = graph.AddInput("other", graph.type(x));
        std::vector<ValueId> of_channels;
        for (const char* name : {"gain", "bias", "mean", "variance"}) {
          of_channels.push_back(graph.AddInput(name, F32({shape[1]})));
        }
        std::vector<ValueId> inputs = {x};
        inputs.insert(inputs.end(), of_channels.begin(), of_channels.end());
        const ValueId normal = graph.Add("batch_norm", inputs, {{"training", training}}).value();
        const ValueId sum = graph.Add("add", {normal, other}).value();
        const ValueId y = graph.Add("relu", {sum}).value();
        EXPECT_TRUE(graph.AddOutput(y, false).ok());
        std::string wanted;
        for (const bool fuse : {false, true}) {
          Executor executor(graph, kernels::CpuKernels(), {}, {.fuse = fuse});
          Plan* plan = executor.PlanForBatch(3).value();
          const auto bind = [&](ValueId value, uint64_t seed, double low) {
            const Shape extents = graph.type(value).shape.WithBatch(3);
            HostTensor wide = RandomTensor(F32(extents), seed, low, 1);
            if (graph.type(value).dtype == DType::kF32) return wide;
            HostTensor narrow = engine_test::MakeTensor({DType::kBF16, extents});
            for (int64_t i = 0; i < extents.elements(); ++i) {
              narrow.view().as<BF16>()[i] = BF16::FromFloat(wide.floats()[i]);
            }
            return narrow;
          };
          std::vector<HostTensor> data;
          data.push_back(bind(x, 1, -1));
          data.push_back(bind(other, 2, -1));
          for (const ValueId value : of_channels) data.push_back(bind(value, 3 + data.size(), 0.1));
          plan->Bind(x, data[0].data.data());
          plan->Bind(other, data[1].data.data());
          for (size_t i = 0; i < of_channels.size(); ++i) {
            plan->Bind(of_channels[i], data[2 + i].data.data());
          }
          plan->RunPrologue({1, 2, 3});
          plan->Run({1, 2, 3});
          const TensorView& view = plan->view(y);
          const std::string bytes(view.as<char>(), view.type.bytes());
          if (!fuse) wanted = bytes;
          EXPECT_TRUE(bytes == wanted) << shape.ToString() << (bf16 ? " bf16" : " f32");
        }
      }
    }
  }
}

// Nothing but dropout behind what makes rows of a width that is no multiple of four: random numbers
// are counted by element, not by row.
TEST(DropoutFusion, DrawsTheNumbersOfItsElementsInRowsOfAnyWidth) {
  for (const char* op : {"matmul", "layer_norm", "rms_norm", "batch_norm"}) {
    for (const int64_t width : {7, 90, 8}) {
      for (const bool images : {false, true}) {
        if (images && op != std::string_view("batch_norm")) continue;
        Graph graph(ops::OpList());
        const Shape shape = images ? Shape({kB, 3, 5, width}) : Shape({kB, width});
        const std::string name = op;
        std::vector<ValueId> inputs = {graph.AddInput("x", F32(shape))};
        const auto parameter = [&](Shape extents) {
          inputs.push_back(graph.AddInput("p" + std::to_string(inputs.size()), F32(extents)));
        };
        const int64_t channels = shape[1];
        if (name == "matmul") parameter({width, width});
        if (name != "matmul") parameter({channels});
        if (name == "layer_norm" || name == "batch_norm") parameter({channels});
        if (name == "batch_norm") parameter({channels});
        if (name == "batch_norm") parameter({channels});
        Attributes attributes;
        if (name == "batch_norm") attributes = {{"training", int64_t{1}}};
        const ValueId y = graph.AddNode(name, inputs, attributes).value()[0];
        const ValueId dropped =
            graph.Add("dropout", {y}, {{"rate", 0.5}, {"stream", int64_t{3}}}).value();
        EXPECT_TRUE(graph.AddOutput(dropped, false).ok());
        std::string wanted;
        for (const bool fuse : {false, true}) {
          Executor executor(graph, kernels::CpuKernels(), {}, {.fuse = fuse});
          Plan* plan = executor.PlanForBatch(6).value();
          std::vector<HostTensor> data;
          for (const ValueId input : inputs) {
            data.push_back(
                RandomTensor(F32(graph.type(input).shape.WithBatch(6)), 1 + data.size(), 0.1, 1));
          }
          for (size_t i = 0; i < inputs.size(); ++i) plan->Bind(inputs[i], data[i].data.data());
          plan->RunPrologue({1, 2, 3});
          plan->Run({1, 2, 3});
          const TensorView& view = plan->view(dropped);
          const std::string bytes(view.as<char>(), view.type.bytes());
          if (!fuse) wanted = bytes;
          EXPECT_TRUE(bytes == wanted) << op << " " << shape.ToString();
        }
      }
    }
  }
}

TEST(FrozenParameters, AreRoundedWhileTheyArePacked) {
  Block block(true);
  block.Run({.frozen_parameters = true}, 4);
  EXPECT_FALSE(block.has_prologue);
  block.Run({.frozen_parameters = false}, 4);
  EXPECT_TRUE(block.has_prologue);
}

TEST(Simplify, ComputesEqualValuesOnceAndCancelsCasts) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", {DType::kBF16, {kB, 4}});
  const ValueId wide = graph.Add("cast", {x}, {{"to", "f32"}}).value();
  const ValueId back = graph.Add("cast", {wide}, {{"to", "bf16"}}).value();
  const ValueId one = graph.Add("gelu", {back}).value();
  const ValueId other = graph.Add("gelu", {x}).value();
  const ValueId kept = graph.Add("gelu", {x}).value();
  const ValueId sum = graph.Add("add", {one, other}).value();
  const ValueId total = graph.Add("add", {sum, kept}).value();
  ASSERT_TRUE(graph.AddOutput(kept, false).ok());
  ASSERT_TRUE(graph.AddOutput(total, false).ok());
  const std::deque<Node> nodes = Simplify(graph);
  const auto inputs = [&](ValueId value) { return nodes[graph.value(value).producer].inputs; };
  EXPECT_THAT(inputs(one), testing::ElementsAre(x));
  EXPECT_THAT(inputs(sum), testing::ElementsAre(one, one));
  EXPECT_THAT(inputs(total), testing::ElementsAre(sum, kept)) << "an output keeps its own memory";
  EXPECT_EQ(ScheduleLiveNodes(graph, nodes).body.size(), 4u);
}

TEST(Views, AReshapeCostsNothing) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({kB, 12}));
  const ValueId a = graph.Add("relu", {x}).value();
  const ValueId b = graph.Add("reshape", {a}, {{"shape", std::vector<int64_t>{kB, 3, 4}}}).value();
  const ValueId c = graph.Add("softmax", {b}).value();
  const ValueId d = graph.Add("reshape", {c}, {{"shape", std::vector<int64_t>{kB, 12}}}).value();
  ASSERT_TRUE(graph.AddOutput(d, true).ok());
  Executor executor(graph, kernels::CpuKernels());
  Plan* plan = executor.PlanForBatch(2).value();
  EXPECT_THAT(plan->KernelNames(), testing::SizeIs(3));  // the caller's copy is made
  HostTensor in = RandomTensor(F32({2, 12}), 1);
  std::vector<float> out(24);
  plan->Bind(x, in.data.data());
  plan->Bind(d, out.data());
  plan->Run({});
  EXPECT_EQ(plan->view(a).data, plan->view(b).data);
  for (int i = 0; i < 24; i += 4) {
    EXPECT_NEAR(out[i] + out[i + 1] + out[i + 2] + out[i + 3], 1, 1e-5);
  }
}

}  // namespace
}  // namespace lepton::graph
