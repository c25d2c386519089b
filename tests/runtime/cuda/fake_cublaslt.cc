// Built as libcublasLt.so.13: a cuBLASLt that needs no GPU and refuses what the vendor's may
// refuse. An algorithm here is the alignments that it was promised, which Matmul checks.
#include "tests/runtime/cuda/fake_cublaslt.h"

#include <cublasLt.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

namespace {

using lepton::cuda_test::FakeCublasLt;

FakeCublasLt state;

// A descriptor of any kind: its attributes by number.
struct Attributes {
  std::map<int, std::vector<unsigned char>> values;

  cublasStatus_t Set(int name, const void* value, size_t bytes) {
    const auto* const first = static_cast<const unsigned char*>(value);
    values[name].assign(first, first + bytes);
    return CUBLAS_STATUS_SUCCESS;
  }
  template <typename T>
  T Get(int name, T unset) const {
    const auto found = values.find(name);
    if (found != values.end()) std::memcpy(&unset, found->second.data(), sizeof(T));
    return unset;
  }
};

template <typename Handle>
cublasStatus_t Make(Handle* handle) {
  *handle = reinterpret_cast<Handle>(new Attributes);
  return CUBLAS_STATUS_SUCCESS;
}
template <typename Handle>
cublasStatus_t Drop(Handle handle) {
  delete reinterpret_cast<Attributes*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
Attributes& Of(const void* handle) {
  return *static_cast<Attributes*>(const_cast<void*>(handle));
}

// As the header says: of a bias the alignment follows from its address, and none has the best.
uint32_t AlignmentOf(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  return address == 0 ? 256 : static_cast<uint32_t>(std::min<uintptr_t>(address & -address, 256));
}

bool HasBias(const Attributes& operation) {
  return operation.Get<cublasLtEpilogue_t>(CUBLASLT_MATMUL_DESC_EPILOGUE,
                                           CUBLASLT_EPILOGUE_DEFAULT) == CUBLASLT_EPILOGUE_BIAS;
}
const void* BiasOf(const Attributes& operation) {
  return operation.Get<const void*>(CUBLASLT_MATMUL_DESC_BIAS_POINTER, nullptr);
}

}  // namespace

extern "C" {

FakeCublasLt* lepton_fake_cublaslt() {
  return &state;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  return Make(handle);
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return Drop(handle);
}
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_INVALID_VALUE ? "operands are not aligned as promised" : "refused";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* handle, cublasComputeType_t,
                                        cudaDataType_t) {
  return Make(handle);
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t handle) {
  return Drop(handle);
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t handle,
                                              cublasLtMatmulDescAttributes_t name,
                                              const void* value, size_t bytes) {
  return Of(handle).Set(name, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* handle) {
  return Make(handle);
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t handle) {
  return Drop(handle);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t handle,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void* value, size_t bytes) {
  return Of(handle).Set(name, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* handle, cudaDataType, uint64_t,
                                          uint64_t, int64_t) {
  return Make(handle);
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t handle) {
  return Drop(handle);
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t handle,
                                                cublasLtMatrixLayoutAttribute_t name,
                                                const void* value, size_t bytes) {
  return Of(handle).Set(name, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t preference, int,
                                              cublasLtMatmulHeuristicResult_t* found, int* count) {
  const Attributes& wished = Of(preference);
  uint32_t alignment = 256;
  for (const auto operand :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    alignment = std::min(alignment, wished.Get<uint32_t>(operand, 256));
  }
  *count = 0;
  const bool bias = HasBias(Of(operation));
  if (alignment < state.least_alignment || (bias && state.refuses_bias)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  *count = 1;
  found->algo = {};
  found->algo.data[0] = alignment;
  found->algo.data[1] = bias ? AlignmentOf(BiasOf(Of(operation))) : 1;
  found->algo.data[2] = wished.Get<uint32_t>(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                             CUBLASLT_REDUCTION_SCHEME_MASK);
  found->workspaceSize = state.workspace_bytes;
  found->state = state.bad_state ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void*,
                              const void* a, cublasLtMatrixLayout_t, const void* b,
                              cublasLtMatrixLayout_t, const void*, const void* c,
                              cublasLtMatrixLayout_t, void* d, cublasLtMatrixLayout_t,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t bytes,
                              cudaStream_t) {
  if (bytes < state.workspace_bytes || AlignmentOf(workspace) < 256) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  state.last_workspace = workspace;
  for (const void* operand : {a, b, c, static_cast<const void*>(d)}) {
    if (AlignmentOf(operand) < algorithm->data[0]) return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (HasBias(Of(operation)) && AlignmentOf(BiasOf(Of(operation))) < algorithm->data[1]) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  ++state.products;
  state.last_alignment = static_cast<uint32_t>(algorithm->data[0]);
  state.last_sums = static_cast<uint32_t>(algorithm->data[2]);
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
