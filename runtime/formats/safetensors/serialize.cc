#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "runtime/base/hash.h"
#include "runtime/formats/safetensors/safetensors.h"

namespace lepton::safetensors {
namespace {

template <typename Tensor>
std::vector<size_t> ByName(const std::vector<Tensor>& tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return tensors[a].name < tensors[b].name; });
  return order;
}

Result<uint64_t> SizeOf(const TensorPlace& t) {
  const std::string where = "safetensors: tensor \"" + t.name + "\": ";
  if (t.name.empty() || t.name == "__metadata__") {
    return InvalidArgument(where + "this name cannot be used");
  }
  uint64_t size = DtypeSize(t.dtype);
  if (size == 0) return InvalidArgument(where + "unknown dtype \"" + t.dtype + "\"");
  for (const int64_t dim : t.shape) {
    if (dim < 0 || __builtin_mul_overflow(size, static_cast<uint64_t>(dim), &size)) {
      return InvalidArgument(where + "shape holds something not a size");
    }
  }
  return size;
}

std::string LittleEndian64(uint64_t value) {
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(value >> (8 * i));
  return out;
}

}  // namespace

size_t DtypeSize(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL" || dtype == "F8_E4M3" ||
      dtype == "F8_E5M2") {
    return 1;
  }
  return 0;
}

const TensorView* File::Find(std::string_view name) const {
  const auto it =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const TensorView& t, std::string_view key) { return t.name < key; });
  return it != tensors.end() && it->name == name ? &*it : nullptr;
}

Result<FileStart> SerializeStart(const std::vector<TensorPlace>& tensors,
                                 const std::map<std::string, std::string>& metadata) {
  FileStart start;
  start.order = ByName(tensors);
  for (size_t i = 1; i < start.order.size(); ++i) {
    const std::string& name = tensors[start.order[i]].name;
    if (name == tensors[start.order[i - 1]].name) {
      return InvalidArgument("safetensors: tensor \"" + name + "\": given twice");
    }
  }
  std::stable_sort(start.order.begin(), start.order.end(), [&](size_t a, size_t b) {
    return DtypeSize(tensors[a].dtype) > DtypeSize(tensors[b].dtype);
  });
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const size_t i : start.order) {
    const TensorPlace& t = tensors[i];
    LEPTON_ASSIGN_OR_RETURN(const uint64_t size, SizeOf(t));
    header[t.name] = {{"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {at, at + size}}};
    at += size;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    return InvalidArgument("safetensors: a name or a metadata text is not UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  start.bytes = LittleEndian64(text.size()) + text;
  return start;
}

Result<std::string> Serialize(const std::vector<TensorView>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  std::vector<TensorPlace> places;
  uint64_t bytes = 0;
  for (const TensorView& t : tensors) {
    places.push_back({t.name, t.dtype, t.shape});
    LEPTON_ASSIGN_OR_RETURN(const uint64_t size, SizeOf(places.back()));
    if (size != t.bytes.size()) {
      return InvalidArgument("safetensors: tensor \"" + t.name + "\": has " +
                             std::to_string(t.bytes.size()) + " bytes, but its shape needs " +
                             std::to_string(size));
    }
    bytes += size;
  }
  LEPTON_ASSIGN_OR_RETURN(FileStart start, SerializeStart(places, metadata));
  std::string out = std::move(start.bytes);
  out.reserve(out.size() + bytes);
  for (const size_t i : start.order) out += tensors[i].bytes;
  return out;
}

std::string WeightsDigest(const std::vector<TensorView>& tensors) {
  WeightsHash hash;
  for (const size_t i : ByName(tensors)) hash.Add(tensors[i]);
  return hash.FinalHex();
}

void WeightsHash::Add(const TensorView& tensor) {
  sha_.Update(tensor.name);
  sha_.Update(std::string_view("\0", 1));
  sha_.Update(tensor.dtype);
  sha_.Update(std::string_view("\0", 1));
  sha_.Update(LittleEndian64(tensor.shape.size()));
  for (const int64_t dim : tensor.shape) sha_.Update(LittleEndian64(static_cast<uint64_t>(dim)));
  sha_.Update(LittleEndian64(tensor.bytes.size()));
  sha_.Update(tensor.bytes);
}

}  // namespace lepton::safetensors
