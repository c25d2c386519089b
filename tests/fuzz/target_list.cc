#include <unistd.h>

#include <algorithm>
#include <string>

#include "tests/fuzz/fuzz_target.h"

namespace lepton::fuzz {
namespace {

constexpr FuzzTarget kTargets[] = {
    {"onnx_model", FuzzOnnxModel, 1 << 16},
    {"onnx_parts", FuzzOnnxParts, 1 << 16},
    {"onnx_tensor", FuzzOnnxTensor},
    {"model_archive", FuzzModelArchive},
    {"model_folder", FuzzModelFolder},
    {"safetensors", FuzzSafetensors},
    {"tokenizer", FuzzTokenizer},
    {"chat_template", FuzzChatTemplate},
    {"job_spec", FuzzJobSpec},
    {"table", FuzzTable},
    {"manifest", FuzzManifest},
    {"wire_frames", FuzzWireFrames},
    {"http_target", FuzzHttpTarget},
    {"image", FuzzImage},
    {"dataset_import", FuzzDatasetImport},
    {"image_index", FuzzImageIndex},
    {"tuning_table", FuzzTuningTable},
    {"inference_request", FuzzInferenceRequest},
    {"checkpoint", FuzzCheckpoint},
    {"chat", FuzzChat},
};

}  // namespace

const std::filesystem::path& ScratchFolder() {
  struct Folder {
    std::filesystem::path path = std::filesystem::exists("/dev/shm")
                                     ? std::filesystem::path("/dev/shm")
                                     : std::filesystem::temp_directory_path();
    Folder() {
      path /= "lepton-fuzz-" + std::to_string(getpid());
      std::filesystem::create_directories(path);
    }
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  };
  static const Folder folder;
  return folder.path;
}

std::span<const FuzzTarget> FuzzTargets() {
  return kTargets;
}

const FuzzTarget* FindFuzzTarget(std::string_view name) {
  const auto found = std::find_if(std::begin(kTargets), std::end(kTargets),
                                  [&](const FuzzTarget& target) { return target.name == name; });
  return found == std::end(kTargets) ? nullptr : found;
}

}  // namespace lepton::fuzz
