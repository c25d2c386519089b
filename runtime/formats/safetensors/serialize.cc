#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/base/hash.h"
#include "runtime/formats/safetensors/safetensors.h"

namespace lepton::safetensors {
namespace {

using Order = std::vector<const TensorView*>;

Order ByName(const std::vector<TensorView>& tensors) {
  Order order;
  order.reserve(tensors.size());
  for (const TensorView& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->name < b->name; });
  return order;
}

Status CheckTensor(const TensorView& t) {
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
  if (size != t.bytes.size()) {
    return InvalidArgument(where + "has " + std::to_string(t.bytes.size()) +
                           " bytes, but its shape needs " + std::to_string(size));
  }
  return Status::Ok();
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

Result<std::string> Serialize(const std::vector<TensorView>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  const Order by_name = ByName(tensors);
  for (size_t i = 0; i < by_name.size(); ++i) {
    LEPTON_RETURN_IF_ERROR(CheckTensor(*by_name[i]));
    if (i > 0 && by_name[i]->name == by_name[i - 1]->name) {
      return InvalidArgument("safetensors: tensor \"" + by_name[i]->name + "\": given twice");
    }
  }
  Order by_place = by_name;
  std::stable_sort(by_place.begin(), by_place.end(), [](const auto* a, const auto* b) {
    return DtypeSize(a->dtype) > DtypeSize(b->dtype);
  });

  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const TensorView* t : by_place) {
    header[t->name] = {
        {"dtype", t->dtype}, {"shape", t->shape}, {"data_offsets", {at, at + t->bytes.size()}}};
    at += t->bytes.size();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    return InvalidArgument("safetensors: a name or a metadata text is not UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');

  std::string out;
  out.reserve(8 + text.size() + at);
  out += LittleEndian64(text.size());
  out += text;
  for (const TensorView* t : by_place) out += t->bytes;
  return out;
}

std::string WeightsDigest(const std::vector<TensorView>& tensors) {
  Sha256 sha;
  for (const TensorView* t : ByName(tensors)) {
    sha.Update(t->name);
    sha.Update(std::string_view("\0", 1));
    sha.Update(t->dtype);
    sha.Update(std::string_view("\0", 1));
    sha.Update(LittleEndian64(t->shape.size()));
    for (const int64_t dim : t->shape) sha.Update(LittleEndian64(static_cast<uint64_t>(dim)));
    sha.Update(LittleEndian64(t->bytes.size()));
    sha.Update(t->bytes);
  }
  return sha.FinalHex();
}

}  // namespace lepton::safetensors
