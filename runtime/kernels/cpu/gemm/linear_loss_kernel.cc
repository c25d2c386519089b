#include "runtime/kernels/cpu/gemm/linear_loss_kernel.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "runtime/graph/passes/loss_pieces.h"
#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/gemm/gemm.h"
#include "runtime/kernels/cpu/gemm/matmul_kernel.h"
#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/tensor/buffer.h"

namespace lepton::kernels::gemm {
namespace {

using graph::KernelContext;
using graph::KernelRequest;

constexpr int64_t kLine = 64;
constexpr int64_t kWideBytes = 4, kNarrowBytes = 2;

int64_t CeilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

int64_t RoundUp(int64_t value, int64_t step) {
  return CeilDiv(value, step) * step;
}

// Of a piece, where there are `count` in all and `most` fit: pieces of about one size.
int64_t PieceOf(int64_t count, int64_t most, int64_t step) {
  most = std::max(step, most / step * step);
  return std::min(count, RoundUp(CeilDiv(count, CeilDiv(count, most)), step));
}

// A row's numbers, of which one thread at a time makes others.
float* RowScratch(int64_t floats) {
  thread_local Buffer scratch;
  const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
  if (scratch.size() < bytes) scratch = Buffer(bytes);
  return scratch.as<float>();
}

// body(row) for each.
void ForRows(int64_t rows, int64_t columns, const auto& body) {
  constexpr int64_t kGrain = 1 << 15;  // elements for which another thread is worth waking
  ComputeLoop(rows, std::max<int64_t>(1, kGrain / columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

struct Head {
  explicit Head(const KernelRequest& request)
      : turned(request.attributes->Int("transpose_b") != 0),
        rows(request.inputs[0].shape.rows()),
        inner(request.inputs[0].shape.back()),
        classes(request.inputs[1].shape[turned ? 0 : 1]),
        dtype(request.inputs[0].dtype),
        weight_dtype(request.inputs[1].dtype),
        piece_bytes(request.attributes->Int("piece_bytes", graph::kMostLogitsBytes)) {
    if (!request.frozen.empty()) frozen = request.frozen[1];
    if (is_frozen()) weight_dtype = frozen.type.dtype;
  }
  bool is_frozen() const { return frozen.value != graph::kNoValue; }
  Source Hidden() const { return {dtype, inner, 1}; }
  // As [inner, classes], from any class on.
  Source Weight() const {
    return turned ? Source{weight_dtype, 1, inner} : Source{weight_dtype, classes, 1};
  }
  Source TurnedWeight() const {
    return turned ? Source{weight_dtype, inner, 1} : Source{weight_dtype, 1, classes};
  }
  const char* WeightOf(const TensorView& weight, int64_t first_class) const {
    const int64_t element = turned ? first_class * inner : first_class;
    return weight.as<char>() + element * static_cast<int64_t>(DTypeSize(weight_dtype));
  }

  const bool turned;
  const int64_t rows, inner, classes;
  const DType dtype;  // of the products
  DType weight_dtype;
  const int64_t piece_bytes;
  graph::FrozenInput frozen;  // the weight
};

// Loss, top and sum of each row, from all its logits.
class LinearLossKernel final : public graph::Kernel {
 public:
  explicit LinearLossKernel(const KernelRequest& request)
      : head_(request),
        pitch_(RoundUp(head_.classes, kPanelColumns)),
        piece_rows_(PieceOf(head_.rows, head_.piece_bytes / (pitch_ * kWideBytes), 1)) {
    if (!head_.is_frozen()) return;
    const size_t bytes = ProductOf(piece_rows_).packed_bytes();
    pack_ = request.packs == nullptr
                ? std::make_shared<graph::Pack>(graph::Pack{Buffer(bytes)})
                : request.packs->Get(
                      head_.frozen.value,
                      PackLayout(head_.dtype, head_.turned, head_.inner, head_.classes), bytes);
  }

  size_t workspace_bytes() const override {
    const size_t packed = pack_ == nullptr ? ProductOf(piece_rows_).packed_bytes() : 0;
    return LogitsBytes() + packed;
  }
  graph::Pack* pack() const override { return pack_.get(); }
  void Prepare(const KernelContext& context) override {
    ProductOf(piece_rows_).PackRight(context.input(1).data, pack_->data.data());
  }

  void Run(const KernelContext& context) override {
    const simd::Loops& loops = simd::BestLoops();
    auto* const logits = static_cast<float*>(context.workspace());
    void* packed = pack_ == nullptr ? static_cast<char*>(context.workspace()) + LogitsBytes()
                                    : pack_->data.data();
    if (pack_ == nullptr) ProductOf(piece_rows_).PackRight(context.input(1).data, packed);
    const auto row_bytes = head_.inner * static_cast<int64_t>(DTypeSize(head_.dtype));
    for (int64_t first = 0; first < head_.rows; first += piece_rows_) {
      const int64_t rows = std::min(piece_rows_, head_.rows - first);
      ProductOf(rows).Run(context.input(0).as<char>() + first * row_bytes, packed,
                          StoreFinisher(logits, DType::kF32, pitch_));
      ForRows(rows, head_.classes, [&](int64_t row) {
        const int64_t at = first + row;
        const int32_t label = context.input(2).as<int32_t>()[at];
        float loss = 0, top = 0, sum = 1;
        if (label >= 0) {
          const float* z = logits + row * pitch_;
          top = loops.score_row_top({0, head_.classes, 1, kPanelColumns}, z, z[0]);
          float* const powers = RowScratch(head_.classes);
          loops.exp_minus(head_.classes, top, z, powers);
          loops.row_sum(1, head_.classes, 1, powers, &sum);
          loss = std::log(sum) - (z[label] - top);
        }
        context.output(0).as<float>()[at] = loss;
        context.output(1).as<float>()[at] = top;
        context.output(2).as<float>()[at] = sum;
      });
    }
  }

 private:
  Product ProductOf(int64_t rows) const {
    return {rows, head_.classes, head_.inner, head_.dtype, head_.Hidden(), head_.Weight()};
  }
  size_t LogitsBytes() const {
    return static_cast<size_t>(RoundUp(piece_rows_ * pitch_ * kWideBytes, kLine));
  }

  const Head head_;
  const int64_t pitch_, piece_rows_;
  std::shared_ptr<graph::Pack> pack_;
};

// Adds blocks to what is there, or stores them.
class SumFinisher final : public Finisher {
 public:
  SumFinisher(float* c, int64_t pitch, bool first)
      : c_(c), pitch_(pitch), first_(first), store_(c, DType::kF32, pitch) {}
  void Expect(int64_t first_row, int64_t rows, int64_t first_column,
              int64_t columns) const override {
    store_.Expect(first_row, rows, first_column, columns);
  }
  void Finish(int64_t first_row, int64_t rows, int64_t first_column, int64_t columns,
              float* block) const override {
    if (!first_) {
      for (int64_t row = 0; row < rows; ++row) {
        const float* before = c_ + (first_row + row) * pitch_ + first_column;
        for (int64_t i = 0; i < columns; ++i) block[row * kPanelColumns + i] += before[i];
      }
    }
    store_.Finish(first_row, rows, first_column, columns, block);
  }

 private:
  const float* const c_;
  const int64_t pitch_;
  const bool first_;
  const StoreFinisher store_;
};

class LinearLossGradKernel final : public graph::Kernel {
 public:
  explicit LinearLossGradKernel(const KernelRequest& request)
      : head_(request),
        narrow_(head_.dtype == DType::kBF16),
        pitch_(RoundUp(
            PieceOf(head_.classes,
                    head_.piece_bytes / (head_.rows * (kWideBytes + (narrow_ ? kNarrowBytes : 0))),
                    kPanelColumns),
            kPanelColumns)) {}

  size_t workspace_bytes() const override { return Layout().bytes; }

  void Run(const KernelContext& context) override {
    const Places at = Layout();
    auto* const work = static_cast<char*>(context.workspace());
    const void* hidden = context.input(0).data;
    OfWeight(pitch_).PackRight(hidden, work + at.hidden);
    for (int64_t first = 0; first < head_.classes; first += pitch_) {
      const int64_t classes = std::min(pitch_, head_.classes - first);
      const char* weight = head_.WeightOf(context.input(1), first);
      const Product logits = Logits(classes), of_hidden = OfHidden(classes);
      auto* const z = reinterpret_cast<float*>(work);
      logits.PackRight(weight, work + at.weight);
      logits.Run(hidden, work + at.weight, StoreFinisher(z, DType::kF32, pitch_));
      ForRows(head_.rows, classes, [&](int64_t row) {
        SlopesOf(context, row, first, classes, z + row * pitch_,
                 reinterpret_cast<uint16_t*>(work + at.narrow) + row * pitch_);
      });
      const void* slopes = work + (narrow_ ? at.narrow : 0);
      of_hidden.PackRight(weight, work + at.weight);
      of_hidden.Run(slopes, work + at.weight,
                    SumFinisher(context.output(0).as<float>(), head_.inner, first == 0));
      float* const dweight = context.output(1).as<float>();
      if (head_.turned) {
        OfWeight(classes).Run(
            slopes, work + at.hidden,
            StoreFinisher(dweight + first * head_.inner, DType::kF32, head_.inner));
      } else {
        OfWeight(classes).Run(slopes, work + at.hidden,
                              TurnedStoreFinisher(dweight + first, head_.classes, head_.dtype));
      }
    }
  }

 private:
  // Where what is in the workspace: a piece's logits, which become their gradient, first.
  struct Places {
    size_t narrow;  // that gradient, rounded
    size_t weight;  // a piece of it, packed for one product, then for another
    size_t hidden;  // packed
    size_t bytes;
  };
  Places Layout() const {
    const auto lines = [](size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; };
    const auto numbers = static_cast<size_t>(head_.rows * pitch_);
    Places at{};
    at.narrow = lines(numbers * kWideBytes);
    at.weight = at.narrow + (narrow_ ? lines(numbers * kNarrowBytes) : 0);
    at.hidden =
        at.weight + lines(std::max(Logits(pitch_).packed_bytes(), OfHidden(pitch_).packed_bytes()));
    at.bytes = at.hidden + OfWeight(pitch_).packed_bytes();
    return at;
  }

  Product Logits(int64_t classes) const {
    return {head_.rows, classes, head_.inner, head_.dtype, head_.Hidden(), head_.Weight()};
  }
  Product OfHidden(int64_t classes) const {
    return {head_.rows,          head_.inner, classes, head_.dtype, {head_.dtype, pitch_, 1},
            head_.TurnedWeight()};
  }
  // Of the weight [classes, inner].
  Product OfWeight(int64_t classes) const {
    return {classes,       head_.inner, head_.rows, head_.dtype, {head_.dtype, 1, pitch_},
            head_.Hidden()};
  }

  // From a row's logits of [first, first + classes), in place; rounded where products are.
  void SlopesOf(const KernelContext& context, int64_t row, int64_t first, int64_t classes, float* z,
                uint16_t* narrow) const {
    const simd::Loops& loops = simd::BestLoops();
    const int32_t label = context.input(2).as<int32_t>()[row];
    if (label < 0) {
      std::fill_n(z, classes, 0.0f);
    } else {
      const float slope = context.input(5).as<float>()[row];
      float* const powers = RowScratch(classes);
      loops.exp_minus(classes, context.input(3).as<float>()[row], z, powers);
      loops.scale(classes, slope / context.input(4).as<float>()[row], powers, z);
      if (label >= first && label < first + classes) z[label - first] -= slope;
    }
    if (narrow_) loops.to_bf16(classes, z, narrow);
  }

  const Head head_;
  const bool narrow_;
  const int64_t pitch_;  // classes of a piece, a multiple of a panel's
};

bool CanRun(const KernelRequest& request) {
  return request.inputs[0].shape.elements() > 0 && request.inputs[1].shape.elements() > 0;
}

template <typename Kernel>
std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
  return std::make_unique<Kernel>(request);
}

}  // namespace

std::vector<graph::KernelEntry> LinearLossKernels() {
  std::vector<graph::KernelEntry> entries;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    graph::KernelEntry entry{"linear_cross_entropy", dtype, "gemm", &CanRun,
                             &Create<LinearLossKernel>};
    entry.packs = 1;
    entries.push_back(entry);
    entries.push_back(
        {"linear_cross_entropy_grad", dtype, "gemm", &CanRun, &Create<LinearLossGradKernel>});
  }
  return entries;
}

}  // namespace lepton::kernels::gemm
