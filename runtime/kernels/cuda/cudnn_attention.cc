// Attention as cuDNN's graph API knows it: the operations of its definition, which its engines
// recognise and compute without the score matrix (flash attention, Dao et al. 2022).
// Source: cuDNN 9 documentation, "Graph API", "Supported graph patterns", "Fused attention fprop"
// and "bprop".
#include "runtime/kernels/cuda/cudnn_attention.cuh"

#include <limits>
#include <utility>

#include "runtime/tensor/buffer.h"

namespace lepton::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 16;

// Numbers of the tensors with memory; those of virtual ones follow.
enum Number : int64_t {
  kQ = 1,
  kK,
  kV,
  kY,
  kLogSum,
  kDy,
  kDq,
  kDk,
  kDv,
  kDots,
  kScale,
  kMinusInfinity,
  kOne,
  kVirtual
};

using Extents = std::vector<int64_t>;

// One graph under construction: [batch, heads, rows, columns] tensors.
class AttentionGraph {
 public:
  AttentionGraph(const CudnnTarget& target, const AttentionArguments& a) : a_(a), graph_(target) {}

  std::unique_ptr<CudnnPlan> Forward();
  std::unique_ptr<CudnnPlan> Gradient();
  const Status& failure() const { return graph_.failure(); }

 private:
  using Tensor = const CudnnDescriptor&;

  // Rows of heads in memory.
  Tensor Rows(int64_t number, int64_t heads, int64_t rows, int64_t pitch, bool turned = false) {
    Extents extents = {a_.batch, heads, rows, a_.size};
    Extents strides = {rows * pitch, a_.size, pitch, 1};
    if (turned) {
      std::swap(extents[2], extents[3]);
      std::swap(strides[2], strides[3]);
    }
    return graph_.Add({number, CUDNN_DATA_BFLOAT16, extents, strides, kAlignment});
  }
  Extents Scores() const { return {a_.batch, a_.heads, a_.queries, a_.keys}; }
  Extents PerRow() const { return {a_.batch, a_.heads, a_.queries, 1}; }
  static Extents Dense(const Extents& e) { return {e[1] * e[2] * e[3], e[2] * e[3], e[3], 1}; }
  Tensor Virtual(const Extents& extents, cudnnDataType_t type = CUDNN_DATA_FLOAT) {
    return Virtual(extents, Dense(extents), type);
  }
  Tensor Virtual(const Extents& extents, const Extents& strides, cudnnDataType_t type) {
    return graph_.Add({next_++, type, extents, strides, kAlignment, /*is_virtual=*/true});
  }
  Tensor Value(int64_t number) {
    return graph_.Add({number,
                       CUDNN_DATA_FLOAT,
                       {1, 1, 1, 1},
                       {1, 1, 1, 1},
                       sizeof(float),
                       false,
                       /*by_value=*/true});
  }
  Tensor LogSums() {
    return graph_.Add({kLogSum, CUDNN_DATA_FLOAT, PerRow(), Dense(PerRow()), kAlignment});
  }

  void Multiply(Tensor a, Tensor b, Tensor c) {
    CudnnDescriptor& part = graph_.AddPart(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    part.Set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
    part.Finalize();
    CudnnDescriptor& op = graph_.AddOperation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    op.Set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    op.Set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    op.Set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    op.Set(CUDNN_ATTR_OPERATION_MATMUL_DESC, part);
  }
  // y = mode(x, b, t), as many of them as there are.
  void Pointwise(cudnnPointwiseMode_t mode, Tensor x, const CudnnDescriptor* b,
                 const CudnnDescriptor* t, Tensor y, cudnnDataType_t type = CUDNN_DATA_FLOAT,
                 int64_t axis = -1) {
    CudnnDescriptor& part = graph_.AddPart(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    part.SetRaw(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    part.Set(CUDNN_ATTR_POINTWISE_MATH_PREC, type);
    if (axis >= 0) part.Set(CUDNN_ATTR_POINTWISE_AXIS, axis);
    part.Finalize();
    CudnnDescriptor& op = graph_.AddOperation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    op.Set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, part);
    op.Set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b != nullptr) op.Set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *b);
    if (t != nullptr) op.Set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, *t);
    op.Set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  }
  Tensor Combined(cudnnPointwiseMode_t mode, Tensor x, Tensor b, const Extents& extents) {
    Tensor y = Virtual(extents);
    Pointwise(mode, x, &b, nullptr, y);
    return y;
  }
  Tensor Mapped(cudnnPointwiseMode_t mode, Tensor x, const Extents& extents) {
    Tensor y = Virtual(extents);
    Pointwise(mode, x, nullptr, nullptr, y);
    return y;
  }
  void Reduce(cudnnReduceTensorOp_t how, Tensor x, Tensor y) {
    CudnnDescriptor& part = graph_.AddPart(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    part.SetRaw(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &how);
    part.Set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    part.Finalize();
    CudnnDescriptor& op = graph_.AddOperation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    op.Set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    op.Set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    op.Set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, part);
  }
  // A gradient of keys or values, summed over the heads that share them.
  void MultiplyForKeys(Tensor a, Tensor b, int64_t number) {
    Tensor result = Rows(number, a_.kv_heads, a_.keys, a_.kv_pitch);
    if (a_.heads == a_.kv_heads) return Multiply(a, b, result);
    const Extents extents = {a_.batch, a_.heads, a_.keys, a_.size};
    Tensor of_heads = Virtual(extents, CUDNN_DATA_BFLOAT16);
    Multiply(a, b, of_heads);
    Reduce(CUDNN_REDUCE_TENSOR_ADD, of_heads, result);
  }
  void Reshape(Tensor x, Tensor y) {
    CudnnDescriptor& op = graph_.AddOperation(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    op.Set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    op.Set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
  }

  // Scores where the query sees the key, else minus infinity.
  Tensor Masked(Tensor scores) {
    if (!a_.causal) return scores;
    Tensor row = Virtual(Scores(), CUDNN_DATA_INT32);
    Pointwise(CUDNN_POINTWISE_GEN_INDEX, scores, nullptr, nullptr, row, CUDNN_DATA_INT32, 2);
    Tensor column = Virtual(Scores(), CUDNN_DATA_INT32);
    Pointwise(CUDNN_POINTWISE_GEN_INDEX, scores, nullptr, nullptr, column, CUDNN_DATA_INT32, 3);
    Tensor sees = Virtual(Scores(), CUDNN_DATA_BOOLEAN);
    Pointwise(CUDNN_POINTWISE_CMP_GE, row, &column, nullptr, sees, CUDNN_DATA_BOOLEAN);
    Tensor hidden = Value(kMinusInfinity);
    Tensor masked = Virtual(Scores());
    Pointwise(CUDNN_POINTWISE_BINARY_SELECT, scores, &hidden, &sees, masked);
    return masked;
  }

  const AttentionArguments& a_;
  CudnnGraph graph_;
  int64_t next_ = kVirtual;
};

std::unique_ptr<CudnnPlan> AttentionGraph::Forward() {
  Tensor q = Rows(kQ, a_.heads, a_.queries, a_.q_pitch);
  Tensor k = Rows(kK, a_.kv_heads, a_.keys, a_.kv_pitch, /*turned=*/true);
  Tensor v = Rows(kV, a_.kv_heads, a_.keys, a_.kv_pitch);
  Tensor y = Rows(kY, a_.heads, a_.queries, a_.y_pitch);
  Tensor products = Virtual(Scores());
  Multiply(q, k, products);
  Tensor scaled = Combined(CUDNN_POINTWISE_MUL, products, Value(kScale), Scores());
  Tensor scores = Masked(scaled);
  Tensor top = Virtual(PerRow());
  Reduce(CUDNN_REDUCE_TENSOR_MAX, scores, top);
  Tensor below = Combined(CUDNN_POINTWISE_SUB, scores, top, Scores());
  Tensor exps = Mapped(CUDNN_POINTWISE_EXP, below, Scores());
  Tensor sums = Virtual(PerRow());
  Reduce(CUDNN_REDUCE_TENSOR_ADD, exps, sums);
  Tensor log = Mapped(CUDNN_POINTWISE_LOG, sums, PerRow());
  Tensor log_sums = LogSums();
  Pointwise(CUDNN_POINTWISE_ADD, top, &log, nullptr, log_sums);
  Tensor probabilities = Virtual(Scores(), CUDNN_DATA_BFLOAT16);
  Pointwise(CUDNN_POINTWISE_DIV, exps, &sums, nullptr, probabilities);
  Multiply(probabilities, v, y);
  return graph_.Plan({.may_compile = true});
}

std::unique_ptr<CudnnPlan> AttentionGraph::Gradient() {
  Tensor q = Rows(kQ, a_.heads, a_.queries, a_.q_pitch);
  Tensor k_turned = Rows(kK, a_.kv_heads, a_.keys, a_.kv_pitch, /*turned=*/true);
  Tensor v_turned = Rows(kV, a_.kv_heads, a_.keys, a_.kv_pitch, /*turned=*/true);
  Tensor y = Rows(kY, a_.heads, a_.queries, a_.y_pitch);
  Tensor dy = Rows(kDy, a_.heads, a_.queries, a_.y_pitch);
  Tensor log_sums = LogSums();
  const Extents rows = {a_.batch, a_.heads, a_.queries, a_.size};
  const Extents row_strides = {a_.heads * a_.queries * a_.size, a_.queries * a_.size,
                               a_.heads * a_.size, 1};
  const Extents turned = {a_.batch, a_.heads, a_.keys, a_.queries};
  const Extents turned_strides = {a_.heads * a_.queries * a_.keys, a_.queries * a_.keys, 1,
                                  a_.keys};
  // dy . y of each query
  Tensor dy_y = Virtual(rows, row_strides, CUDNN_DATA_FLOAT);
  Pointwise(CUDNN_POINTWISE_MUL, dy, &y, nullptr, dy_y);
  Tensor row_sums = Virtual(PerRow());
  Reduce(CUDNN_REDUCE_TENSOR_ADD, dy_y, row_sums);
  Tensor dots = graph_.Add({kDots, CUDNN_DATA_FLOAT, PerRow(), Dense(PerRow()), kAlignment});
  Tensor one = Value(kOne);
  Pointwise(CUDNN_POINTWISE_MUL, row_sums, &one, nullptr, dots);
  // probabilities, and dv
  Tensor products = Virtual(Scores());
  Multiply(q, k_turned, products);
  Tensor scale = Value(kScale);
  Tensor scaled = Combined(CUDNN_POINTWISE_MUL, products, scale, Scores());
  Tensor logs = Combined(CUDNN_POINTWISE_SUB, scaled, log_sums, Scores());
  Tensor probabilities = Mapped(CUDNN_POINTWISE_EXP, Masked(logs), Scores());
  Tensor p_turned = Virtual(turned, turned_strides, CUDNN_DATA_BFLOAT16);
  Reshape(probabilities, p_turned);
  MultiplyForKeys(p_turned, dy, kDv);
  // slopes of the scores, dk, and dq
  Tensor dp = Virtual(Scores());
  Multiply(dy, v_turned, dp);
  Tensor centred = Combined(CUDNN_POINTWISE_SUB, dp, dots, Scores());
  Tensor slopes = Combined(CUDNN_POINTWISE_MUL, centred, probabilities, Scores());
  Tensor scaled_slopes = Virtual(Scores());
  Pointwise(CUDNN_POINTWISE_MUL, slopes, &scale, nullptr, scaled_slopes);
  Tensor slopes_turned = Virtual(turned, turned_strides, CUDNN_DATA_BFLOAT16);
  Reshape(scaled_slopes, slopes_turned);
  MultiplyForKeys(slopes_turned, q, kDk);
  Tensor k = Virtual({a_.batch, a_.kv_heads, a_.keys, a_.size},
                     {a_.keys * a_.kv_pitch, a_.size, a_.kv_pitch, 1}, CUDNN_DATA_BFLOAT16);
  Reshape(k_turned, k);
  Multiply(scaled_slopes, k, Rows(kDq, a_.heads, a_.queries, a_.q_pitch));
  return graph_.Plan({.may_compile = true});
}

class CudnnAttention final : public LibraryAttention {
 public:
  CudnnAttention(const CudnnTarget& target, AttentionPass pass,
                 std::shared_ptr<const CudnnPlan> plan, const AttentionArguments& extents,
                 Status& failed)
      : target_(target),
        pass_(pass),
        plan_(std::move(plan)),
        scale_(extents.scale),
        dots_bytes_(pass == AttentionPass::kForward ? 0
                                                    : AlignedSize(extents.batch * extents.heads *
                                                                  extents.queries * sizeof(float))),
        failed_(failed) {}

  size_t workspace_bytes() const override { return dots_bytes_ + plan_->workspace_bytes(); }

  void Run(const AttentionArguments& a, void* workspace) override {
    std::vector<int64_t> numbers;
    std::vector<void*> memory;
    // `start`: where the heads begin in the rows, in elements.
    const auto add = [&](int64_t number, const void* data, int64_t start = 0) {
      numbers.push_back(number);
      memory.push_back(static_cast<char*>(const_cast<void*>(data)) + start * kElement);
    };
    add(kQ, a.q);
    add(kK, a.k, a.k_start);
    add(kV, a.v, a.v_start);
    add(kY, a.y);
    add(kLogSum, a.log_sum);
    add(kScale, &scale_);
    if (a.causal) add(kMinusInfinity, &minus_infinity_);
    if (pass_ == AttentionPass::kGradient) {
      add(kDy, a.dy);
      add(kDq, a.dq);
      add(kDk, a.dk, a.k_start);
      add(kDv, a.dv, a.v_start);
      add(kDots, workspace);
      add(kOne, &one_);
    }
    const cudnnStatus_t status =
        plan_->Run(numbers, memory, static_cast<char*>(workspace) + dots_bytes_);
    if (status == CUDNN_STATUS_SUCCESS || !failed_.ok()) return;
    failed_ = Internal("cuDNN attention: " + target_.cudnn.LastError(status));
  }

 private:
  static constexpr int64_t kElement = sizeof(uint16_t);
  const CudnnTarget target_;
  const AttentionPass pass_;
  const std::shared_ptr<const CudnnPlan> plan_;
  // Read by value.
  const float scale_, minus_infinity_ = -std::numeric_limits<float>::infinity(), one_ = 1;
  const size_t dots_bytes_;
  Status& failed_;
};

}  // namespace

std::unique_ptr<CudnnPlan> PlanAttention(const CudnnTarget& target, const AttentionArguments& a,
                                         AttentionPass pass, Status& failure) {
  AttentionGraph graph(target, a);
  auto plan = pass == AttentionPass::kForward ? graph.Forward() : graph.Gradient();
  failure = graph.failure();
  return plan;
}

std::unique_ptr<LibraryAttention> CudnnAttentions::Make(const AttentionArguments& a,
                                                        AttentionPass pass) {
  const int64_t work = 2 * a.batch * a.heads * a.queries * a.keys * a.size;
  if (!FitsLibrary(a) || work < least_work()) return nullptr;
  const auto [found, is_new] =
      plans_.try_emplace(Key{static_cast<int64_t>(pass), a.batch, a.heads, a.kv_heads, a.queries,
                             a.keys, a.size, a.q_pitch, a.kv_pitch, a.y_pitch, a.causal});
  if (is_new) {
    Status failure;
    found->second = PlanAttention(target_, a, pass, failure);
  }
  if (found->second == nullptr) return nullptr;
  return std::make_unique<CudnnAttention>(target_, pass, found->second, a, failed_);
}

}  // namespace lepton::kernels::cuda
