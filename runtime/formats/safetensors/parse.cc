#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/base/json_text.h"
#include "runtime/formats/safetensors/safetensors.h"

namespace lepton::safetensors {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxRank = 64;
constexpr size_t kMostLevels = 8;

Status Bad(const std::string& what) {
  return InvalidArgument("safetensors: " + what);
}

std::string Quoted(std::string_view name) {
  return "tensor \"" + std::string(name) + "\": ";
}

// The names of a JSON object, quoted as they stand there.
std::vector<std::string_view> TopLevelNames(std::string_view object) {
  std::vector<std::string_view> names;
  int level = 0;
  bool at_name = false;
  for (size_t i = 0; i < object.size(); ++i) {
    const char c = object[i];
    if (c == '{' || c == '[') ++level;
    if (c == '}' || c == ']') --level;
    if (level == 1 && (c == '{' || c == ',')) at_name = true;
    if (c != '"') continue;
    const size_t begin = i;
    for (++i; i < object.size() && object[i] != '"'; ++i) {
      if (object[i] == '\\') ++i;
    }
    if (at_name) names.push_back(object.substr(begin, i + 1 - begin));
    at_name = false;
  }
  return names;
}

// The header's JSON. A duplicate key would silently win over the first, so it is looked for.
Result<json> ParseHeaderText(std::string_view text) {
  // What is nested takes many times its bytes before it is refused.
  if (NestedDeeper(text, kMostLevels)) {
    return Bad("the header is nested deeper than " + std::to_string(kMostLevels) + " levels");
  }
  // Without a callback, which the parser asks in quadratic time.
  json header = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (header.is_discarded()) return Bad("the header is not JSON");
  if (!header.is_object()) return Bad("the header is not a JSON object");
  std::set<std::string> names;
  for (const std::string_view quoted : TopLevelNames(text)) {
    const auto [name, fresh] = names.insert(json::parse(quoted).get<std::string>());
    if (!fresh) return Bad("the header names \"" + *name + "\" twice");
  }
  return header;
}

Status ReadMetadata(const json& value, std::map<std::string, std::string>* out) {
  if (!value.is_object()) return Bad("__metadata__ is not an object");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) return Bad("__metadata__: \"" + key + "\" is not a string");
    (*out)[key] = text.get_ref<const std::string&>();
  }
  return Status::Ok();
}

Status ReadShape(const json& value, const std::string& where, size_t item_bytes,
                 std::vector<int64_t>* shape, uint64_t* size) {
  if (!value.is_array()) return Bad(where + "shape is not an array");
  if (value.size() > kMaxRank) return Bad(where + "shape has more than 64 dimensions");
  *size = item_bytes;
  for (const json& dim : value) {
    if (!dim.is_number_unsigned()) return Bad(where + "shape holds something not a size");
    const uint64_t n = dim.get<uint64_t>();
    if (n > static_cast<uint64_t>(INT64_MAX) || __builtin_mul_overflow(*size, n, size)) {
      return Bad(where + "shape is too large");
    }
    shape->push_back(static_cast<int64_t>(n));
  }
  return Status::Ok();
}

// Places are within the data, which has `data_size` bytes.
Status ReadTensor(const std::string& name, const json& value, uint64_t data_size,
                  TensorPlace* tensor) {
  const std::string where = Quoted(name);
  if (!value.is_object()) return Bad(where + "its entry is not an object");
  const auto dtype = value.find("dtype"), shape = value.find("shape"),
             offsets = value.find("data_offsets");
  if (dtype == value.end() || !dtype->is_string()) return Bad(where + "dtype is missing");
  if (shape == value.end()) return Bad(where + "shape is missing");
  if (offsets == value.end() || !offsets->is_array() || offsets->size() != 2 ||
      !(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned()) {
    return Bad(where + "data_offsets is not a pair of sizes");
  }
  tensor->name = name;
  tensor->dtype = dtype->get_ref<const std::string&>();
  const size_t item_bytes = DtypeSize(tensor->dtype);
  if (item_bytes == 0) return Bad(where + "unknown dtype \"" + tensor->dtype + "\"");
  uint64_t size = 0;
  LEPTON_RETURN_IF_ERROR(ReadShape(*shape, where, item_bytes, &tensor->shape, &size));
  tensor->begin = (*offsets)[0].get<uint64_t>();
  tensor->end = (*offsets)[1].get<uint64_t>();
  if (tensor->begin > tensor->end || tensor->end > data_size) {
    return Bad(where + "data_offsets [" + std::to_string(tensor->begin) + ", " +
               std::to_string(tensor->end) + "] lie outside the " + std::to_string(data_size) +
               " bytes of data");
  }
  if (tensor->end - tensor->begin != size) {
    return Bad(where + "has " + std::to_string(tensor->end - tensor->begin) +
               " bytes, but its shape needs " + std::to_string(size));
  }
  return Status::Ok();
}

// Tensors must tile the data: an overlap or a hole could smuggle bytes past a reader.
Status CheckTiling(const std::vector<TensorPlace>& tensors, uint64_t data_size) {
  std::vector<const TensorPlace*> placed;
  for (const TensorPlace& tensor : tensors) placed.push_back(&tensor);
  std::sort(placed.begin(), placed.end(), [](const TensorPlace* a, const TensorPlace* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t at = 0;
  for (const TensorPlace* p : placed) {
    if (p->begin < at) return Bad(Quoted(p->name) + "overlaps another tensor");
    if (p->begin > at) return Bad(Quoted(p->name) + "leaves unused bytes before it");
    at = p->end;
  }
  if (at != data_size) return Bad("unused bytes after the last tensor");
  return Status::Ok();
}

}  // namespace

Result<Layout> ParseLayout(std::string_view start, uint64_t file_bytes) {
  if (start.size() < 8) return Bad("shorter than the 8 bytes of the header length");
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | static_cast<uint8_t>(start[i]);
  if (header_bytes > kMaxHeaderBytes) {
    return Bad("header of " + std::to_string(header_bytes) + " bytes; the limit is 100 MB");
  }
  if (header_bytes > start.size() - 8) return Bad("cut short inside the header");
  const std::string_view text = start.substr(8, header_bytes);
  const uint64_t data_begin = 8 + header_bytes;
  if (text.empty() || text[0] != '{') return Bad("the header does not start with {");
  LEPTON_ASSIGN_OR_RETURN(const json header, ParseHeaderText(text));

  Layout layout;
  layout.tensors.reserve(header.size());
  for (const auto& [name, value] : header.items()) {  // nlohmann's objects are in key order
    if (name == "__metadata__") {
      LEPTON_RETURN_IF_ERROR(ReadMetadata(value, &layout.metadata));
      continue;
    }
    LEPTON_RETURN_IF_ERROR(
        ReadTensor(name, value, file_bytes - data_begin, &layout.tensors.emplace_back()));
  }
  LEPTON_RETURN_IF_ERROR(CheckTiling(layout.tensors, file_bytes - data_begin));
  for (TensorPlace& tensor : layout.tensors) {
    tensor.begin += data_begin;
    tensor.end += data_begin;
  }
  return layout;
}

Result<File> Parse(std::string_view bytes) {
  LEPTON_ASSIGN_OR_RETURN(Layout layout, ParseLayout(bytes, bytes.size()));
  File file;
  file.metadata = std::move(layout.metadata);
  file.tensors.reserve(layout.tensors.size());
  for (TensorPlace& tensor : layout.tensors) {
    file.tensors.push_back({std::move(tensor.name), std::move(tensor.dtype),
                            std::move(tensor.shape),
                            bytes.substr(tensor.begin, tensor.end - tensor.begin)});
  }
  return file;
}

}  // namespace lepton::safetensors
