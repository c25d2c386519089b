#include "runtime/kernels/cuda/cublaslt_products.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "runtime/base/logging.h"
#include "runtime/kernels/cuda/cublaslt_library.cuh"

namespace lepton::kernels::cuda {
namespace {

constexpr uint32_t kAlignment = 16;                   // bytes: of the widest loads
constexpr size_t kWorkspaceAlignment = 256;           // bytes: cublasLtMatmul's documentation
constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what Hopper's kernels want at most

// One of cuBLASLt's descriptors, destroyed with its owner.
template <typename Handle>
class Owned {
 public:
  explicit Owned(cublasStatus_t (*destroy)(Handle)) : destroy_(destroy) {}
  ~Owned() {
    if (handle_ != nullptr) destroy_(handle_);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  Handle* address() { return &handle_; }
  operator Handle() const { return handle_; }  // NOLINT: passes as the handle itself

 private:
  cublasStatus_t (*destroy_)(Handle);
  Handle handle_ = nullptr;
};
using Layout = Owned<cublasLtMatrixLayout_t>;

bool Ok(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS;
}

// cuBLASLt counts columns first, so a row-major y = a b is computed as y^T = b^T a^T: its A is our
// b, its B our a, and its rows are our columns, along which its bias runs.
class CublasLtProduct final : public Product {
 public:
  CublasLtProduct(const ProductShape& shape, const CublasLt& lt, cublasLtHandle_t handle,
                  Stream stream, Status& failed)
      : s_(shape),
        lt_(lt),
        failed_(failed),
        handle_(handle),
        stream_(static_cast<cudaStream_t>(stream.handle)),
        operation_(lt.MatmulDescDestroy),
        a_(lt.MatrixLayoutDestroy),
        b_(lt.MatrixLayoutDestroy),
        y_(lt.MatrixLayoutDestroy) {}

  // False: no algorithm computes it so. What is folded into a product must be computed wherever it
  // lies, or is computed apart; for a plain product there is no other way.
  bool Plan() {
    if (!Ok(lt_.MatmulDescCreate(operation_.address(), CUBLAS_COMPUTE_32F, CUDA_R_32F)) ||
        !DescribeOperation() || !DescribeLayouts() || !FindAlgorithm(kAlignment, aligned_)) {
      return false;
    }
    const bool narrow = s_.bf16 || s_.bf16_result;
    has_unaligned_ = FindAlgorithm(narrow ? sizeof(uint16_t) : sizeof(float), unaligned_);
    return has_unaligned_ || !(s_.bias || s_.residual || s_.bf16_result);
  }

  // With room to begin where the library wants it to: in an arena it may lie closer.
  size_t workspace_bytes() const override {
    return workspace_ == 0 ? 0 : workspace_ + kWorkspaceAlignment;
  }

  void Run(const ProductOperands& o) override {
    const bool aligned =
        Aligned(o.a) && Aligned(o.b) && Aligned(o.y) && Aligned(o.bias) && Aligned(o.residual);
    if (!aligned && !has_unaligned_) {
      if (failed_.ok()) failed_ = Internal("cuBLASLt: no product of memory that is not aligned");
      return;
    }
    const cublasLtMatmulAlgo_t& algorithm = aligned ? aligned_ : unaligned_;
    if (s_.bias) Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, o.bias);
    const float alpha = 1;
    const float beta = s_.residual ? 1 : 0;
    const cublasStatus_t status = lt_.Matmul(handle_, operation_, &alpha, o.b, b_, o.a, a_, &beta,
                                             s_.residual ? o.residual : o.y, y_, o.y, y_,
                                             &algorithm, AlignedWorkspace(o), workspace_, stream_);
    if (Ok(status) || !failed_.ok()) return;
    failed_ = Internal(std::string("cublasLtMatmul: ") + lt_.GetStatusString(status));
  }

 private:
  template <typename T>
  bool Set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    return Ok(lt_.MatmulDescSetAttribute(operation_, attribute, &value, sizeof(value)));
  }

  bool DescribeOperation() {
    const cublasOperation_t of_b = s_.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t of_a = s_.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue =
        s_.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    const cudaDataType_t bias = s_.bf16_result ? CUDA_R_16BF : CUDA_R_32F;
    return Set(CUBLASLT_MATMUL_DESC_TRANSA, of_b) && Set(CUBLASLT_MATMUL_DESC_TRANSB, of_a) &&
           Set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue) &&
           (!s_.bias || Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias));
  }

  bool DescribeLayouts() {
    const cudaDataType_t operands = s_.bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const cudaDataType_t result = s_.bf16_result ? CUDA_R_16BF : CUDA_R_32F;
    // Rows and columns as they are stored.
    const auto [b_rows, b_columns] = s_.transpose_b ? std::pair(s_.k, s_.n) : std::pair(s_.n, s_.k);
    const auto [a_rows, a_columns] = s_.transpose_a ? std::pair(s_.m, s_.k) : std::pair(s_.k, s_.m);
    return Describe(b_, operands, b_rows, b_columns) &&
           Describe(a_, operands, a_rows, a_columns, s_.shared_a) &&
           Describe(y_, result, s_.n, s_.m);
  }

  // A shared matrix is the same one for the whole batch.
  bool Describe(Layout& layout, cudaDataType_t type, int64_t rows, int64_t columns,
                bool shared = false) {
    if (!Ok(lt_.MatrixLayoutCreate(layout.address(), type, rows, columns, rows))) return false;
    if (s_.batch == 1) return true;
    const auto count = static_cast<int32_t>(s_.batch);
    const int64_t stride = shared ? 0 : rows * columns;
    return Ok(lt_.MatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                           sizeof(count))) &&
           Ok(lt_.MatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                           &stride, sizeof(stride)));
  }

  // The best for operands that are aligned to so many bytes.
  bool FindAlgorithm(uint32_t alignment, cublasLtMatmulAlgo_t& algorithm) {
    Owned<cublasLtMatmulPreference_t> preference(lt_.MatmulPreferenceDestroy);
    if (!Ok(lt_.MatmulPreferenceCreate(preference.address()))) return false;
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      return Ok(lt_.MatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)));
    };
    const uint64_t bytes = kWorkspaceBytes;
    if (!set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes)) return false;
    // By itself the library may add up parts that it has rounded to the result's type.
    const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    if (s_.bf16_result && !set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, sums)) return false;
    for (const auto operand :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      if (!set(operand, alignment)) return false;
    }
    // Of a bias the alignment is read off its address, which is not followed; none passes for the
    // best (cublasLt.h, CUBLASLT_MATMUL_DESC_BIAS_POINTER).
    const uint32_t bias_element = s_.bf16_result ? sizeof(uint16_t) : sizeof(float);
    const auto bias = reinterpret_cast<void*>(uintptr_t{std::max(alignment, bias_element)});
    if (s_.bias && !Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)) return false;
    cublasLtMatmulHeuristicResult_t found = {};
    int count = 0;
    if (!Ok(lt_.MatmulAlgoGetHeuristic(handle_, operation_, b_, a_, y_, y_, preference, 1, &found,
                                       &count)) ||
        count == 0 || !Ok(found.state)) {
      return false;
    }
    algorithm = found.algo;
    workspace_ = std::max(workspace_, found.workspaceSize);
    return true;
  }

  void* AlignedWorkspace(const ProductOperands& o) const {
    if (workspace_ == 0) return nullptr;
    const auto place = reinterpret_cast<uintptr_t>(o.workspace);
    return reinterpret_cast<void*>((place + kWorkspaceAlignment - 1) / kWorkspaceAlignment *
                                   kWorkspaceAlignment);
  }

  // What lies in a plan's arena is; parameters lie anywhere in their flat buffer.
  static bool Aligned(const void* data) {
    return reinterpret_cast<uintptr_t>(data) % kAlignment == 0;
  }

  const ProductShape s_;
  const CublasLt& lt_;
  Status& failed_;
  cublasLtHandle_t handle_;
  cudaStream_t stream_;
  Owned<cublasLtMatmulDesc_t> operation_;
  Layout a_, b_, y_;
  cublasLtMatmulAlgo_t aligned_ = {}, unaligned_ = {};
  bool has_unaligned_ = false;
  size_t workspace_ = 0;
};

class CublasLtProducts final : public Products {
 public:
  CublasLtProducts(const CublasLt& lt, cublasLtHandle_t handle, Stream stream, Status& failed)
      : lt_(lt), handle_(handle), stream_(stream), failed_(failed) {}
  ~CublasLtProducts() override { lt_.Destroy(handle_); }

  std::unique_ptr<Product> Make(const ProductShape& shape) override {
    auto product = std::make_unique<CublasLtProduct>(shape, lt_, handle_, stream_, failed_);
    if (!product->Plan()) return nullptr;
    return product;
  }

 private:
  const CublasLt& lt_;
  cublasLtHandle_t handle_;
  Stream stream_;
  Status& failed_;
};

}  // namespace

Result<std::unique_ptr<Products>> MakeCublasLtProducts(Stream stream, Status& failed) {
  LEPTON_ASSIGN_OR_RETURN(const CublasLt* const lt, CublasLt::Load());
  cublasLtHandle_t handle = nullptr;
  const cublasStatus_t status = lt->Create(&handle);
  if (!Ok(status)) return Internal(std::string("cuBLASLt: ") + lt->GetStatusString(status));
  return std::unique_ptr<Products>(std::make_unique<CublasLtProducts>(*lt, handle, stream, failed));
}

}  // namespace lepton::kernels::cuda
