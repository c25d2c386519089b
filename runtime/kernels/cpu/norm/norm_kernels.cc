#include "runtime/kernels/cpu/norm/norm_kernels.h"

#include <cstring>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/norm/row_followers.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::norm {
namespace {

using graph::KernelContext;
using graph::KernelRequest;

constexpr int64_t kGrain = 1 << 14;   // elements for which another thread is worth waking
constexpr int64_t kBlockRows = 64;    // summed by one thread before the final sum
constexpr int64_t kColumnTile = 256;  // columns of the final sum that a thread takes at a time

int64_t RowGrain(int64_t n) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, n));
}

// Rows of f32, whatever the type; one row is valid until the next.
class RowReader {
 public:
  RowReader(const TensorView& view, int64_t n) : view_(view), n_(n) {
    if (view.type.dtype == DType::kBF16) row_.resize(n);
  }
  const float* Row(int64_t row) {
    if (row_.empty()) return view_.as<float>() + row * n_;
    simd::BestLoops().to_f32(n_, view_.as<uint16_t>() + row * n_, row_.data());
    return row_.data();
  }

 private:
  const TensorView& view_;
  const int64_t n_;
  std::vector<float> row_;
};

// Sums over rows: per block of rows, `parts` rows of n sums in the workspace, then over the blocks.
class RowSums {
 public:
  RowSums(int64_t rows, int64_t n, int64_t parts)
      : rows_(rows), n_(n), parts_(parts), blocks_((rows + kBlockRows - 1) / kBlockRows) {}
  size_t workspace_bytes() const { return blocks_ * parts_ * n_ * sizeof(float); }

  // body(first row, end, sums): adds to sums [parts, n].
  template <typename Body>
  void Blocks(void* workspace, const Body& body) const {
    auto* sums = static_cast<float*>(workspace);
    ComputeLoop(blocks_, std::max<int64_t>(1, RowGrain(n_) / kBlockRows),
                [&](int64_t begin, int64_t end) {
                  for (int64_t block = begin; block < end; ++block) {
                    float* mine = sums + block * parts_ * n_;
                    std::memset(mine, 0, parts_ * n_ * sizeof(float));
                    body(block * kBlockRows, std::min(rows_, (block + 1) * kBlockRows), mine);
                  }
                });
  }
  // The sum of one part over all blocks, in order.
  void Finish(const void* workspace, int64_t part, float* y) const {
    const auto* sums = static_cast<const float*>(workspace);
    ComputeLoop((n_ + kColumnTile - 1) / kColumnTile, std::max<int64_t>(1, 64 / (blocks_ + 1)),
                [&](int64_t begin, int64_t end) {
                  const int64_t first = begin * kColumnTile;
                  const int64_t count = std::min(n_, end * kColumnTile) - first;
                  std::memset(y + first, 0, count * sizeof(float));
                  for (int64_t block = 0; block < blocks_; ++block) {
                    simd::BestLoops().accumulate(count, sums + (block * parts_ + part) * n_ + first,
                                                 y + first);
                  }
                });
  }

 private:
  const int64_t rows_, n_, parts_, blocks_;
};

class NormKernel : public graph::Kernel {
 public:
  NormKernel(const KernelRequest& request, int64_t parts, double epsilon = 0)
      : rows_(request.inputs[0].shape.rows()),
        n_(request.inputs[0].shape.back()),
        epsilon_(static_cast<float>(request.attributes->Float("epsilon", epsilon))),
        followers_(request),
        sums_(rows_, n_, parts) {}

 protected:
  // body(row, rows, scratch) for some rows at a time.
  template <typename Body>
  void ForRows(int64_t at_once, const Body& body) const {
    ComputeLoop(rows_, RowGrain(n_), [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(at_once * n_);
      for (int64_t row = begin; row < end; row += at_once) {
        body(row, std::min(at_once, end - row), scratch.data());
      }
    });
  }

  const int64_t rows_, n_;
  const float epsilon_;
  const RowFollowers followers_;
  const RowSums sums_;
};

class LayerNorm final : public NormKernel {
 public:
  explicit LayerNorm(const KernelRequest& request) : NormKernel(request, 0, 1e-5) {}
  void Run(const KernelContext& context) override {
    constexpr int64_t kAtOnce = 4;  // what the loop takes side by side
    ForRows(kAtOnce, [&](int64_t row, int64_t rows, float* scratch) {
      float* y = followers_.Target(context.output(0), row, n_, scratch);
      simd::BestLoops().layer_norm(rows, n_, epsilon_, context.input(0).as<float>() + row * n_,
                                   context.input(1).as<float>(), context.input(2).as<float>(), y,
                                   context.output(1).as<float>() + row,
                                   context.output(2).as<float>() + row);
      followers_.Run(context, row, rows, n_, y);
    });
  }
};

class RmsNorm final : public NormKernel {
 public:
  explicit RmsNorm(const KernelRequest& request) : NormKernel(request, 0, 1e-6) {}
  void Run(const KernelContext& context) override {
    ForRows(1, [&](int64_t row, int64_t rows, float* scratch) {
      float* y = followers_.Target(context.output(0), row, n_, scratch);
      context.output(1).as<float>()[row] = simd::BestLoops().rms_norm(
          n_, epsilon_, context.input(0).as<float>() + row * n_, context.input(1).as<float>(), y);
      followers_.Run(context, row, rows, n_, y);
    });
  }
};

class LayerNormGrad final : public NormKernel {
 public:
  explicit LayerNormGrad(const KernelRequest& request) : NormKernel(request, 2) {}
  size_t workspace_bytes() const override { return sums_.workspace_bytes(); }
  void Run(const KernelContext& context) override {
    sums_.Blocks(context.workspace(), [&](int64_t begin, int64_t end, float* sums) {
      RowReader x(context.input(0), n_);
      RowReader dy(context.input(4), n_);
      std::vector<float> scratch(n_);
      for (int64_t row = begin; row < end; ++row) {
        float* dx = followers_.Target(context.output(0), row, n_, scratch.data());
        simd::BestLoops().layer_norm_grad(
            n_, x.Row(row), context.input(1).as<float>(), context.input(2).as<float>()[row],
            context.input(3).as<float>()[row], dy.Row(row), dx, sums, sums + n_);
        followers_.Run(context, row, 1, n_, dx);
      }
    });
    sums_.Finish(context.workspace(), 0, context.output(1).as<float>());
    sums_.Finish(context.workspace(), 1, context.output(2).as<float>());
  }
};

class RmsNormGrad final : public NormKernel {
 public:
  explicit RmsNormGrad(const KernelRequest& request) : NormKernel(request, 1) {}
  size_t workspace_bytes() const override { return sums_.workspace_bytes(); }
  void Run(const KernelContext& context) override {
    sums_.Blocks(context.workspace(), [&](int64_t begin, int64_t end, float* sums) {
      RowReader dy(context.input(3), n_);
      std::vector<float> scratch(n_);
      for (int64_t row = begin; row < end; ++row) {
        float* dx = followers_.Target(context.output(0), row, n_, scratch.data());
        simd::BestLoops().rms_norm_grad(n_, context.input(0).as<float>() + row * n_,
                                        context.input(1).as<float>(),
                                        context.input(2).as<float>()[row], dy.Row(row), dx, sums);
        followers_.Run(context, row, 1, n_, dx);
      }
    });
    sums_.Finish(context.workspace(), 0, context.output(1).as<float>());
  }
};

class SumRows final : public graph::Kernel {
 public:
  explicit SumRows(const KernelRequest& request)
      : n_(request.inputs[0].shape.back()), sums_(request.inputs[0].shape.rows(), n_, 1) {}
  size_t workspace_bytes() const override { return sums_.workspace_bytes(); }
  void Run(const KernelContext& context) override {
    sums_.Blocks(context.workspace(), [&](int64_t begin, int64_t end, float* sums) {
      RowReader x(context.input(0), n_);
      for (int64_t row = begin; row < end; ++row) {
        simd::BestLoops().accumulate(n_, x.Row(row), sums);
      }
    });
    sums_.Finish(context.workspace(), 0, context.output(0).as<float>());
  }

 private:
  const int64_t n_;
  const RowSums sums_;
};

template <typename Kernel>
graph::KernelEntry Entry(std::string_view op, bool fuses, DType dtype = DType::kF32) {
  graph::KernelEntry entry{op, dtype, "rows", &RowFollowers::CanRun,
                           [](const KernelRequest& request) -> std::unique_ptr<graph::Kernel> {
                             return std::make_unique<Kernel>(request);
                           }};
  entry.fuses = fuses;
  return entry;
}

}  // namespace

std::vector<graph::KernelEntry> NormKernels() {
  return {Entry<LayerNorm>("layer_norm", true), Entry<LayerNormGrad>("layer_norm_grad", true),
          Entry<RmsNorm>("rms_norm", true),     Entry<RmsNormGrad>("rms_norm_grad", true),
          Entry<SumRows>("sum_rows", false),    Entry<SumRows>("sum_rows", false, DType::kBF16)};
}

}  // namespace lepton::kernels::norm
