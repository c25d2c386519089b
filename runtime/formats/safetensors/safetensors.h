// The safetensors format (github.com/huggingface/safetensors): 8-byte little-endian header length,
// JSON header, raw little-endian tensors. Depends on runtime/base only, so that storage may use it.
// Threads: plain values; views borrow from the bytes they were parsed from.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::safetensors {

struct TensorView {
  std::string name;
  std::string dtype;  // "F32", "BF16", "F16", "F64", "I64", "I32", "I8", "U8", "BOOL"
  std::vector<int64_t> shape;
  std::string_view bytes;  // row-major
};
// 0 for an unknown type.
size_t DtypeSize(std::string_view dtype);

struct File {
  std::vector<TensorView> tensors;             // in name order
  std::map<std::string, std::string> metadata; // "__metadata__"
  const TensorView* Find(std::string_view name) const;
};

// kInvalidArgument, saying where, for anything malformed: truncated, overlapping or out-of-range
// offsets, sizes that disagree with shapes, duplicate names, a header over 100 MB.
Result<File> Parse(std::string_view bytes);
// Tensors are written in name order, data aligned to 8 bytes; equal input gives equal bytes.
Result<std::string> Serialize(const std::vector<TensorView>& tensors,
                              const std::map<std::string, std::string>& metadata = {});
// SHA-256 over name, dtype, shape and bytes of each tensor in name order: the digest that a run
// prints, the same wherever and however the file was written.
std::string WeightsDigest(const std::vector<TensorView>& tensors);

}  // namespace lepton::safetensors
