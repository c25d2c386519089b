#include "tests/runtime/engine/op_cases.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "runtime/base/logging.h"
#include "runtime/ops/op_list.h"
#include "runtime/tensor/counter_random.h"

namespace lepton::engine_test {
namespace {

using graph::Attributes;

// A tensor whose elements stay away from 0, where relu has no derivative.
HostTensor AwayFromZero(TensorType type, uint64_t seed) {
  HostTensor tensor = RandomTensor(std::move(type), seed, 0.1, 2);
  HostTensor signs = RandomTensor(tensor.type, seed + 1, -1, 1);
  for (size_t i = 0; i < tensor.floats().size(); ++i) {
    tensor.floats()[i] = std::copysign(tensor.floats()[i], signs.floats()[i]);
  }
  return tensor;
}

void AddMatmuls(DType dtype, int64_t m, int64_t n, std::vector<OpCase>& cases) {
  const int64_t k = std::min<int64_t>(m + n / 2 + 1, 150);
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      const Shape a = ta ? Shape({k, m}) : Shape({m, k});
      const Shape b = tb ? Shape({n, k}) : Shape({k, n});
      cases.push_back(MakeCase(std::string("transposes ") + (ta ? "a" : "-") + (tb ? "b" : "-"),
                               {{"transpose_a", int64_t{ta}}, {"transpose_b", int64_t{tb}}}, {0, 1},
                               RandomTensor({dtype, a}, 1), RandomTensor({dtype, b}, 2)));
    }
  }
  const int64_t rows = std::min<int64_t>(m, 40);
  cases.push_back(MakeCase("rows of three axes", {}, {0, 1}, RandomTensor({dtype, {2, rows, k}}, 1),
                           RandomTensor({dtype, {k, n}}, 2)));
  cases.push_back(MakeCase("rows of three axes, transposed", {{"transpose_a", int64_t{1}}}, {0, 1},
                           RandomTensor({dtype, {2, rows, k}}, 1),
                           RandomTensor({dtype, {2, rows, n}}, 2)));
}

void AddInt8Matmuls(DType dtype, int64_t m, int64_t n, std::vector<OpCase>& cases) {
  const int64_t k = std::min<int64_t>(m + n / 2 + 1, 150);
  for (const bool turned : {false, true}) {
    const Shape w = turned ? Shape({n, k}) : Shape({k, n});
    cases.push_back(MakeCase(turned ? "transposes b" : "", {{"transpose_b", int64_t{turned}}}, {},
                             RandomTensor({dtype, {m, k}}, 1), RandomTensor(F32(w), 2)));
  }
  const int64_t rows = std::min<int64_t>(m, 40);
  OpCase special = MakeCase("rows of three axes", {}, {}, RandomTensor({dtype, {2, rows, k}}, 1),
                            RandomTensor(F32({k, n}), 2));
  // A row of zeros, and a column with an infinity.
  std::memset(special.inputs[0].data.data(), 0, k * DTypeSize(dtype));
  special.inputs[1].floats()[n - 1] = INFINITY;
  cases.push_back(std::move(special));
}

void AddReductions(std::string_view op, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const Shape cube({2, rows, n});
  for (const Shape& shape : {Shape({rows, n}), Shape({n}), cube}) {
    for (int axis = 0; axis < shape.rank(); ++axis) {
      const std::string label = "axis " + std::to_string(axis) + " of " + shape.ToString();
      for (const bool mean : {false, true}) {
        if (op == "reduce") {
          cases.push_back(MakeCase(label,
                                   {{"axis", int64_t{axis}}, {"kind", mean ? "mean" : "sum"}}, {0},
                                   RandomTensor(F32(shape), 3)));
        } else {
          cases.push_back(MakeCase(label, {{"axis", int64_t{axis}}, {"divide", int64_t{mean}}}, {0},
                                   RandomTensor(F32(shape.WithoutAxis(axis)), 3),
                                   RandomTensor(F32(shape), 4)));
        }
      }
    }
  }
}

OpCase CastCase(DType dtype, int64_t rows, int64_t n) {
  OpCase op_case = MakeCase("", {{"to", dtype == DType::kF32 ? "bf16" : "f32"}}, {0},
                            RandomTensor({dtype, {rows, n}}, 5, -4, 4));
  return op_case;
}

// The losses and their gradients: logits, targets and, for the gradient, dloss.
void AddLosses(std::string_view op, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const bool gradient = op.ends_with("_grad");
  const bool classes = op.starts_with("cross");
  OpCase op_case =
      MakeCase("", op.starts_with("distillation") ? Attributes{{"temperature", 2.5}} : Attributes{},
               {0}, RandomTensor(F32({rows, n}), 6, -4, 4),
               classes ? RandomTensor({DType::kI32, {rows}}, 7, 0, static_cast<double>(n))
                       : RandomTensor(F32({rows, n}), 7, op.starts_with("binary") ? 0 : -3,
                                      op.starts_with("binary") ? 1 : 3));
  if (gradient) op_case.inputs.push_back(RandomTensor(F32({rows}), 8));
  cases.push_back(std::move(op_case));
}

void AddNorms(std::string_view op, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  OpCase op_case =
      MakeCase("", {}, {0, 1, 2}, RandomTensor(F32({rows, n}), 9), RandomTensor(F32({n}), 10));
  if (op == "layer_norm") {
    op_case.attributes = {{"epsilon", 1e-3}};
    op_case.inputs.push_back(RandomTensor(F32({n}), 11));
    cases.push_back(MakeCase("rank 3", {}, {0, 1, 2}, RandomTensor(F32({2, rows, n}), 9),
                             RandomTensor(F32({n}), 10), RandomTensor(F32({n}), 11)));
  } else {
    op_case.inputs.push_back(RandomTensor(F32({rows}), 12, -0.5, 0.5));
    op_case.inputs.push_back(RandomTensor(F32({rows}), 13, 0.5, 1.5));
    op_case.inputs.push_back(RandomTensor(F32({rows, n}), 14));
  }
  cases.push_back(std::move(op_case));
}

void AddElementwise(std::string_view op, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const TensorType type = F32({rows, n});
  if (op == "add" || op == "mul") {
    cases.push_back(MakeCase("", {}, {0, 1}, RandomTensor(type, 15), RandomTensor(type, 16)));
  } else if (op == "bias_add") {
    cases.push_back(MakeCase("", {}, {0, 1}, RandomTensor(type, 15), RandomTensor(F32({n}), 16)));
    cases.push_back(MakeCase("rank 3", {}, {0, 1}, RandomTensor(F32({2, rows, n}), 15),
                             RandomTensor(F32({n}), 16)));
  } else if (op == "tensor_copy" || op == "tensor_sum") {
    cases.push_back(MakeCase("", {}, {0}, RandomTensor(type, 15)));
  } else if (op == "scale") {
    cases.push_back(MakeCase("", {{"factor", -1.75}}, {0}, RandomTensor(type, 15)));
  } else if (op == "fill") {
    cases.push_back(MakeCase("", {{"value", 0.3}}, {}, RandomTensor(type, 15)));
  } else if (op == "dropout") {
    for (const double rate : {0.0, 0.4}) {
      cases.push_back(MakeCase("rate " + std::to_string(rate),
                               {{"rate", rate}, {"stream", int64_t{3}}}, {0},
                               RandomTensor(type, 15)));
    }
  } else if (op == "relu" || op == "gelu" || op == "gelu_tanh" || op == "tanh" || op == "sigmoid") {
    cases.push_back(MakeCase("", {}, {0}, AwayFromZero(type, 17)));
    cases.push_back(MakeCase("wide", {}, {}, RandomTensor(type, 18, -30, 30)));
  } else if (op == "softmax" || op == "log_softmax") {
    cases.push_back(MakeCase("", {}, {0}, RandomTensor(type, 19, -5, 5)));
    cases.push_back(MakeCase("rank 3", {}, {0}, RandomTensor(F32({2, rows, n}), 19, -5, 5)));
    cases.push_back(MakeCase("wide", {}, {}, RandomTensor(type, 20, -500, 500)));
  } else if (op.ends_with("_grad")) {
    const bool logarithms = op == "log_softmax_grad";
    cases.push_back(MakeCase("", {}, {}, RandomTensor(type, 21, logarithms ? -6 : -1, 0.9),
                             RandomTensor(type, 22)));
  }
}

}  // namespace

HostTensor MakeTensor(TensorType type) {
  const size_t bytes = type.bytes();
  return {std::move(type), Buffer(bytes)};
}

HostTensor RandomTensor(TensorType type, uint64_t seed, double low, double high) {
  HostTensor tensor = MakeTensor(std::move(type));
  for (int64_t i = 0; i < tensor.type.shape.elements(); ++i) {
    const uint32_t bits = RandomBlock({seed, 99, 0, 0}, static_cast<uint32_t>(i / 4))[i % 4];
    const double value = low + (high - low) * UniformFromBits(bits);
    if (tensor.type.dtype == DType::kF32) {
      tensor.data.as<float>()[i] = static_cast<float>(value);
    } else if (tensor.type.dtype == DType::kBF16) {
      tensor.data.as<BF16>()[i] = BF16::FromFloat(static_cast<float>(value));
    } else {
      tensor.data.as<int32_t>()[i] = static_cast<int32_t>(std::floor(value));
    }
  }
  return tensor;
}

HostTensor Copy(const HostTensor& tensor) {
  HostTensor copy = MakeTensor(tensor.type);
  std::memcpy(copy.data.data(), tensor.data.data(), tensor.data.size());
  return copy;
}

namespace {

HostTensor Narrow(HostTensor& wide) {
  HostTensor narrow = MakeTensor({DType::kBF16, wide.type.shape});
  for (size_t i = 0; i < wide.floats().size(); ++i) {
    narrow.data.as<BF16>()[i] = BF16::FromFloat(wide.floats()[i]);
  }
  return narrow;
}

// The case with these inputs rounded.
OpCase Narrowed(OpCase&& op_case, const std::vector<size_t>& which) {
  op_case.with_gradient.clear();
  for (const size_t i : which) {
    if (i < op_case.inputs.size()) op_case.inputs[i] = Narrow(op_case.inputs[i]);
  }
  return std::move(op_case);
}

// Ops that take bf16 as they take f32, and which of their inputs are bf16 then, variant by variant.
std::vector<std::vector<size_t>> NarrowInputs(std::string_view op) {
  for (const char* all : {"add", "sub", "mul", "div"}) {
    if (op == all) return {{0, 1}};
  }
  for (const char* first : {"relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "scale",
                            "dropout", "rope", "reduce", "sum_rows"}) {
    if (op == first) return {{0}};
  }
  for (const char* gradient :
       {"relu_grad", "gelu_grad", "gelu_tanh_grad", "silu_grad", "tanh_grad", "sigmoid_grad"}) {
    if (op == gradient) return {{0}, {0, 1}};
  }
  if (op == "batch_norm" || op == "batch_norm_apply") return {{0}};
  if (op == "batch_norm_grad") return {{0, 4}};
  if (op == "attention") return {{0, 1, 2}};
  if (op == "attention_grad") return {{0, 1, 2, 3, 5}};
  if (op == "cached_attention") return {{0, 1, 2, 5}};
  if (op.starts_with("linear_cross_entropy")) return {{0}, {0, 1}};
  if (op == "conv2d") return {{0, 1}};
  if (op == "conv2d_int8") return {{0}};
  if (op == "conv2d_input_grad" || op == "conv2d_weight_grad") return {{0, 1}, {0, 1, 2}};
  if (op == "packed_attention") return {{0}};
  if (op == "packed_attention_grad") return {{0, 1, 3}};
  return {};
}

// The f32 cases of these ops again, with a gradient of bf16.
std::vector<size_t> NarrowGradient(std::string_view op) {
  if (op == "layer_norm_grad") return {4};
  if (op == "rms_norm_grad") return {3};
  return {};
}

void AddNarrowGradients(std::string_view op, std::vector<OpCase>& cases) {
  const std::vector<size_t> which = NarrowGradient(op);
  if (which.empty()) return;
  for (size_t i = 0, count = cases.size(); i < count; ++i) {
    OpCase copy{cases[i].label + " bf16", cases[i].attributes, {}, {}};
    for (const HostTensor& input : cases[i].inputs) copy.inputs.push_back(Copy(input));
    cases.push_back(Narrowed(std::move(copy), which));
  }
}

}  // namespace

std::vector<OpCase> CasesFor(std::string_view op, DType dtype, int64_t rows, int64_t n) {
  std::vector<OpCase> cases;
  if (dtype == DType::kBF16) {
    for (const auto& which : NarrowInputs(op)) {
      for (OpCase& op_case : CasesFor(op, DType::kF32, rows, n)) {
        cases.push_back(Narrowed(std::move(op_case), which));
      }
    }
    if (!cases.empty()) return cases;
  }
  AddShapeCases(op, dtype, rows, n, cases);
  if (dtype == DType::kF32) {
    AddImageCases(op, rows, n, cases);
    AddTransformerCases(op, rows, n, cases);
  }
  if (!cases.empty()) {
    AddNarrowGradients(op, cases);
    return cases;
  }
  if (op == "matmul") {
    AddMatmuls(dtype, rows, n, cases);
  } else if (op == "matmul_int8") {
    if (dtype != DType::kI32) AddInt8Matmuls(dtype, rows, n, cases);
  } else if (op == "cast") {
    cases.push_back(CastCase(dtype, rows, n));
  } else if (dtype != DType::kF32) {
    return cases;
  } else if (op == "sum_rows") {
    cases.push_back(MakeCase("", {}, {}, RandomTensor(F32({2, rows, n}), 9)));
  } else if (op == "reduce" || op == "expand") {
    AddReductions(op, rows, n, cases);
  } else if (op.find("cross_entropy") != op.npos || op.starts_with("mse") ||
             op.starts_with("distillation")) {
    AddLosses(op, rows, n, cases);
  } else if (op.starts_with("layer_norm")) {
    AddNorms(op, rows, n, cases);
  } else {
    AddElementwise(op, rows, n, cases);
  }
  if (dtype == DType::kF32) AddBroadcastCases(op, rows, n, cases);
  AddNarrowGradients(op, cases);
  return cases;
}

namespace {

// A node on its own: values are its inputs, then its outputs.
struct LoneNode {
  LoneNode(std::string_view op_name, const OpCase& op_case) {
    const graph::Op* op = op_case.op != nullptr ? op_case.op : ops::OpList().Find(op_name);
    for (const HostTensor& input : op_case.inputs) inputs.push_back(input.type);
    auto inferred = op->Infer(inputs, op_case.attributes);
    CHECK(inferred.ok()) << op_name << ": " << inferred.status().ToString();
    outputs = *std::move(inferred);
    node = {op, std::string(op_name), {}, {}, op_case.attributes};
    for (const auto* part : {&inputs, &outputs}) {
      for (const TensorType& type : *part) {
        auto& ids = part == &inputs ? node.inputs : node.outputs;
        ids.push_back(static_cast<graph::ValueId>(types.size()));
        types.push_back(type);
      }
    }
  }
  graph::KernelRequest Request(Accelerator* accelerator) const {
    static const std::array<bool, 64> kept = [] {
      std::array<bool, 64> all;
      all.fill(true);
      return all;
    }();
    return {.op = node.op->name(),
            .attributes = &node.attributes,
            .inputs = inputs,
            .outputs = outputs,
            .device = accelerator == nullptr ? Device() : accelerator->device(),
            .frozen = {},
            .node = &node,
            .followers = {},
            .types = types,
            .kept = std::span(kept).first(types.size()),
            .packs = nullptr,
            .accelerator = accelerator};
  }
  std::vector<TensorType> inputs, outputs, types;
  graph::Node node;
};

}  // namespace

bool CanRun(const graph::KernelEntry& entry, const OpCase& op_case, Accelerator* accelerator) {
  const LoneNode lone(entry.op, op_case);
  return entry.can_run(lone.Request(accelerator));
}

namespace {

// Memory where the kernel runs, of these bytes.
class Place {
 public:
  Place(Accelerator* accelerator, const void* bytes, size_t size) : accelerator_(accelerator) {
    auto buffer = Buffer::On(accelerator, size);
    CHECK(buffer.ok()) << buffer.status().ToString();
    buffer_ = *std::move(buffer);
    if (size == 0) return;
    if (accelerator == nullptr) {
      std::memcpy(buffer_.data(), bytes, size);
      return;
    }
    accelerator->CopyIn(buffer_.data(), bytes, size);
    CHECK(accelerator->Synchronize().ok());
  }
  void CopyOut(void* to) {
    if (buffer_.size() == 0) return;
    if (accelerator_ == nullptr) {
      std::memcpy(to, buffer_.data(), buffer_.size());
      return;
    }
    accelerator_->CopyOut(to, buffer_.data(), buffer_.size());
    const Status status = accelerator_->Synchronize();
    CHECK(status.ok()) << status.ToString();
  }
  void* data() { return buffer_.data(); }

 private:
  Accelerator* accelerator_;
  Buffer buffer_;
};

}  // namespace

std::vector<HostTensor> RunKernel(const graph::KernelEntry& entry, OpCase& op_case,
                                  const graph::RunState& state, Accelerator* accelerator) {
  const LoneNode lone(entry.op, op_case);
  std::vector<Place> places;
  std::vector<TensorView> views;
  const auto add = [&](const HostTensor& tensor) {
    places.emplace_back(accelerator, tensor.data.data(), tensor.data.size());
    views.push_back({places.back().data(), tensor.type});
  };
  for (const HostTensor& input : op_case.inputs) add(input);
  std::vector<HostTensor> outputs;
  for (const TensorType& type : lone.outputs) {
    outputs.push_back(MakeTensor(type));
    // No kernel may rely on what its outputs and its workspace held.
    if (type.bytes() > 0) std::memset(outputs.back().data.data(), 0x7f, type.bytes());
    add(outputs.back());
  }
  auto kernel = entry.create(lone.Request(accelerator));
  const std::string garbage(kernel->workspace_bytes(), '\x7f');
  Place workspace(accelerator, garbage.data(), garbage.size());
  const graph::DeviceRunState keys{state.seed, state.step, state.shard};
  Place run_state(accelerator, &keys, sizeof(keys));
  kernel->Run(graph::KernelContext(views.data(), lone.node, state, workspace.data(),
                                   static_cast<graph::DeviceRunState*>(run_state.data())));
  for (size_t i = 0; i < outputs.size(); ++i) {
    places[op_case.inputs.size() + i].CopyOut(outputs[i].data.data());
  }
  for (size_t i = 0; i < op_case.inputs.size(); ++i) {
    places[i].CopyOut(op_case.inputs[i].data.data());
  }
  return outputs;
}

}  // namespace lepton::engine_test
