#include "runtime/kernels/cuda/cublaslt_library.cuh"

#include <string>

#include "runtime/kernels/cuda/library_loader.h"

namespace lepton::kernels::cuda {
namespace {

constexpr char kLibrary[] = "libcublasLt.so.13";

Status MissingFrom(const std::string& what) {
  return Unavailable(what + ": install cuBLAS of CUDA 13, or put its folder into LD_LIBRARY_PATH");
}

Result<const CublasLt*> LoadOnce() {
  void* const library = OpenLibrary(kLibrary, LEPTON_CUDA_LIBRARIES);
  if (library == nullptr) return MissingFrom(::dlerror());
  static CublasLt functions;
  LibraryLoader loader(library);
  loader.Find("cublasLtCreate", functions.Create);
  loader.Find("cublasLtDestroy", functions.Destroy);
  loader.Find("cublasLtGetStatusString", functions.GetStatusString);
  loader.Find("cublasLtMatmul", functions.Matmul);
  loader.Find("cublasLtMatmulAlgoGetHeuristic", functions.MatmulAlgoGetHeuristic);
  loader.Find("cublasLtMatmulDescCreate", functions.MatmulDescCreate);
  loader.Find("cublasLtMatmulDescDestroy", functions.MatmulDescDestroy);
  loader.Find("cublasLtMatmulDescSetAttribute", functions.MatmulDescSetAttribute);
  loader.Find("cublasLtMatmulPreferenceCreate", functions.MatmulPreferenceCreate);
  loader.Find("cublasLtMatmulPreferenceDestroy", functions.MatmulPreferenceDestroy);
  loader.Find("cublasLtMatmulPreferenceSetAttribute", functions.MatmulPreferenceSetAttribute);
  loader.Find("cublasLtMatrixLayoutCreate", functions.MatrixLayoutCreate);
  loader.Find("cublasLtMatrixLayoutDestroy", functions.MatrixLayoutDestroy);
  loader.Find("cublasLtMatrixLayoutSetAttribute", functions.MatrixLayoutSetAttribute);
  if (!loader.missing().empty()) {
    return MissingFrom(std::string(kLibrary) + " has no " + loader.missing());
  }
  return &functions;
}

}  // namespace

Result<const CublasLt*> CublasLt::Load() {
  static const Result<const CublasLt*> loaded = LoadOnce();
  return loaded;
}

}  // namespace lepton::kernels::cuda
