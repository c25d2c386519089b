#include "runtime/kernels/cpu/gemm/int8_kernel.h"

#include <cstring>
#include <optional>
#include <vector>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/gemm/gemm.h"
#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/gemm/program_finisher.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::gemm {
namespace {

using graph::KernelContext;
using graph::KernelRequest;

constexpr int64_t kInt8Alignment = 64;  // of a quantised row, in elements: a step of the product

int64_t PaddedTo(int64_t value) {
  return (value + kInt8Alignment - 1) / kInt8Alignment * kInt8Alignment;
}

// Makes numbers of the sums before what follows sees them.
class ScaledFinisher final : public Finisher {
 public:
  ScaledFinisher(const float* row_scales, const float* column_scales, const Finisher& next)
      : row_scales_(row_scales), column_scales_(column_scales), next_(next) {}

  void Finish(int64_t first_row, int64_t rows, int64_t first_column, int64_t columns,
              float* block) const override {
    simd::BestLoops().from_int32_rows(rows, kPanelColumns, row_scales_ + first_row,
                                      column_scales_ + first_column, block);
    next_.Finish(first_row, rows, first_column, columns, block);
  }

 private:
  const float* const row_scales_;
  const float* const column_scales_;
  const Finisher& next_;
};

class Int8Kernel final : public graph::Kernel {
 public:
  explicit Int8Kernel(const KernelRequest& request)
      : turned_(request.attributes->Int("transpose_b") != 0),
        rows_(request.outputs[0].shape.rows()),
        columns_(request.outputs[0].shape.back()),
        inner_(request.inputs[0].shape.back()),
        pitch_(PaddedTo(inner_)),
        product_(rows_, columns_, pitch_, DType::kI8, {DType::kI8, pitch_, 1},
                 {DType::kI8, 1, pitch_}) {
    if (!request.followers.empty()) {
      program_.emplace(request.followers, request.node->outputs[0], request.types, request.kept);
    }
    if (request.frozen.empty() || request.frozen[1].value == graph::kNoValue) return;
    const std::string layout = std::string("int8") + (turned_ ? " turned " : " ") +
                               std::to_string(inner_) + " " + std::to_string(columns_);
    pack_ = request.packs == nullptr
                ? std::make_shared<graph::Pack>(graph::Pack{Buffer(right_bytes())})
                : request.packs->Get(request.frozen[1].value, layout, right_bytes());
  }

  // The rows, their scales, and the right side where it is not frozen.
  size_t workspace_bytes() const override {
    return left_bytes() + (pack_ == nullptr ? right_bytes() : 0);
  }

  graph::Pack* pack() const override { return pack_.get(); }

  void Prepare(const KernelContext& context) override {
    PackWeights(context.input(1).as<float>(), pack_->data.as<char>());
  }

  void Run(const KernelContext& context) override {
    char* const left = static_cast<char*>(context.workspace());
    char* const right = pack_ == nullptr ? left + left_bytes() : pack_->data.as<char>();
    if (pack_ == nullptr) PackWeights(context.input(1).as<float>(), right);
    float* const row_scales = reinterpret_cast<float*>(left);
    auto* const rows = reinterpret_cast<int8_t*>(left + AlignedSize(rows_ * sizeof(float)));
    QuantizeRows(context.input(0), row_scales, rows);
    const auto* column_scales = reinterpret_cast<const float*>(right);
    if (program_) {
      const ProgramFinisher finisher(*program_, context, columns_);
      product_.Run(rows, right + scale_bytes(),
                   ScaledFinisher(row_scales, column_scales, finisher));
    } else {
      const StoreFinisher finisher(context.output(0).data, DType::kF32, columns_);
      product_.Run(rows, right + scale_bytes(),
                   ScaledFinisher(row_scales, column_scales, finisher));
    }
  }

 private:
  size_t left_bytes() const {
    return AlignedSize(rows_ * sizeof(float)) + AlignedSize(rows_ * pitch_);
  }
  // Scales of whole panels, so that a block needs no special end.
  size_t scale_bytes() const {
    return AlignedSize(product_.panels() * kPanelColumns * sizeof(float));
  }
  size_t right_bytes() const { return scale_bytes() + product_.packed_bytes(); }

  void QuantizeRows(const TensorView& x, float* scales, int8_t* rows) const {
    constexpr int64_t kGrain = 1 << 14;
    ComputeLoop(rows_, kGrain / inner_ + 1, [&](int64_t begin, int64_t end) {
      const simd::Loops& loops = simd::BestLoops();
      thread_local std::vector<float> wide;
      wide.resize(inner_);
      for (int64_t row = begin; row < end; ++row) {
        const float* values = wide.data();
        if (x.type.dtype == DType::kBF16) {
          loops.to_f32(inner_, x.as<uint16_t>() + row * inner_, wide.data());
        } else {
          values = x.as<float>() + row * inner_;
        }
        int8_t* const to = rows + row * pitch_;
        scales[row] = loops.quantize_row(inner_, values, to);
        std::memset(to + inner_, 0, pitch_ - inner_);
      }
    });
  }

  // Panel by panel: its columns turned into rows and quantised, then packed.
  void PackWeights(const float* w, char* right) const {
    float* const scales = reinterpret_cast<float*>(right);
    std::memset(right, 0, scale_bytes());
    ComputeLoop(product_.panels(), 1, [&](int64_t begin, int64_t end) {
      thread_local std::vector<float> column;
      thread_local std::vector<int8_t> panel;
      column.resize(kPanelColumns * inner_);
      panel.assign(kPanelColumns * pitch_, 0);
      for (int64_t p = begin; p < end; ++p) {
        const int64_t first = p * kPanelColumns;
        const int64_t count = std::min(kPanelColumns, columns_ - first);
        for (int64_t k = 0; !turned_ && k < inner_; ++k) {
          for (int64_t j = 0; j < count; ++j) column[j * inner_ + k] = w[k * columns_ + first + j];
        }
        for (int64_t j = 0; j < count; ++j) {
          const float* values = turned_ ? w + (first + j) * inner_ : column.data() + j * inner_;
          scales[first + j] =
              simd::BestLoops().quantize_row(inner_, values, panel.data() + j * pitch_);
        }
        Int8Micro().pack_panels({panel.data(), {DType::kI8, 1, pitch_}, 0, count, pitch_, pitch_},
                                right + scale_bytes() + p * product_.panel_bytes());
      }
    });
  }

  const bool turned_;
  const int64_t rows_, columns_, inner_, pitch_;
  const Product product_;
  std::optional<pointwise::Program> program_;
  std::shared_ptr<graph::Pack> pack_;
};

}  // namespace

std::unique_ptr<graph::Kernel> CreateInt8Matmul(const KernelRequest& request) {
  return std::make_unique<Int8Kernel>(request);
}

}  // namespace lepton::kernels::gemm
