// A GPU that is none: memory of the host, device code compiled for the host (threads.h), work done
// when it is queued, or kept while a plan records. Only tests link it. Threads: one caller.
#pragma once

#include <functional>
#include <vector>

#include "runtime/kernels/cuda/cuda_device.h"

namespace lepton::kernels::cuda::emulation {

// What a Stream's handle points to.
class Queue {
 public:
  void Add(std::function<void()> work) {
    if (recording_) {
      recorded_.push_back(std::move(work));
    } else {
      work();
    }
  }
  bool recording() const { return recording_; }
  void Begin() { recording_ = true; }
  std::vector<std::function<void()>> End() {
    recording_ = false;
    return std::exchange(recorded_, {});
  }

 private:
  bool recording_ = false;
  std::vector<std::function<void()>> recorded_;
};

class EmulatedProducts final : public Products {
 public:
  explicit EmulatedProducts(Queue& queue) : queue_(queue) {}
  std::unique_ptr<Product> Make(const ProductShape& shape) override;
  // Refuses whatever is more than a product, as a library may.
  void RefuseEpilogues(bool refuse) { refuse_ = refuse; }
  // Products made so far that were more than a product.
  int epilogues() const { return epilogues_; }

 private:
  Queue& queue_;
  bool refuse_ = false;
  int epilogues_ = 0;
};

class EmulatedConvolutions final : public Convolutions {
 public:
  explicit EmulatedConvolutions(Queue& queue) : queue_(queue) {}
  std::unique_ptr<Convolution> Make(const ConvolutionShape& shape) override;
  // As a library that is there and has no plan for anything.
  void Refuse(bool refuse) { refuse_ = refuse; }

 private:
  Queue& queue_;
  bool refuse_ = false;
};

class EmulatedAttentions final : public Attentions {
 public:
  explicit EmulatedAttentions(Queue& queue) : queue_(queue) {}
  std::unique_ptr<LibraryAttention> Make(const AttentionArguments& arguments,
                                         AttentionPass pass) override;

 private:
  Queue& queue_;
};

class EmulatedDevice final : public CudaDevice {
 public:
  ~EmulatedDevice() override;
  Device device() const override { return {DeviceKind::kCuda, 0}; }
  std::string description() const override { return "emulated GPU"; }
  Result<void*> Allocate(size_t bytes) override;
  void Free(void* data) override;
  Result<void*> AllocatePinned(size_t bytes) override { return Allocate(bytes); }
  void FreePinned(void* data) override { Free(data); }
  void CopyIn(void* to, const void* from_host, size_t bytes) override;
  void CopyOut(void* to_host, const void* from, size_t bytes) override;
  void CopyWithin(void* to, const void* from, size_t bytes) override;
  void Zero(void* data, size_t bytes) override;
  Status Synchronize() override;
  std::unique_ptr<Fence> MakeFence() override;
  Status BeginRecording() override;
  Result<std::unique_ptr<RecordedWork>> EndRecording() override;

  Stream stream() const override { return {&queue_}; }
  EmulatedProducts& products() override { return products_; }
  EmulatedConvolutions* convolutions() override { return &convolutions_; }
  EmulatedAttentions* attentions() override { return &attentions_; }
  int multiprocessors() const override { return 2; }
  // 0 in a test that frees all.
  size_t allocated_bytes() const { return allocated_; }

 private:
  mutable Queue queue_;
  EmulatedProducts products_{queue_};
  EmulatedConvolutions convolutions_{queue_};
  EmulatedAttentions attentions_{queue_};
  std::vector<std::pair<void*, size_t>> memory_;
  size_t allocated_ = 0;
};

}  // namespace lepton::kernels::cuda::emulation
