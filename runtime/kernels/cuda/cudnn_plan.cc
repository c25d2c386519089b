#include "runtime/kernels/cuda/cudnn_plan.cuh"

#include <algorithm>

namespace lepton::kernels::cuda {
namespace {

constexpr int64_t kMostWorkspaceBytes = int64_t{1} << 30;
constexpr int64_t kMostNotes = 32;

}  // namespace

CudnnDescriptor::CudnnDescriptor(const Cudnn& cudnn, cudnnBackendDescriptorType_t type)
    : cudnn_(cudnn) {
  status_ = cudnn_.BackendCreateDescriptor(type, &handle_);
}

CudnnDescriptor::~CudnnDescriptor() {
  if (handle_ != nullptr) cudnn_.BackendDestroyDescriptor(handle_);
}

void CudnnDescriptor::SetRaw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                             int64_t count, const void* values) {
  if (status_ != CUDNN_STATUS_SUCCESS) return;
  status_ = cudnn_.BackendSetAttribute(handle_, name, type, count, values);
}

bool CudnnDescriptor::Finalize() {
  if (status_ == CUDNN_STATUS_SUCCESS) status_ = cudnn_.BackendFinalize(handle_);
  return status_ == CUDNN_STATUS_SUCCESS;
}

int64_t CudnnDescriptor::Get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                             int64_t room, void* values) const {
  int64_t count = 0;
  const cudnnStatus_t status =
      cudnn_.BackendGetAttribute(handle_, name, type, room, &count, values);
  if (status != CUDNN_STATUS_SUCCESS) return 0;
  return room == 0 ? count : std::min(room, count);
}

CudnnPlan::CudnnPlan(const CudnnTarget& target, CudnnDescriptor plan)
    : target_(target), plan_(std::move(plan)) {
  int64_t bytes = 0;
  plan_.Get(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &bytes);
  workspace_bytes_ = static_cast<size_t>(std::max<int64_t>(0, bytes));
}

cudnnStatus_t CudnnPlan::Run(const std::vector<int64_t>& tensors, const std::vector<void*>& memory,
                             void* workspace) const {
  CudnnDescriptor pack(target_.cudnn, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.Set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, tensors);
  pack.SetRaw(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
              static_cast<int64_t>(memory.size()), memory.data());
  pack.SetRaw(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  if (!pack.Finalize()) return pack.status();
  return target_.cudnn.BackendExecute(target_.handle, plan_.handle(), pack.handle());
}

const CudnnDescriptor& CudnnGraph::Add(const Tensor& tensor) {
  auto descriptor =
      std::make_unique<CudnnDescriptor>(target_.cudnn, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  descriptor->Set(CUDNN_ATTR_TENSOR_UNIQUE_ID, tensor.number);
  descriptor->Set(CUDNN_ATTR_TENSOR_DATA_TYPE, tensor.type);
  descriptor->Set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, tensor.alignment);
  descriptor->Set(CUDNN_ATTR_TENSOR_DIMENSIONS, tensor.extents);
  descriptor->Set(CUDNN_ATTR_TENSOR_STRIDES, tensor.strides);
  if (tensor.is_virtual) descriptor->Set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
  if (tensor.by_value) descriptor->Set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, true);
  descriptor->Finalize();
  return *tensors_.emplace_back(std::move(descriptor));
}

CudnnDescriptor& CudnnGraph::AddOperation(cudnnBackendDescriptorType_t type) {
  return *operations_.emplace_back(std::make_unique<CudnnDescriptor>(target_.cudnn, type));
}

CudnnDescriptor& CudnnGraph::AddPart(cudnnBackendDescriptorType_t type) {
  return *parts_.emplace_back(std::make_unique<CudnnDescriptor>(target_.cudnn, type));
}

bool CudnnGraph::Check(const std::vector<std::unique_ptr<CudnnDescriptor>>& descriptors,
                       const char* what) {
  for (const auto& descriptor : descriptors) {
    if (descriptor->status() == CUDNN_STATUS_SUCCESS) continue;
    failure_ = NotFound(std::string(what) + ": " + target_.cudnn.LastError(descriptor->status()));
    return false;
  }
  return true;
}

std::unique_ptr<CudnnPlan> CudnnGraph::Plan(const Wanted& wanted) {
  if (!Check(tensors_, "a tensor") || !Check(parts_, "a part of an operation")) return nullptr;
  std::vector<cudnnBackendDescriptor_t> handles;
  for (const auto& operation : operations_) {
    if (!operation->Finalize()) break;
    handles.push_back(operation->handle());
  }
  if (!Check(operations_, "an operation")) return nullptr;
  CudnnDescriptor graph(target_.cudnn, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.SetRaw(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
               static_cast<int64_t>(handles.size()), handles.data());
  if (target_.handle != nullptr) {
    graph.SetRaw(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &target_.handle);
  }
  if (!graph.Finalize()) {
    failure_ = NotFound("the graph: " + target_.cudnn.LastError(graph.status()));
    return nullptr;
  }
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    if (auto plan = Finish(graph, mode, wanted)) {
      return std::make_unique<CudnnPlan>(target_, std::move(*plan));
    }
  }
  if (failure_.ok()) failure_ = NotFound("no engine computes it as we want it");
  return nullptr;
}

// The first engine that the library's heuristics name and that we take.
std::optional<CudnnDescriptor> CudnnGraph::Finish(const CudnnDescriptor& graph,
                                                  cudnnBackendHeurMode_t mode,
                                                  const Wanted& wanted) {
  const Cudnn& cudnn = target_.cudnn;
  CudnnDescriptor heuristics(cudnn, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.Set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristics.SetRaw(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (target_.properties != nullptr) {
    heuristics.Set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *target_.properties);
  }
  if (!heuristics.Finalize()) {
    failure_ = NotFound("heuristics: " + cudnn.LastError(heuristics.status()));
    return std::nullopt;
  }
  const int64_t count =
      heuristics.Get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, nullptr);
  std::vector<CudnnDescriptor> configs;
  std::vector<cudnnBackendDescriptor_t> handles;
  for (int64_t i = 0; i < count; ++i) {
    configs.emplace_back(cudnn, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    handles.push_back(configs.back().handle());
  }
  const int64_t found = count == 0
                            ? 0
                            : heuristics.Get(CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                             CUDNN_TYPE_BACKEND_DESCRIPTOR, count, handles.data());
  for (int64_t i = 0; i < found; ++i) {
    if (!Takes(configs[i], wanted)) continue;
    CudnnDescriptor plan(cudnn, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.Set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configs[i]);
    if (target_.handle != nullptr) {
      plan.SetRaw(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &target_.handle);
    } else {
      plan.Set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *target_.properties);
    }
    if (!plan.Finalize()) {
      const std::string message = "an engine: " + cudnn.LastError(plan.status());
      failure_ = plan.status() == CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER
                     ? FailedPrecondition(message)
                     : NotFound(message);
      continue;
    }
    int64_t bytes = 0;
    plan.Get(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &bytes);
    if (bytes <= kMostWorkspaceBytes) return plan;
  }
  return std::nullopt;
}

bool CudnnGraph::Takes(const CudnnDescriptor& config, const Wanted& wanted) const {
  CudnnDescriptor engine(target_.cudnn, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t handle = engine.handle();
  if (config.Get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &handle) != 1) {
    return false;
  }
  cudnnBackendNumericalNote_t notes[kMostNotes];
  const int64_t count =
      engine.Get(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, kMostNotes, notes);
  for (int64_t i = 0; i < count; ++i) {
    switch (notes[i]) {
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
      case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
      case CUDNN_NUMERICAL_NOTE_FFT:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13:
        return false;
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4:  // of f32 its error would be the largest
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
        if (wanted.f32_operands) return false;  // or they would be rounded to TF32
        break;
      default:
        break;
    }
  }
  if (wanted.may_compile) return true;
  cudnnBackendBehaviorNote_t behaviors[kMostNotes];
  const int64_t behavior_count =
      engine.Get(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, kMostNotes, behaviors);
  return std::none_of(behaviors, behaviors + behavior_count, [](cudnnBackendBehaviorNote_t note) {
    return note == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
  });
}

}  // namespace lepton::kernels::cuda
