// Where a model's tensors may lie outside of its file.
// Threads: a value.
#pragma once

#include <filesystem>
#include <utility>

namespace lepton::onnx {

struct ExternalData {
  // NOLINTNEXTLINE(google-explicit-constructor): a folder is what most callers have
  ExternalData(std::filesystem::path in = {}, std::filesystem::path without = {})
      : folder(std::move(in)), but_not(std::move(without)) {}

  std::filesystem::path folder;   // in it or below, links followed; empty: nowhere
  std::filesystem::path but_not;  // but not here, or below: what others may not read; empty: none
};

}  // namespace lepton::onnx
