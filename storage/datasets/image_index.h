// Which pictures a dataset of images has: the files lie one after another in one object
// (DatasetManifest::source), this index says where, of which class and of which size each is.
// Stored as safetensors (DatasetManifest::table): "ends" I64, "labels", "widths", "heights" I32,
// "path_ends" I64 and "paths" U8, all by picture.
// Threads: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::storage {

struct ImageIndex {
  std::vector<int64_t> ends;  // of each file in the object; the next one begins there
  std::vector<int32_t> labels;
  std::vector<int32_t> widths, heights;
  std::vector<int64_t> path_ends;
  std::string paths;  // "roses/12.jpg", one after another

  int64_t size() const { return static_cast<int64_t>(ends.size()); }
  std::string_view Path(int64_t i) const;
  // The file within the object's bytes.
  std::string_view File(std::string_view object, int64_t i) const;
};

Result<std::string> ImageIndexToSafetensors(const ImageIndex& index);
// kInvalidArgument for anything that is not an index of an object of `object_bytes` whose labels
// are in [0, classes).
Result<ImageIndex> ImageIndexFromSafetensors(std::string_view bytes, int64_t object_bytes,
                                             int64_t classes);

}  // namespace lepton::storage
