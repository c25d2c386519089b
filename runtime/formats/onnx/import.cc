#include "runtime/formats/onnx/import.h"

#include "runtime/formats/onnx/importer.h"
#include "runtime/kernels/general/general_kernels.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/general/general_op_list.h"
#include "runtime/ops/op_list.h"

namespace lepton::onnx {
namespace {

Status BindTensor(graph::Plan& plan, const Ref& ref, HostTensor& tensor) {
  plan.Bind(ref.id, tensor.data.data());
  return Status::Ok();
}

Status BindInput(graph::Plan& plan, const NamedRef& input, NamedValues& values) {
  if (!input.ref.present()) return Status::Ok();
  const auto found = values.find(input.name);
  if (found == values.end() || found->second.kind != input.ref.kind ||
      found->second.items.size() != input.ref.items.size()) {
    return InvalidArgument("input '" + input.name + "' is missing or of another kind");
  }
  if (input.ref.kind == HostValue::Kind::kTensor) {
    return BindTensor(plan, input.ref, found->second.tensor);
  }
  for (size_t i = 0; i < input.ref.items.size(); ++i) {
    LEPTON_RETURN_IF_ERROR(BindTensor(plan, input.ref.items[i], found->second.items[i].tensor));
  }
  return Status::Ok();
}

HostValue Read(const graph::Plan& plan, const Ref& ref) {
  HostValue value;
  value.kind = ref.kind;
  if (ref.kind == HostValue::Kind::kTensor) {
    value.tensor = HostTensor(plan.view(ref.id).type, plan.view(ref.id).data);
  }
  for (const Ref& item : ref.items) value.items.push_back(Read(plan, item));
  return value;
}

}  // namespace

const graph::OpSet& ImportOps() {
  static const graph::OpSet set([] {
    std::vector<const graph::Op*> ops = ops::general::GeneralOps();
    const auto core = ops::OpList().ops();
    ops.insert(ops.end(), core.begin(), core.end());
    return ops;
  }());
  return set;
}

const graph::KernelTable& ImportKernels() {
  static const graph::KernelTable table([] {
    std::vector<graph::KernelEntry> entries = kernels::CpuKernels().entries();
    const auto general = kernels::general::GeneralKernels();
    entries.insert(entries.end(), general.begin(), general.end());
    return entries;
  }());
  return table;
}

namespace {

// Errors of any kind as a Status.
Status Guarded(const std::function<void()>& body) {
  try {
    body();
  } catch (const ImportFailure& failure) {
    return failure.status;
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("not enough memory to import the model");
  } catch (const std::exception& error) {
    return InvalidArgument(std::string("malformed model: ") + error.what());
  }
  return Status::Ok();
}

// The types of the graph's inputs as given; the declared ones where nothing is.
Result<std::vector<TensorType>> GivenTypes(const ImportedModel& model, const NamedValues& inputs) {
  std::map<graph::ValueId, TensorType> given;
  for (const NamedRef& input : model.inputs) {
    const auto found = inputs.find(input.name);
    if (!input.ref.present()) continue;
    if (found == inputs.end() || found->second.kind != input.ref.kind ||
        found->second.items.size() != input.ref.items.size()) {
      return InvalidArgument("input '" + input.name + "' is missing or of another kind");
    }
    const auto check = [&](const Ref& ref, const HostTensor& tensor) {
      given[ref.id] = tensor.type;
      const TensorType& wanted = model.graph->type(ref.id);
      if (wanted == tensor.type || wanted.shape.open()) return Status::Ok();
      return InvalidArgument("input '" + input.name + "' is " + tensor.type.ToString() +
                             "; the model was imported for " + wanted.ToString());
    };
    if (input.ref.kind == HostValue::Kind::kTensor) {
      LEPTON_RETURN_IF_ERROR(check(input.ref, found->second.tensor));
    }
    for (size_t i = 0; i < input.ref.items.size(); ++i) {
      LEPTON_RETURN_IF_ERROR(check(input.ref.items[i], found->second.items[i].tensor));
    }
  }
  std::vector<TensorType> types;
  for (size_t i = 0; i < model.graph->values().size(); ++i) {
    const auto id = static_cast<graph::ValueId>(i);
    if (model.graph->value(id).kind != graph::ValueKind::kInput) continue;
    const auto found = given.find(id);
    types.push_back(found == given.end() ? model.graph->type(id) : found->second);
  }
  return types;
}

}  // namespace

Result<ImportedModel> Import(const onnx_proto::ModelProto& proto, const NamedValues& given,
                             const ImportOptions& options) {
  ImportedModel model;
  model.graph = std::make_unique<graph::Graph>(ImportOps());
  LEPTON_RETURN_IF_ERROR(Guarded([&] {
    Importer importer(proto, given, options, &model, nullptr);
    importer.Run();
    importer.AddOutputs();
  }));
  return model;
}

Result<std::vector<NamedRef>> ImportInto(const onnx_proto::ModelProto& proto,
                                         const Embedding& embedding, const ImportOptions& options) {
  ImportedModel model;
  LEPTON_RETURN_IF_ERROR(Guarded([&] { Importer(proto, {}, options, &model, &embedding).Run(); }));
  return std::move(model.outputs);
}

Result<NamedValues> Run(ImportedModel& model, NamedValues& inputs) {
  LEPTON_ASSIGN_OR_RETURN(const std::vector<TensorType> types, GivenTypes(model, inputs));
  LEPTON_ASSIGN_OR_RETURN(const auto plan,
                          graph::Plan::Make(*model.graph, ImportKernels(), {}, types));
  for (auto& [id, tensor] : model.constants) plan->Bind(id, tensor.data.data());
  for (const NamedRef& input : model.inputs) {
    LEPTON_RETURN_IF_ERROR(BindInput(*plan, input, inputs));
  }
  plan->RunPrologue({});
  plan->Run({});
  NamedValues outputs;
  for (const NamedRef& output : model.outputs) outputs[output.name] = Read(*plan, output.ref);
  return outputs;
}

}  // namespace lepton::onnx
