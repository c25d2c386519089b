// Internal to the back-end (it shows the vendor's types). cuDNN's graph API: operations on tensors
// become a plan that runs them on a device. Threads: one caller.
// Source: cuDNN 9 documentation, "cudnn_graph Library" (the backend descriptors).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/kernels/cuda/cudnn_library.cuh"

namespace lepton::kernels::cuda {

// One of the library's descriptors, destroyed with its owner. What cannot be set is remembered, and
// makes Finalize fail.
class CudnnDescriptor {
 public:
  CudnnDescriptor(const Cudnn& cudnn, cudnnBackendDescriptorType_t type);
  ~CudnnDescriptor();
  CudnnDescriptor(CudnnDescriptor&& other) noexcept
      : cudnn_(other.cudnn_),
        handle_(std::exchange(other.handle_, nullptr)),
        status_(other.status_) {}
  CudnnDescriptor(const CudnnDescriptor&) = delete;
  CudnnDescriptor& operator=(const CudnnDescriptor&) = delete;

  void SetRaw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
              const void* values);
  void Set(cudnnBackendAttributeName_t name, int64_t value) {
    SetRaw(name, CUDNN_TYPE_INT64, 1, &value);
  }
  void Set(cudnnBackendAttributeName_t name, const std::vector<int64_t>& values) {
    SetRaw(name, CUDNN_TYPE_INT64, static_cast<int64_t>(values.size()), values.data());
  }
  void Set(cudnnBackendAttributeName_t name, float value) {
    SetRaw(name, CUDNN_TYPE_FLOAT, 1, &value);
  }
  void Set(cudnnBackendAttributeName_t name, bool value) {
    SetRaw(name, CUDNN_TYPE_BOOLEAN, 1, &value);
  }
  void Set(cudnnBackendAttributeName_t name, cudnnDataType_t value) {
    SetRaw(name, CUDNN_TYPE_DATA_TYPE, 1, &value);
  }
  void Set(cudnnBackendAttributeName_t name, const CudnnDescriptor& other) {
    SetRaw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &other.handle_);
  }
  bool Finalize();
  // As many as there are, at most `room`.
  int64_t Get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t room,
              void* values) const;

  cudnnBackendDescriptor_t handle() const { return handle_; }
  cudnnStatus_t status() const { return status_; }

 private:
  const Cudnn& cudnn_;
  cudnnBackendDescriptor_t handle_ = nullptr;
  cudnnStatus_t status_ = CUDNN_STATUS_SUCCESS;
};

// What plans are made for.
struct CudnnTarget {
  const Cudnn& cudnn;
  // The device, or its properties where there is none: such plans cannot run.
  cudnnHandle_t handle = nullptr;
  const CudnnDescriptor* properties = nullptr;
};

class CudnnPlan {
 public:
  CudnnPlan(const CudnnTarget& target, CudnnDescriptor plan);
  size_t workspace_bytes() const { return workspace_bytes_; }
  // Queued on the handle's stream. The memory of each tensor, by its number.
  cudnnStatus_t Run(const std::vector<int64_t>& tensors, const std::vector<void*>& memory,
                    void* workspace) const;

 private:
  const CudnnTarget target_;
  CudnnDescriptor plan_;
  size_t workspace_bytes_ = 0;
};

// Operations under construction.
class CudnnGraph {
 public:
  explicit CudnnGraph(const CudnnTarget& target) : target_(target) {}

  struct Tensor {
    int64_t number;
    cudnnDataType_t type;
    std::vector<int64_t> extents, strides;
    int64_t alignment;        // bytes
    bool is_virtual = false;  // it has no memory
    bool by_value = false;    // its memory is the host's, read when the plan runs
  };
  const CudnnDescriptor& Add(const Tensor& tensor);
  // To be filled; finalized by Plan in this order.
  CudnnDescriptor& AddOperation(cudnnBackendDescriptorType_t type);
  // Part of an operation, to be filled and finalized.
  CudnnDescriptor& AddPart(cudnnBackendDescriptorType_t type);

  struct Wanted {
    bool f32_operands = false;  // which must not be rounded
    bool may_compile = false;   // engines that compile their code when the plan is made: seconds
  };
  // Null when no engine computes it so, with the same bits each time and sums of f32.
  std::unique_ptr<CudnnPlan> Plan(const Wanted& wanted);
  // Why there is none: kNotFound, or kFailedPrecondition where only the driver is missing that
  // loads compiled code.
  const Status& failure() const { return failure_; }

 private:
  std::optional<CudnnDescriptor> Finish(const CudnnDescriptor& graph, cudnnBackendHeurMode_t mode,
                                        const Wanted& wanted);
  bool Takes(const CudnnDescriptor& config, const Wanted& wanted) const;

  bool Check(const std::vector<std::unique_ptr<CudnnDescriptor>>& descriptors, const char* what);

  const CudnnTarget target_;
  std::vector<std::unique_ptr<CudnnDescriptor>> tensors_, parts_, operations_;
  Status failure_;
};

}  // namespace lepton::kernels::cuda
