// The safetensors format (github.com/huggingface/safetensors): 8-byte little-endian header length,
// JSON header, raw little-endian tensors. Depends on runtime/base only, so that storage may use it.
// Threads: plain values; views borrow from the bytes they were parsed from.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/hash.h"
#include "runtime/base/status.h"

namespace lepton::safetensors {

struct TensorView {
  std::string name;
  std::string dtype;  // "F32", "BF16", "F16", "F64", "I64", "I32", "I16", "I8", "U64" ... "BOOL"
  std::vector<int64_t> shape;
  std::string_view bytes;  // row-major
};
// 0 for an unknown type.
size_t DtypeSize(std::string_view dtype);

struct File {
  std::vector<TensorView> tensors;              // in name order
  std::map<std::string, std::string> metadata;  // "__metadata__"
  const TensorView* Find(std::string_view name) const;
};

// kInvalidArgument, saying where, for anything malformed: truncated, overlapping or out-of-range
// offsets, bytes that no tensor owns, sizes that disagree with shapes, duplicate names, a header
// over 100 MB. Never throws, whatever the bytes.
Result<File> Parse(std::string_view bytes);

// Where tensors lie in a file that is not in memory.
struct TensorPlace {
  std::string name, dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes of the file
};
struct Layout {
  std::vector<TensorPlace> tensors;  // in name order
  std::map<std::string, std::string> metadata;
};
// From the first bytes of a file of `file_bytes`, which must hold the whole header. Errors as of
// Parse.
Result<Layout> ParseLayout(std::string_view start, uint64_t file_bytes);

// The header lists tensors in name order; the data section starts at a multiple of 8 and holds them
// by falling element size, then name, so that each is aligned to its element. Equal input, in any
// order, gives equal bytes. kInvalidArgument for a duplicate or empty name, an unknown type, a size
// that disagrees with its shape, or text that is not UTF-8.
Result<std::string> Serialize(const std::vector<TensorView>& tensors,
                              const std::map<std::string, std::string>& metadata = {});
// The same file's bytes before its data, for tensors that are written one after another (their
// places are not looked at), and the order in which their data follows.
struct FileStart {
  std::string bytes;
  std::vector<size_t> order;  // indices of `tensors`
};
Result<FileStart> SerializeStart(const std::vector<TensorPlace>& tensors,
                                 const std::map<std::string, std::string>& metadata = {});
// SHA-256 over each tensor in name order: name, zero byte, dtype, zero byte, rank, dimensions and
// byte count (64-bit little-endian each), bytes. The digest that a run prints, the same wherever
// and however the file was written.
std::string WeightsDigest(const std::vector<TensorView>& tensors);
// The same for tensors that are there one after another, in name order.
class WeightsHash {
 public:
  void Add(const TensorView& tensor);
  std::string FinalHex() { return sha_.FinalHex(); }

 private:
  Sha256 sha_;
};

}  // namespace lepton::safetensors
