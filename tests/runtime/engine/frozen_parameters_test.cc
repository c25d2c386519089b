// Weights that do not change are packed once, with the bits of those that might.
#include <gtest/gtest.h>

#include "runtime/graph/executor.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::graph {
namespace {

using engine_test::F32;
using engine_test::HostTensor;
using engine_test::RandomTensor;

constexpr int64_t kB = Shape::kBatch;

// Weights that bf16 can hold, frozen as f32 or given as bf16: whole blocks of channels, and not.
TEST(FrozenParameters, OfConvolutionsGiveTheBitsOfTheSameNumbersInBf16) {
  const Attributes attributes = {{"strides", std::vector<int64_t>{1, 1}},
                                 {"pads", std::vector<int64_t>{1, 1, 1, 1}}};
  for (const Shape& extents : {Shape({64, 96, 3, 3}), Shape({96, 32, 3, 3}), Shape({32, 40, 3, 3}),
                               Shape({48, 64, 3, 3})}) {
    HostTensor narrow = RandomTensor({DType::kBF16, extents}, 5, -1, 1);
    HostTensor wide = engine_test::MakeTensor(F32(extents));
    for (int64_t i = 0; i < extents.elements(); ++i) {
      wide.floats()[i] = BF16::ToFloat(narrow.data.as<BF16>()[i]);
    }
    for (const bool forward : {true, false}) {
      std::string wanted;
      for (const bool frozen : {false, true}) {
        Graph graph(ops::OpList());
        const ValueId x = graph.AddInput("x", {DType::kBF16, {kB, extents[1], 6, 8}});
        const ValueId dy = graph.AddInput("dy", {DType::kBF16, {kB, extents[0], 6, 8}});
        const ValueId weights = frozen ? graph.AddParameter("weights", F32(extents))
                                       : graph.AddInput("weights", narrow.type);
        const ValueId used =
            frozen ? graph.Add("cast", {weights}, {{"to", "bf16"}}).value() : weights;
        const ValueId y = forward
                              ? graph.Add("conv2d", {x, used}, attributes).value()
                              : graph.Add("conv2d_input_grad", {dy, used, x}, attributes).value();
        EXPECT_TRUE(graph.AddOutput(y, false).ok());
        Executor executor(graph, kernels::CpuKernels(), {}, {.frozen_parameters = true});
        Plan* plan = executor.PlanForBatch(3).value();
        EXPECT_FALSE(plan->has_prologue());
        HostTensor x_data = RandomTensor({DType::kBF16, {3, extents[1], 6, 8}}, 1, -1, 1);
        HostTensor dy_data = RandomTensor({DType::kBF16, {3, extents[0], 6, 8}}, 2, -1, 1);
        plan->Bind(x, x_data.data.data());
        plan->Bind(dy, dy_data.data.data());
        plan->Bind(weights, frozen ? wide.data.data() : narrow.data.data());
        plan->RunPrologue({1, 2, 3}, 1);
        plan->Run({1, 2, 3});
        const TensorView& view = plan->view(y);
        const std::string bytes(view.as<char>(), view.type.bytes());
        if (!frozen) wanted = bytes;
        EXPECT_TRUE(bytes == wanted) << extents.ToString() << (forward ? "" : ", dx");
      }
    }
  }
}

// Each way of packing the same weights is a pack of its own.
TEST(FrozenParameters, OfTwoConvolutionsWithOtherPadsArePackedForEach) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    std::string wanted;
    for (const bool frozen : {false, true}) {
      Graph graph(ops::OpList());
      const Shape extents({64, 64, 3, 3});
      const ValueId weights = graph.AddParameter("weights", F32(extents));
      const ValueId used =
          dtype == DType::kF32 ? weights : graph.Add("cast", {weights}, {{"to", "bf16"}}).value();
      std::vector<std::pair<ValueId, Shape>> inputs;
      for (const int64_t pad : {1, 0}) {
        const Attributes attributes = {{"strides", std::vector<int64_t>{2, 2}},
                                       {"pads", std::vector<int64_t>{pad, pad, pad, pad}}};
        const int64_t rows = (18 + 2 * pad - 3) / 2 + 1;
        const Shape x_shape({kB, 64, 18, 18}), dy_shape({kB, 64, rows, rows});
        const ValueId x = graph.AddInput("x" + std::to_string(pad), {dtype, x_shape});
        const ValueId dy = graph.AddInput("dy" + std::to_string(pad), {dtype, dy_shape});
        const ValueId dx = graph.Add("conv2d_input_grad", {dy, used, x}, attributes).value();
        EXPECT_TRUE(graph.AddOutput(dx, false).ok());
        inputs.emplace_back(x, x_shape);
        inputs.emplace_back(dy, dy_shape);
      }
      Executor executor(graph, kernels::CpuKernels(), {}, {.frozen_parameters = frozen});
      Plan* plan = executor.PlanForBatch(2).value();
      HostTensor weight_data = RandomTensor(F32(extents), 5, -1, 1);
      plan->Bind(weights, weight_data.data.data());
      std::vector<HostTensor> data;
      for (const auto& [value, shape] : inputs) {
        data.push_back(RandomTensor({dtype, shape.WithBatch(2)}, 1 + data.size(), -1, 1));
      }
      for (size_t i = 0; i < inputs.size(); ++i) {
        plan->Bind(inputs[i].first, data[i].data.data());
      }
      plan->RunPrologue({1, 2, 3}, 1);
      plan->Run({1, 2, 3});
      std::string bytes;
      for (const Output& output : graph.outputs()) {
        const TensorView& view = plan->view(output.value);
        bytes.append(view.as<char>(), view.type.bytes());
      }
      if (!frozen) wanted = bytes;
      EXPECT_TRUE(bytes == wanted) << DTypeName(dtype);
    }
  }
}

TEST(FrozenParameters, AreSharedByPlansAndPackedOnceForAVersion) {
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({kB, 40}));
  const ValueId w = graph.AddParameter("w", F32({40, 30}));
  const ValueId y = graph.Add("matmul", {x, w}).value();
  ASSERT_TRUE(graph.AddOutput(y, false).ok());
  Executor executor(graph, kernels::CpuKernels(), {}, {.frozen_parameters = true});
  HostTensor weight = RandomTensor(F32({40, 30}), 1);
  HostTensor input = RandomTensor(F32({5, 40}), 2);
  const auto run = [&](int64_t batch, uint64_t version) {
    Plan* plan = executor.PlanForBatch(batch).value();
    plan->Bind(x, input.data.data());
    plan->Bind(w, weight.data.data());
    plan->RunPrologue({}, version);
    plan->Run({});
    return plan->view(y).span<const float>()[0];
  };
  const float first = run(5, 1);
  weight.floats()[0] += 1;
  EXPECT_EQ(run(5, 1), first);  // the same version: nothing is packed again
  EXPECT_EQ(run(2, 1), first);  // nor by another plan
  EXPECT_NE(run(2, 2), first);
  EXPECT_NE(run(5, 2), first);
}

}  // namespace
}  // namespace lepton::graph
