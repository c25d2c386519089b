// Glue of rotary positions and of pools over tokens.
#include <cmath>

#include "runtime/base/logging.h"
#include "runtime/kernels/cuda/cuda_kernel.h"
#include "runtime/kernels/cuda/device/tokens.h"
#include "runtime/ops/rope.h"

namespace lepton::kernels::cuda {
namespace {

// The angles, computed in double, lie in a table on the device.
class RopeKernel final : public graph::Kernel {
 public:
  explicit RopeKernel(const KernelRequest& request) : device_(DeviceOf(request)) {
    const Shape& shape = request.inputs[0].shape;
    const graph::Attributes& attributes = *request.attributes;
    arguments_.size = attributes.Int("size", shape.back());
    arguments_.rows = shape.rows();
    arguments_.heads = shape.back() / arguments_.size;
    arguments_.positions = shape[shape.rank() - 2];
    arguments_.dims = attributes.Int("dims", arguments_.size);
    arguments_.interleaved = attributes.Int("interleaved") != 0;
    arguments_.bf16 = request.inputs[0].dtype == DType::kBF16;
    MakeTurns(attributes);
  }
  void Run(const KernelContext& context) override {
    arguments_.x = context.input(0).data;
    arguments_.y = context.output(0).data;
    RunRope(arguments_, device_.stream());
  }
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
    return std::make_unique<RopeKernel>(request);
  }

 private:
  void MakeTurns(const graph::Attributes& attributes) {
    const double sign = attributes.Int("inverse") != 0 ? -1 : 1;
    const double magnitude = attributes.Float("magnitude", 1);
    const int64_t offset = attributes.Int("offset");
    const std::vector<double> frequencies = ops::RopeFrequencies(arguments_.dims, attributes);
    std::vector<float> turns;
    for (int64_t position = 0; position < arguments_.positions; ++position) {
      for (int64_t pair = 0; pair < arguments_.dims / 2; ++pair) {
        const double angle = sign * static_cast<double>(offset + position) * frequencies[pair];
        turns.push_back(static_cast<float>(magnitude * std::cos(angle)));
        turns.push_back(static_cast<float>(magnitude * std::sin(angle)));
      }
    }
    const size_t bytes = turns.size() * sizeof(float);
    auto table = Buffer::On(&device_, bytes);
    CHECK(table.ok()) << table.status().ToString();
    table_ = *std::move(table);
    device_.CopyIn(table_.data(), turns.data(), bytes);
    const Status copied = device_.Synchronize();
    CHECK(copied.ok()) << copied.ToString();
    arguments_.turns = table_.as<float>();
  }

  CudaDevice& device_;
  Buffer table_;
  RopeArguments arguments_;
};

TokenPool KindOf(const KernelContext& context) {
  const std::string kind = context.attributes().Text("kind");
  return kind == "first" ? TokenPool::kFirst : kind == "last" ? TokenPool::kLast : TokenPool::kMean;
}

const float* MaskOf(const KernelContext& context, int index) {
  return context.inputs() > index ? context.input(index).as<float>() : nullptr;
}

void PoolTokensOf(const KernelContext& c, CudaDevice& device) {
  const Shape& x = c.input(0).shape();
  RunPoolTokens(KindOf(c), x[0], x[1], x[2], MaskOf(c, 1), c.input(0).as<float>(),
                c.output(0).as<float>(), device.stream());
}

void PoolTokensGradOf(const KernelContext& c, CudaDevice& device) {
  const Shape& x = c.input(1).shape();
  RunPoolTokensGrad(KindOf(c), x[0], x[1], x[2], MaskOf(c, 2), c.input(0).as<float>(),
                    c.output(0).as<float>(), device.stream());
}

// Angles come with rows that go on from a cache, which is the host's (nn/decoding_program.h).
bool HasNoAngles(const graph::KernelRequest& request) {
  return request.inputs.size() == 1;
}

}  // namespace

std::vector<KernelEntry> TokenKernels() {
  return {
      CudaEntry("rope", DType::kF32, "own", &HasNoAngles, &RopeKernel::Create),
      CudaEntry("rope", DType::kBF16, "own", &HasNoAngles, &RopeKernel::Create),
      Own<PoolTokensOf>("pool_tokens"),
      Own<PoolTokensGradOf>("pool_tokens_grad"),
  };
}

}  // namespace lepton::kernels::cuda
