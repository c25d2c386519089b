#include "runtime/graph/executor.h"

#include <algorithm>

#include "runtime/base/logging.h"
#include "runtime/graph/shape_inference.h"

namespace lepton::graph {
namespace {

std::vector<bool> ParameterMask(const Graph& graph) {
  std::vector<bool> mask;
  for (const Value& value : graph.values()) mask.push_back(value.kind == ValueKind::kParameter);
  return mask;
}

}  // namespace

Result<std::unique_ptr<Plan>> Plan::Make(const Graph& graph, const KernelTable& kernels,
                                         const Device& device, std::span<const TensorType> inputs,
                                         const PlanOptions& options) {
  LEPTON_ASSIGN_OR_RETURN(std::vector<TensorType> types, InferTypes(graph, inputs));
  const Schedule schedule = ScheduleLiveNodes(graph);
  std::unique_ptr<Plan> plan(new Plan());
  plan->memory_ = PlanMemory(graph, schedule, types);
  plan->arena_ = Buffer(plan->memory_.peak_bytes);
  for (size_t i = 0; i < types.size(); ++i) {
    const size_t offset = plan->memory_.offsets[i];
    void* data = offset == kNotInArena ? nullptr : plan->arena_.as<char>() + offset;
    plan->views_.push_back({data, std::move(types[i])});
  }
  std::vector<bool> constant = ParameterMask(graph);
  for (const NodeId id : schedule.prologue) {
    LEPTON_RETURN_IF_ERROR(plan->AddStep(graph.nodes()[id], kernels, device, {}));
    for (const ValueId output : graph.nodes()[id].outputs) constant[output] = true;
  }
  plan->prologue_steps_ = plan->steps_.size();
  for (const NodeId id : schedule.body) {
    const Node& node = graph.nodes()[id];
    std::vector<bool> frozen;
    for (const ValueId input : node.inputs) {
      frozen.push_back(options.frozen_parameters && constant[input]);
    }
    LEPTON_RETURN_IF_ERROR(plan->AddStep(node, kernels, device, std::move(frozen)));
  }
  return plan;
}

Status Plan::AddStep(const Node& node, const KernelTable& kernels, const Device& device,
                     std::vector<bool> frozen) {
  std::vector<TensorType> inputs;
  std::vector<TensorType> outputs;
  for (const ValueId input : node.inputs) inputs.push_back(views_[input].type);
  for (const ValueId output : node.outputs) outputs.push_back(views_[output].type);
  const bool prepared = std::find(frozen.begin(), frozen.end(), true) != frozen.end();
  const KernelRequest request{node.op->name(), &node.attributes, inputs,
                              outputs,         device,           std::move(frozen)};
  auto entry = kernels.Select(request);
  if (!entry.ok()) return entry.status().WithContext(node.name);
  steps_.push_back({&node, (*entry)->create(request), (*entry)->implementation, prepared});
  return Status::Ok();
}

void Plan::Bind(ValueId value, void* data) {
  CHECK(memory_.offsets[value] == kNotInArena) << "value " << value << " has its own memory";
  views_[value].data = data;
}

void Plan::RunPrologue(const RunState& state) {
  for (size_t i = 0; i < prologue_steps_; ++i) {
    steps_[i].kernel->Run(KernelContext(views_.data(), *steps_[i].node, state));
  }
  for (const Step& step : steps_) {
    if (step.prepared) step.kernel->Prepare(KernelContext(views_.data(), *step.node, state));
  }
}

void Plan::Run(const RunState& state) {
  for (size_t i = prologue_steps_; i < steps_.size(); ++i) {
    steps_[i].kernel->Run(KernelContext(views_.data(), *steps_[i].node, state));
  }
}

std::vector<std::string> Plan::KernelNames() const {
  std::vector<std::string> names;
  for (const Step& step : steps_) {
    names.push_back(std::string(step.node->op->name()) + ": " + std::string(step.implementation));
  }
  return names;
}

Result<Plan*> Executor::PlanFor(std::span<const TensorType> inputs, bool* made) {
  if (made != nullptr) *made = false;
  const auto found = std::find_if(plans_.begin(), plans_.end(), [&](const Cached& cached) {
    return std::equal(cached.inputs.begin(), cached.inputs.end(), inputs.begin(), inputs.end());
  });
  if (found != plans_.end()) {
    plans_.splice(plans_.begin(), plans_, found);
    return plans_.front().plan.get();
  }
  LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<Plan> plan,
                          Plan::Make(graph_, kernels_, device_, inputs, options_));
  plans_.push_front({{inputs.begin(), inputs.end()}, std::move(plan)});
  if (plans_.size() > kMaxPlans) plans_.pop_back();
  if (made != nullptr) *made = true;
  return plans_.front().plan.get();
}

Result<Plan*> Executor::PlanForBatch(int64_t batch, bool* made) {
  return PlanFor(InputTypesForBatch(graph_, batch), made);
}

}  // namespace lepton::graph
