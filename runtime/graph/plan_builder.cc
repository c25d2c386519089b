#include "runtime/graph/plan_builder.h"

#include <algorithm>
#include <numeric>

#include "runtime/graph/passes/simplify.h"
#include "runtime/graph/shape_inference.h"

namespace lepton::graph {

Result<std::unique_ptr<Plan>> PlanBuilder::Build(std::span<const TensorType> inputs) {
  LEPTON_ASSIGN_OR_RETURN(types_, InferTypes(given_, inputs));
  plan_.reset(new Plan());
  plan_->nodes_ = Simplify(given_);
  if (options_.accelerator == nullptr) LEPTON_RETURN_IF_ERROR(CutLosses(inputs));
  const size_t values = graph().values().size();
  plan_->roots_.resize(values);
  std::iota(plan_->roots_.begin(), plan_->roots_.end(), 0);
  plan_->frozen_sources_.assign(values, kNoValue);
  packed_input_.assign(plan_->nodes_.size(), -1);
  output_.assign(values, false);
  for (const Output& output : graph().outputs()) output_[output.value] = true;

  Schedule schedule = ScheduleLiveNodes(graph(), plan_->nodes_);
  FindConstants(schedule);
  FindViews(schedule);
  if (options_.frozen_parameters) SkipRoundedCopies(schedule);
  const std::vector<Group> prologue = GroupsOf(schedule.prologue);
  const std::vector<Group> body = GroupsOf(schedule.body);
  reads_.assign(values, 0);
  FindReads(prologue);
  FindReads(body);
  for (const Output& output : graph().outputs()) ++reads_[output.value];
  for (const Group& group : prologue) LEPTON_RETURN_IF_ERROR(AddStep(group, true));
  plan_->prologue_steps_ = plan_->steps_.size();
  for (const Group& group : body) LEPTON_RETURN_IF_ERROR(AddStep(group, false));
  FindRunParameters();
  LEPTON_RETURN_IF_ERROR(PlaceValues());
  FindFinalOutputs();
  return std::move(plan_);
}

Status PlanBuilder::CutLosses(std::span<const TensorType> inputs) {
  pieces_ = FindLossPieces(given_, plan_->nodes_, types_);
  if (!pieces_) return Status::Ok();
  plan_->nodes_ = std::move(pieces_->nodes);
  LEPTON_ASSIGN_OR_RETURN(types_, InferTypes(pieces_->graph, inputs));
  return Status::Ok();
}

void PlanBuilder::FindConstants(const Schedule& schedule) {
  for (const Value& value : graph().values()) {
    constant_.push_back(value.kind == ValueKind::kParameter);
  }
  for (const NodeId id : schedule.prologue) {
    for (const ValueId output : node(id).outputs) constant_[output] = true;
  }
}

// A reshape is another view of its input's memory, except where the caller wants a copy of its own;
// so is a tensor_copy, which only has a gradient of its own.
void PlanBuilder::FindViews(Schedule& schedule) {
  for (std::vector<NodeId>* part : {&schedule.prologue, &schedule.body}) {
    std::erase_if(*part, [&](NodeId id) {
      const Node& view = node(id);
      const bool renames = view.op->name() == "reshape" || view.op->name() == "tensor_copy";
      if (!renames || output_[view.outputs[0]]) return false;
      plan_->roots_[view.outputs[0]] = plan_->roots_[view.inputs[0]];
      return true;
    });
  }
}

// Where the kernel of a node packs an input that is a parameter's rounded copy, it rounds while it
// packs, and the copy itself is not made unless somebody else reads it.
void PlanBuilder::SkipRoundedCopies(Schedule& schedule) {
  std::vector<int> other_reads(graph().values().size());
  std::vector<int> packed_reads(graph().values().size());
  for (const NodeId id : schedule.prologue) {
    for (const ValueId input : node(id).inputs) ++other_reads[plan_->roots_[input]];
  }
  for (const NodeId id : schedule.body) {
    const Node& reader = node(id);
    const StepTypes types = TypesOf(reader);
    const auto entry = kernels_.Select(RequestOf(reader, types));
    const int packed = entry.ok() ? (*entry)->packs : -1;
    for (size_t i = 0; i < reader.inputs.size(); ++i) {
      const ValueId input = reader.inputs[i];
      const NodeId producer = graph().value(input).producer;
      const bool rounded = static_cast<int>(i) == packed && constant_[input] &&
                           producer != kNoNode && node(producer).op->name() == "cast" &&
                           graph().value(node(producer).inputs[0]).kind == ValueKind::kParameter;
      if (rounded) {
        packed_input_[id] = packed;
        plan_->frozen_sources_[input] = node(producer).inputs[0];
        ++packed_reads[input];
      } else {
        ++other_reads[plan_->roots_[input]];
      }
    }
  }
  std::erase_if(schedule.prologue, [&](NodeId id) {
    const ValueId output = node(id).outputs[0];
    return packed_reads[output] > 0 && other_reads[output] == 0 && !output_[output];
  });
}

PlanBuilder::StepTypes PlanBuilder::TypesOf(const Node& node) const {
  StepTypes step;
  for (const ValueId input : node.inputs) step.inputs.push_back(types_[input]);
  for (const ValueId output : node.outputs) step.outputs.push_back(types_[output]);
  return step;
}

std::vector<FrozenInput> PlanBuilder::FrozenInputs(const Node& node) const {
  std::vector<FrozenInput> frozen(node.inputs.size());
  if (!options_.frozen_parameters) return frozen;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const ValueId input = node.inputs[i];
    if (!constant_[input]) continue;
    const ValueId source = plan_->frozen_sources_[input];
    frozen[i] = {input, types_[source == kNoValue ? input : source]};
  }
  return frozen;
}

KernelRequest PlanBuilder::RequestOf(const Node& node, const StepTypes& types) const {
  return {.op = node.op->name(),
          .attributes = &node.attributes,
          .inputs = types.inputs,
          .outputs = types.outputs,
          .device = device_,
          .frozen = FrozenInputs(node),
          .node = &node,
          .followers = {},
          .types = types_,
          .kept = {},
          .packs = packs_,
          .accelerator = options_.accelerator};
}

std::vector<Group> PlanBuilder::GroupsOf(const std::vector<NodeId>& order) const {
  return FuseGroups({plan_->nodes_, order, types_, plan_->roots_}, [&](const Group& group) {
    if (!options_.fuse) return false;
    const StepTypes types = TypesOf(node(group.anchor));
    KernelRequest request = RequestOf(node(group.anchor), types);
    std::vector<const Node*> followers;
    for (const NodeId id : group.followers) followers.push_back(&node(id));
    request.followers = followers;
    return kernels_.Select(request).ok();
  });
}

// Reads from memory: within a group, followers read what is in the cache.
void PlanBuilder::FindReads(const std::vector<Group>& groups) {
  for (const Group& group : groups) {
    std::vector<ValueId> inside = {node(group.anchor).outputs[0]};
    for (const ValueId input : node(group.anchor).inputs) ++reads_[plan_->roots_[input]];
    for (const NodeId id : group.followers) {
      for (const ValueId input : node(id).inputs) {
        if (std::find(inside.begin(), inside.end(), input) == inside.end()) {
          ++reads_[plan_->roots_[input]];
        }
      }
      inside.push_back(node(id).outputs[0]);
    }
  }
}

Status PlanBuilder::AddStep(const Group& group, bool prologue) {
  const Node& anchor = node(group.anchor);
  const StepTypes types = TypesOf(anchor);
  KernelRequest request = RequestOf(anchor, types);
  if (prologue) request.frozen.clear();
  Plan::Step step;
  step.anchor = group.anchor;
  step.nodes = {&anchor};
  for (const NodeId id : group.followers) step.nodes.push_back(&node(id));
  request.followers = std::span(step.nodes).subspan(1);
  std::unique_ptr<bool[]> kept(new bool[reads_.size()]);
  for (size_t i = 0; i < reads_.size(); ++i) kept[i] = reads_[i] > 0;
  request.kept = {kept.get(), reads_.size()};
  auto entry = kernels_.Select(request);
  if (!entry.ok()) return entry.status().WithContext(anchor.name);
  step.kernel = (*entry)->create(request);
  step.implementation = (*entry)->implementation;
  step.prepared = step.kernel->pack() != nullptr;
  step.widens = (*entry)->widens;
  step.parameters = ParametersOf(step);
  plan_->steps_.push_back(std::move(step));
  return Status::Ok();
}

// That it reads from memory, in the order in which its nodes have them.
std::vector<ValueId> PlanBuilder::ParametersOf(const Plan::Step& step) const {
  std::vector<ValueId> parameters;
  const auto add = [&](ValueId value) {
    if (graph().value(value).kind != ValueKind::kParameter) return;
    if (std::find(parameters.begin(), parameters.end(), value) != parameters.end()) return;
    parameters.push_back(value);
  };
  for (const Node* node : step.nodes) {
    for (const ValueId input : node->inputs) {
      add(plan_->roots_[input]);
      const ValueId source = plan_->frozen_sources_[input];
      if (step.prepared && source != kNoValue) add(source);
    }
  }
  return parameters;
}

void PlanBuilder::FindRunParameters() {
  std::vector<bool> known(graph().values().size());
  plan_->widened_.assign(graph().values().size(), !options_.transient_packs);
  const auto add = [&](ValueId value) {
    if (graph().value(value).kind != ValueKind::kParameter || known[value]) return;
    known[value] = true;
    plan_->run_parameters_.push_back(value);
  };
  for (size_t s = plan_->prologue_steps_; s < plan_->steps_.size(); ++s) {
    const Plan::Step& step = plan_->steps_[s];
    const bool packed = step.prepared && !options_.transient_packs;
    if (!packed) std::for_each(step.parameters.begin(), step.parameters.end(), add);
    for (const Node* node : step.nodes) {
      for (size_t i = 0; i < node->inputs.size(); ++i) {
        const bool anchor = node == step.nodes[0];
        if (packed && anchor && i == 1) continue;  // Kernel::pack
        const ValueId root = plan_->roots_[node->inputs[i]];
        add(root);
        if (!anchor || static_cast<int>(i) != step.widens || root != node->inputs[i]) {
          plan_->widened_[root] = false;
        }
      }
    }
  }
}

StepUse PlanBuilder::UseOf(const Plan::Step& step) const {
  StepUse use;
  use.workspace_bytes = step.kernel->workspace_bytes();
  for (size_t n = 0; n < step.nodes.size(); ++n) {
    const Node& node = *step.nodes[n];
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (n == 0 && packed_input_[step.anchor] == static_cast<int>(i)) continue;
      use.reads.push_back(plan_->roots_[node.inputs[i]]);
    }
    for (const ValueId output : node.outputs) {
      // An anchor without followers writes all its outputs, whoever reads them.
      if (step.nodes.size() > 1 && reads_[output] == 0 && output == node.outputs[0]) continue;
      use.writes.push_back(output);
    }
  }
  return use;
}

Status PlanBuilder::PlaceValues() {
  std::vector<StepUse> uses;
  for (const Plan::Step& step : plan_->steps_) uses.push_back(UseOf(step));
  plan_->memory_ = PlanMemory(graph(), uses, plan_->prologue_steps_, types_);
  const bool on_host = options_.accelerator == nullptr;
  LEPTON_ASSIGN_OR_RETURN(
      plan_->own_, Buffer::On(options_.accelerator,
                              on_host ? plan_->memory_.kept_bytes : plan_->memory_.peak_bytes));
  if (on_host) plan_->arena_ = arena_ == nullptr ? std::make_shared<Arena>() : arena_;
  if (options_.accelerator != nullptr) {
    plan_->accelerator_ = options_.accelerator;
    plan_->records_ = options_.record;
    LEPTON_ASSIGN_OR_RETURN(DeviceFeed run_state,
                            DeviceFeed::Make(*options_.accelerator, sizeof(DeviceRunState)));
    plan_->run_state_ = std::make_unique<DeviceFeed>(std::move(run_state));
  }
  for (const TensorType& type : types_) plan_->views_.push_back({nullptr, type});
  plan_->in_memory_of_.resize(types_.size());
  plan_->stands_for_.resize(types_.size());
  for (size_t i = 0; i < types_.size(); ++i) {
    plan_->in_memory_of_[static_cast<size_t>(plan_->roots_[i])].push_back(i);
    const ValueId source = plan_->frozen_sources_[i];
    if (source != kNoValue) plan_->stands_for_[static_cast<size_t>(source)].push_back(i);
  }
  plan_->transient_packs_ = options_.transient_packs;
  plan_->frozen_views_ = plan_->views_;
  for (size_t i = 0; i < types_.size(); ++i) {
    const ValueId source = plan_->frozen_sources_[i];
    if (source != kNoValue) plan_->frozen_views_[i].type = types_[source];
  }
  // On the host a run finds its place in the arena.
  char* const own = plan_->own_.as<char>();
  if (!on_host) plan_->Place(own, own + plan_->memory_.kept_bytes);
  return Status::Ok();
}

void PlanBuilder::FindFinalOutputs() {
  std::vector<size_t> last_use(types_.size(), 0);  // by root: 1 + the step
  for (size_t i = plan_->prologue_steps_; i < plan_->steps_.size(); ++i) {
    for (const Node* node : plan_->steps_[i].nodes) {
      for (const ValueId input : node->inputs) last_use[plan_->roots_[input]] = i + 1;
      for (const ValueId output : node->outputs) last_use[plan_->roots_[output]] = i + 1;
    }
  }
  for (const Output& output : graph().outputs()) {
    const size_t last = last_use[plan_->roots_[output.value]];
    if ((output.external || output.passing) && last > 0) {
      plan_->steps_[last - 1].final_outputs.push_back(output.value);
    }
  }
}

}  // namespace lepton::graph
