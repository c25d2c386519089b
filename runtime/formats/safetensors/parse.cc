#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/formats/safetensors/safetensors.h"

namespace lepton::safetensors {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxRank = 64;

Status Bad(const std::string& what) {
  return InvalidArgument("safetensors: " + what);
}

std::string Quoted(std::string_view name) {
  return "tensor \"" + std::string(name) + "\": ";
}

struct Placed {
  uint64_t begin = 0, end = 0;
  const std::string* name = nullptr;
};

// The header's JSON. A duplicate key would silently win over the first, so it is looked for while
// parsing.
Result<json> ParseHeader(std::string_view text) {
  std::set<std::string> top_level;
  std::string duplicate;
  const auto on_event = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::key && depth == 1) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!top_level.insert(key).second) duplicate = key;
    }
    return true;
  };
  json header = json::parse(text.begin(), text.end(), on_event, /*allow_exceptions=*/false);
  if (header.is_discarded()) return Bad("the header is not JSON");
  if (!header.is_object()) return Bad("the header is not a JSON object");
  if (!duplicate.empty()) return Bad("the header names \"" + duplicate + "\" twice");
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

Status ReadTensor(const std::string& name, const json& value, std::string_view data,
                  TensorView* tensor, Placed* placed) {
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
  const uint64_t begin = (*offsets)[0].get<uint64_t>(), end = (*offsets)[1].get<uint64_t>();
  if (begin > end || end > data.size()) {
    return Bad(where + "data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) +
               "] lie outside the " + std::to_string(data.size()) + " bytes of data");
  }
  if (end - begin != size) {
    return Bad(where + "has " + std::to_string(end - begin) + " bytes, but its shape needs " +
               std::to_string(size));
  }
  tensor->bytes = data.substr(begin, size);
  *placed = {begin, end, &tensor->name};
  return Status::Ok();
}

// Tensors must tile the data: an overlap or a hole could smuggle bytes past a reader.
Status CheckTiling(std::vector<Placed> placed, uint64_t data_size) {
  std::sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t at = 0;
  for (const Placed& p : placed) {
    if (p.begin < at) return Bad(Quoted(*p.name) + "overlaps another tensor");
    if (p.begin > at) return Bad(Quoted(*p.name) + "leaves unused bytes before it");
    at = p.end;
  }
  if (at != data_size) return Bad("unused bytes after the last tensor");
  return Status::Ok();
}

}  // namespace

Result<File> Parse(std::string_view bytes) {
  if (bytes.size() < 8) return Bad("shorter than the 8 bytes of the header length");
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | static_cast<uint8_t>(bytes[i]);
  if (header_bytes > kMaxHeaderBytes) {
    return Bad("header of " + std::to_string(header_bytes) + " bytes; the limit is 100 MB");
  }
  if (header_bytes > bytes.size() - 8) return Bad("cut short inside the header");
  const std::string_view text = bytes.substr(8, header_bytes);
  const std::string_view data = bytes.substr(8 + header_bytes);
  if (text.empty() || text[0] != '{') return Bad("the header does not start with {");
  LEPTON_ASSIGN_OR_RETURN(const json header, ParseHeader(text));

  File file;
  file.tensors.reserve(header.size());
  std::vector<Placed> placed;
  for (const auto& [name, value] : header.items()) {  // nlohmann's objects are in key order
    if (name == "__metadata__") {
      LEPTON_RETURN_IF_ERROR(ReadMetadata(value, &file.metadata));
      continue;
    }
    LEPTON_RETURN_IF_ERROR(
        ReadTensor(name, value, data, &file.tensors.emplace_back(), &placed.emplace_back()));
  }
  LEPTON_RETURN_IF_ERROR(CheckTiling(std::move(placed), data.size()));
  return file;
}

}  // namespace lepton::safetensors
