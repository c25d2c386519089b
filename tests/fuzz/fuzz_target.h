// One parser fed with any bytes: it may refuse them, but must not crash, hang or take memory
// without bound. A target returns nothing; what is wrong ends the process (sanitizers, CHECK,
// abort). Threads: one caller.
#pragma once

#include <filesystem>
#include <span>
#include <string_view>

namespace lepton::fuzz {

struct FuzzTarget {
  std::string_view name;  // of its folders under seeds/ and regressions/
  void (*run)(std::string_view bytes);
  size_t max_bytes = 1 << 14;  // of an input
};

// Of this process, in memory; gone when it ends well.
const std::filesystem::path& ScratchFolder();

// The one list of targets.
std::span<const FuzzTarget> FuzzTargets();
const FuzzTarget* FindFuzzTarget(std::string_view name);  // null when unknown

void FuzzOnnxModel(std::string_view bytes);
void FuzzOnnxParts(std::string_view bytes);
void FuzzOnnxTensor(std::string_view bytes);
void FuzzModelArchive(std::string_view bytes);
void FuzzModelFolder(std::string_view bytes);
void FuzzSafetensors(std::string_view bytes);
void FuzzTokenizer(std::string_view bytes);
void FuzzChatTemplate(std::string_view bytes);
void FuzzJobSpec(std::string_view bytes);
void FuzzTable(std::string_view bytes);
void FuzzManifest(std::string_view bytes);
void FuzzWireFrames(std::string_view bytes);
void FuzzHttpTarget(std::string_view bytes);
void FuzzImage(std::string_view bytes);
void FuzzDatasetImport(std::string_view bytes);
void FuzzImageIndex(std::string_view bytes);
void FuzzTuningTable(std::string_view bytes);
void FuzzInferenceRequest(std::string_view bytes);
void FuzzCheckpoint(std::string_view bytes);
void FuzzChat(std::string_view bytes);

}  // namespace lepton::fuzz
