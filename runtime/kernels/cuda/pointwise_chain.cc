#include "runtime/kernels/cuda/pointwise_chain.h"

#include <algorithm>
#include <memory>

#include "runtime/base/logging.h"
#include "runtime/graph/passes/fusion.h"

namespace lepton::kernels::cuda {

using graph::kNoValue;
using graph::Node;
using graph::PointwiseRead;
using graph::ValueId;

namespace {

struct NamedCode {
  std::string_view op;
  PointwiseCode code;
};
constexpr NamedCode kCodes[] = {
    {"add", PointwiseCode::kAdd},
    {"bias_add", PointwiseCode::kAdd},
    {"div", PointwiseCode::kDiv},
    {"dropout", PointwiseCode::kDropout},
    {"gelu", PointwiseCode::kGelu},
    {"gelu_grad", PointwiseCode::kGeluGrad},
    {"gelu_tanh", PointwiseCode::kGeluTanh},
    {"gelu_tanh_grad", PointwiseCode::kGeluTanhGrad},
    {"mul", PointwiseCode::kMul},
    {"relu", PointwiseCode::kRelu},
    {"relu_grad", PointwiseCode::kReluGrad},
    {"scale", PointwiseCode::kScale},
    {"sigmoid", PointwiseCode::kSigmoid},
    {"sigmoid_grad", PointwiseCode::kSigmoidGrad},
    {"silu", PointwiseCode::kSilu},
    {"silu_grad", PointwiseCode::kSiluGrad},
    {"sub", PointwiseCode::kSub},
    {"tanh", PointwiseCode::kTanh},
    {"tanh_grad", PointwiseCode::kTanhGrad},
};

bool IsFloat(const TensorType& type) {
  return type.dtype == DType::kF32 || type.dtype == DType::kBF16;
}

bool IsCast(const Node& node) {
  return node.op->name() == "cast";
}

}  // namespace

bool FindPointwiseCode(std::string_view op, PointwiseCode* code) {
  for (const NamedCode& known : kCodes) {
    if (known.op == op) return *code = known.code, true;
  }
  return false;
}

bool PointwiseChain::CanRun(std::span<const Node* const> nodes, ValueId given,
                            std::span<const TensorType> types) {
  for (const Node* node : nodes) {
    const TensorType& output = types[node->outputs[0]];
    PointwiseCode code;
    if (!IsFloat(output) || !(IsCast(*node) || FindPointwiseCode(node->op->name(), &code))) {
      return false;
    }
    for (const ValueId input : node->inputs) {
      if (graph::ReadOf(types[input], output.shape) == PointwiseRead::kNo) return false;
    }
  }
  const std::unique_ptr<bool[]> all(new bool[types.size()]);
  std::fill_n(all.get(), types.size(), true);
  return PointwiseChain(nodes, given, types, {all.get(), types.size()}).Fits();
}

PointwiseChain::PointwiseChain(std::span<const Node* const> nodes, ValueId given,
                               std::span<const TensorType> types, std::span<const bool> kept)
    : given_(given) {
  total_ = types[nodes[0]->outputs[0]].shape.elements();
  for (const Node* node : nodes) {
    Append(*node, types);
    const ValueId y = node->outputs[0];
    const bool bf16 = types[y].dtype == DType::kBF16;
    if (kept[y]) {
      steps_.push_back({{PointwiseCode::kStore, 0, 0, 0, bf16}, y, RegisterOf(y)});
    }
    // A store rounds by itself; only who reads the value afterwards needs it rounded.
    const bool read_again = std::any_of(nodes.begin(), nodes.end(), [&](const Node* other) {
      return std::find(other->inputs.begin(), other->inputs.end(), y) != other->inputs.end();
    });
    if (!bf16 || !read_again) continue;
    const int rounded = Define({{PointwiseCode::kRound}, kNoValue, RegisterOf(y)});
    defined_.push_back({y, rounded});
  }
  ShareRegisters();
}

bool PointwiseChain::Fits() const {
  return steps_.size() <= PointwiseProgram::kSteps && registers_ <= PointwiseProgram::kRegisters;
}

int PointwiseChain::Define(Step step) {
  step.y = registers_++;
  steps_.push_back(step);
  return step.y;
}

// The latest register that holds the value; -1: none.
int PointwiseChain::RegisterOf(ValueId value) const {
  for (auto it = defined_.rbegin(); it != defined_.rend(); ++it) {
    if (it->first == value) return it->second;
  }
  return -1;
}

uint8_t PointwiseChain::Load(ValueId value, const Shape& shape, std::span<const TensorType> types) {
  if (const int known = RegisterOf(value); known >= 0) return static_cast<uint8_t>(known);
  const PointwiseRead read = graph::ReadOf(types[value], shape);
  PointwiseStep step{PointwiseCode::kLoad};
  if (read == PointwiseRead::kRow) step.code = PointwiseCode::kLoadRow;
  if (read == PointwiseRead::kScalar) step.code = PointwiseCode::kLoadScalar;
  if (read == PointwiseRead::kRow) width_ = shape.back();
  step.bf16 = types[value].dtype == DType::kBF16;
  const int reg = Define({step, value});
  defined_.push_back({value, reg});
  return static_cast<uint8_t>(reg);
}

void PointwiseChain::Append(const Node& node, std::span<const TensorType> types) {
  const Shape& shape = types[node.outputs[0]].shape;
  const int a = Load(node.inputs[0], shape, types);
  if (IsCast(node)) {
    defined_.push_back({node.outputs[0], a});
    return;
  }
  Step step{{}, kNoValue, a};
  FindPointwiseCode(node.op->name(), &step.step.code);
  if (node.inputs.size() > 1) step.b = Load(node.inputs[1], shape, types);
  if (step.step.code == PointwiseCode::kScale) {
    step.step.parameter = static_cast<float>(node.attributes.Float("factor", 1));
  } else if (step.step.code == PointwiseCode::kDropout) {
    const double rate = node.attributes.Float("rate");
    step.step.parameter = static_cast<float>(rate);
    step.step.keep = static_cast<float>(1 / (1 - rate));
    step.step.stream = static_cast<uint32_t>(node.attributes.Int("stream"));
  }
  defined_.push_back({node.outputs[0], Define(step)});
}

// Until here every result has a register of its own; now one is used again once nobody reads what
// it holds.
void PointwiseChain::ShareRegisters() {
  std::vector<int> last(registers_, -1), place(registers_, -1), free;
  for (int i = 0; i < static_cast<int>(steps_.size()); ++i) {
    for (const int reg : {steps_[i].a, steps_[i].b}) {
      if (reg >= 0) last[reg] = i;
    }
  }
  int used = 0;
  for (int i = 0; i < static_cast<int>(steps_.size()); ++i) {
    Step& step = steps_[i];
    for (const int reg : {step.a, step.b == step.a ? -1 : step.b}) {
      if (reg >= 0 && last[reg] == i) free.push_back(place[reg]);
    }
    // A step reads element by element before it writes: its result may take an input's place.
    if (step.y >= 0) {
      if (free.empty()) free.push_back(used++);
      place[step.y] = free.back();
      free.pop_back();
      if (last[step.y] < 0) free.push_back(place[step.y]);
    }
    const auto at = [&](int reg) { return static_cast<uint8_t>(reg < 0 ? 0 : place[reg]); };
    step.step.a = at(step.a);
    step.step.b = at(step.b);
    step.step.y = at(step.y);
  }
  registers_ = used;
}

void PointwiseChain::Run(const KernelContext& context, CudaDevice& device, void* given_data) const {
  PointwiseProgram program;
  program.steps = static_cast<int>(steps_.size());
  program.total = total_;
  program.width = width_;
  program.run = context.device_run();
  for (size_t i = 0; i < steps_.size(); ++i) {
    program.step[i] = steps_[i].step;
    const ValueId value = steps_[i].value;
    if (value == kNoValue) continue;
    program.step[i].data = value == given_ ? given_data : context.value(value).data;
  }
  RunPointwise(program, device.stream());
}

}  // namespace lepton::kernels::cuda
