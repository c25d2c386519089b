#include "runtime/kernels/cpu/gemm/matmul_kernel.h"

#include <optional>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/gemm/gemm.h"
#include "runtime/kernels/cpu/gemm/int8_kernel.h"
#include "runtime/kernels/cpu/gemm/program_finisher.h"

namespace lepton::kernels::gemm {
namespace {

using graph::KernelContext;
using graph::KernelRequest;

// The matrices that the last two axes make.
int64_t Matrices(const Shape& shape) {
  return shape.rows() / shape[shape.rank() - 2];
}

struct Operands {
  explicit Operands(const KernelRequest& request)
      : transpose_a(request.attributes->Int("transpose_a") != 0),
        transpose_b(request.attributes->Int("transpose_b") != 0),
        batch(request.op == "batch_matmul" ? Matrices(request.outputs[0].shape) : 1),
        rows(request.outputs[0].shape.rows() / batch),
        columns(request.outputs[0].shape.back()),
        inner(transpose_a ? request.inputs[0].shape.rows() / batch
                          : request.inputs[0].shape.back()),
        dtype(request.inputs[0].dtype) {
    if (!request.frozen.empty()) frozen = request.frozen[1];
    if (batch > 1) frozen = {};
    turned = batch == 1 && !is_frozen() && request.followers.empty() && transpose_a &&
             !transpose_b && columns > rows;
  }

  Product MakeProduct() const {
    return turned ? Product(columns, rows, inner, dtype, {dtype, 1, columns}, {dtype, rows, 1})
                  : Product(rows, columns, inner, dtype, Left(), Right());
  }
  Source Left() const { return transpose_a ? Source{dtype, 1, rows} : Source{dtype, inner, 1}; }
  Source Right() const {
    const DType type = is_frozen() ? frozen.type.dtype : dtype;
    return transpose_b ? Source{type, 1, inner} : Source{type, columns, 1};
  }
  bool is_frozen() const { return frozen.value != graph::kNoValue; }
  std::string Layout() const { return PackLayout(dtype, transpose_b, inner, columns); }

  const bool transpose_a, transpose_b;
  const int64_t batch;                 // products of equal shape, one after the other
  const int64_t rows, columns, inner;  // of each
  const DType dtype;
  graph::FrozenInput frozen;  // the right side
  // A gradient of weights is computed as its transpose where its right side is the larger one: the
  // left side is packed where it is used, the right side whole and before. The bits are the same.
  bool turned = false;
};

class MatmulKernel final : public graph::Kernel {
 public:
  explicit MatmulKernel(const KernelRequest& request) : op_(request), product_(op_.MakeProduct()) {
    if (!request.followers.empty()) {
      program_.emplace(request.followers, request.node->outputs[0], request.types, request.kept);
    }
    if (!op_.is_frozen()) return;
    pack_ = request.packs == nullptr
                ? std::make_shared<graph::Pack>(graph::Pack{Buffer(product_.packed_bytes())})
                : request.packs->Get(op_.frozen.value, op_.Layout(), product_.packed_bytes());
  }

  size_t workspace_bytes() const override { return RightBytes() + product_.left_bytes(); }

  graph::Pack* pack() const override { return pack_.get(); }

  void Prepare(const KernelContext& context) override {
    product_.PackRight(context.input(1).data, pack_->data.data());
  }

  void Run(const KernelContext& context) override {
    const void* a = context.input(op_.turned ? 1 : 0).data;
    const void* b = context.input(op_.turned ? 0 : 1).data;
    const void* packed = pack_ == nullptr ? context.workspace() : pack_->data.data();
    if (pack_ == nullptr) product_.PackRight(b, context.workspace());
    void* left = product_.left_bytes() == 0
                     ? nullptr
                     : static_cast<char*>(context.workspace()) + RightBytes();
    if (program_) {
      product_.Run(a, packed, ProgramFinisher(*program_, context, op_.columns), left);
    } else if (op_.turned) {
      product_.Run(a, packed,
                   TurnedStoreFinisher(context.output(0).as<float>(), op_.columns, op_.dtype),
                   left);
    } else {
      product_.Run(a, packed, StoreFinisher(context.output(0).data, DType::kF32, op_.columns),
                   left);
    }
  }

 private:
  size_t RightBytes() const {
    constexpr size_t kLine = 64;
    return op_.is_frozen() ? 0 : (product_.packed_bytes() + kLine - 1) / kLine * kLine;
  }

  const Operands op_;
  const Product product_;
  std::optional<pointwise::Program> program_;
  std::shared_ptr<graph::Pack> pack_;
};

// Many small products: one a thread, packed in memory of the thread.
class BatchKernel final : public graph::Kernel {
 public:
  explicit BatchKernel(const KernelRequest& request)
      : op_(request),
        product_(op_.rows, op_.columns, op_.inner, op_.dtype, op_.Left(), op_.Right()) {}

  void Run(const KernelContext& context) override {
    const char* a = context.input(0).as<char>();
    const char* b = context.input(1).as<char>();
    float* c = context.output(0).as<float>();
    const size_t element = DTypeSize(op_.dtype);
    const int64_t work = op_.rows * op_.columns * op_.inner;
    constexpr int64_t kWorkForThreads = 1 << 18;
    ComputeLoop(op_.batch, kWorkForThreads / std::max<int64_t>(1, work) + 1,
                [&](int64_t begin, int64_t end) {
                  thread_local Buffer packed;
                  if (packed.size() < product_.packed_bytes())
                    packed = Buffer(product_.packed_bytes());
                  for (int64_t i = begin; i < end; ++i) {
                    const char* right = b + i * op_.inner * op_.columns * element;
                    product_.PackPanels(right, packed.data(), 0, product_.panels());
                    product_.RunAlone(
                        a + i * op_.rows * op_.inner * element, packed.data(),
                        StoreFinisher(c + i * op_.rows * op_.columns, DType::kF32, op_.columns));
                  }
                });
  }

 private:
  const Operands op_;
  const Product product_;
};

bool CanMultiply(const KernelRequest& request) {
  if (request.outputs[0].shape.elements() == 0 || request.inputs[0].shape.elements() == 0) {
    return false;
  }
  return request.followers.empty() || pointwise::Program::CanRun(request.followers, request.types);
}

bool CanMultiplyBatch(const KernelRequest& request) {
  return request.outputs[0].shape.elements() > 0 && request.inputs[0].shape.elements() > 0;
}

std::unique_ptr<graph::Kernel> CreateMatmul(const KernelRequest& request) {
  return std::make_unique<MatmulKernel>(request);
}

std::unique_ptr<graph::Kernel> CreateBatch(const KernelRequest& request) {
  return std::make_unique<BatchKernel>(request);
}

}  // namespace

std::string PackLayout(DType dtype, bool transpose_b, int64_t inner, int64_t columns) {
  return std::string("gemm ") + std::string(DTypeName(dtype)) + (transpose_b ? " turned " : " ") +
         std::to_string(inner) + " " + std::to_string(columns);
}

std::vector<graph::KernelEntry> MatmulKernels() {
  std::vector<graph::KernelEntry> entries;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    graph::KernelEntry entry{"matmul", dtype, "gemm", &CanMultiply, &CreateMatmul};
    entry.fuses = true;
    entry.packs = 1;
    entries.push_back(entry);
    entries.push_back({"batch_matmul", dtype, "gemm", &CanMultiplyBatch, &CreateBatch});
    entry = {"matmul_int8", dtype, "gemm", &CanMultiply, &CreateInt8Matmul};
    entry.fuses = true;
    entry.packs = 1;
    entries.push_back(entry);
  }
  return entries;
}

}  // namespace lepton::kernels::gemm
