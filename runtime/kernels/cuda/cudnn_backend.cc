#include "runtime/kernels/cuda/cudnn_backend.h"

#include "runtime/kernels/cuda/cudnn_attention.cuh"
#include "runtime/kernels/cuda/cudnn_convolutions.cuh"

namespace lepton::kernels::cuda {
namespace {

class Handle {
 public:
  Handle(const Cudnn& cudnn, cudnnHandle_t handle) : cudnn_(cudnn), handle_(handle) {}
  ~Handle() { cudnn_.Destroy(handle_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  cudnnHandle_t get() const { return handle_; }

 private:
  const Cudnn& cudnn_;
  const cudnnHandle_t handle_;
};

class Backend final : public CudnnBackend {
 public:
  Backend(const Cudnn& cudnn, cudnnHandle_t handle, Status& failed)
      : handle_(cudnn, handle),
        convolutions_({cudnn, handle}, failed),
        attentions_({cudnn, handle}, failed) {}
  Convolutions& convolutions() override { return convolutions_; }
  Attentions& attentions() override { return attentions_; }

 private:
  const Handle handle_;  // outlives the plans
  CudnnConvolutions convolutions_;
  CudnnAttentions attentions_;
};

Result<CudnnDescriptor> Described(const Cudnn& cudnn, const std::string& device_json) {
  CudnnDescriptor properties(cudnn, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  properties.SetRaw(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                    static_cast<int64_t>(device_json.size()) + 1, device_json.c_str());
  if (properties.Finalize()) return properties;
  return Unavailable("cuDNN: " + cudnn.LastError(properties.status()));
}

}  // namespace

Result<std::unique_ptr<CudnnBackend>> OpenCudnn(Stream stream, Status& failed) {
  LEPTON_ASSIGN_OR_RETURN(const Cudnn* const cudnn, Cudnn::Load());
  cudnnHandle_t handle = nullptr;
  cudnnStatus_t status = cudnn->Create(&handle);
  if (status != CUDNN_STATUS_SUCCESS) return Internal("cuDNN: " + cudnn->LastError(status));
  auto backend = std::make_unique<Backend>(*cudnn, handle, failed);
  status = cudnn->SetStream(handle, static_cast<cudaStream_t>(stream.handle));
  if (status != CUDNN_STATUS_SUCCESS) return Internal("cuDNN: " + cudnn->LastError(status));
  return std::unique_ptr<CudnnBackend>(std::move(backend));
}

Result<size_t> PlanWithoutDevice(const ConvolutionShape& shape, const std::string& device_json) {
  LEPTON_ASSIGN_OR_RETURN(const Cudnn* const cudnn, Cudnn::Load());
  LEPTON_ASSIGN_OR_RETURN(const CudnnDescriptor device, Described(*cudnn, device_json));
  Status failure;
  const CudnnPlans plans = PlanConvolution({*cudnn, nullptr, &device}, shape, failure);
  if (plans.aligned == nullptr) return failure;
  return plans.workspace_bytes();
}

Result<size_t> PlanWithoutDevice(const AttentionArguments& arguments, AttentionPass pass,
                                 const std::string& device_json) {
  LEPTON_ASSIGN_OR_RETURN(const Cudnn* const cudnn, Cudnn::Load());
  if (!FitsLibrary(arguments)) return NotFound("it is not what the library computes");
  LEPTON_ASSIGN_OR_RETURN(const CudnnDescriptor device, Described(*cudnn, device_json));
  Status failure;
  const auto plan = PlanAttention({*cudnn, nullptr, &device}, arguments, pass, failure);
  if (plan == nullptr) return failure;
  return plan->workspace_bytes();
}

}  // namespace lepton::kernels::cuda
