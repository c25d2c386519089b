#include "worker/infer/tensor_data.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

namespace lepton::worker {
namespace {

using Json = nlohmann::json;

static_assert(std::endian::native == std::endian::little, "tensor bytes are little-endian");

struct Datatype {
  std::string_view name;
  size_t bytes;
  double min, max;  // integers only; 0, 0 for real ones
};
constexpr Datatype kDatatypes[] = {
    {"BOOL", 1, 0, 1},
    {"UINT8", 1, 0, 255},
    {"UINT16", 2, 0, 65535},
    {"UINT32", 4, 0, 4294967295.0},
    {"UINT64", 8, 0, 18446744073709551615.0},
    {"INT8", 1, -128, 127},
    {"INT16", 2, -32768, 32767},
    {"INT32", 4, -2147483648.0, 2147483647.0},
    {"INT64", 8, -9223372036854775808.0, 9223372036854775807.0},
    {"FP16", 2, 0, 0},
    {"FP32", 4, 0, 0},
    {"FP64", 8, 0, 0},
};

const Datatype* FindDatatype(std::string_view name) {
  for (const Datatype& type : kDatatypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

double FromHalf(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const double fraction = bits & 1023;
  double value = 0;
  if (exponent == 31) {
    value = fraction == 0 ? std::numeric_limits<double>::infinity()
                          : std::numeric_limits<double>::quiet_NaN();
  } else if (exponent == 0) {
    value = std::ldexp(fraction, -24);
  } else {
    value = std::ldexp(1024 + fraction, exponent - 25);
  }
  return (bits >> 15) != 0 ? -value : value;
}

template <typename T>
void Widen(std::string_view bytes, std::vector<double>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<double>(value);
  }
}

Status Element(const std::string& path, const Json& element, const Datatype& type, double& value) {
  if (element.is_null()) {
    value = std::numeric_limits<double>::quiet_NaN();
    return {};
  }
  if (element.is_boolean() && type.name == "BOOL") {
    value = element.get<bool>() ? 1 : 0;
    return {};
  }
  if (!element.is_number()) {
    return InvalidArgument(path + ": must be numbers or null, found " +
                           std::string(element.type_name()));
  }
  value = element.get<double>();
  if (type.max == 0) return {};
  if (value != std::floor(value) || value < type.min || value > type.max) {
    return InvalidArgument(path + ": " + element.dump() + " is no " + std::string(type.name));
  }
  return {};
}

constexpr int kMaxDepth = 8;

Status Flatten(const std::string& path, const Json& data, const Datatype& type, size_t count,
               int depth, std::vector<double>& values) {
  if (depth > kMaxDepth) return InvalidArgument(path + ": nested too deeply");
  for (const Json& element : data) {
    if (element.is_array()) {
      LEPTON_RETURN_IF_ERROR(Flatten(path, element, type, count, depth + 1, values));
      continue;
    }
    double value = 0;
    LEPTON_RETURN_IF_ERROR(
        Element(path + "[" + std::to_string(values.size()) + "]", element, type, value));
    if (values.size() == count) {
      return InvalidArgument(path + ": more elements than the shape's " + std::to_string(count));
    }
    values.push_back(value);
  }
  return {};
}

}  // namespace

size_t DatatypeSize(std::string_view datatype) {
  const Datatype* type = FindDatatype(datatype);
  return type == nullptr ? 0 : type->bytes;
}

std::string NumericDatatypes() {
  std::string list;
  for (const Datatype& type : kDatatypes) {
    list += (list.empty() ? "" : ", ") + std::string(type.name);
  }
  return list;
}

Result<std::vector<double>> NumbersFromJson(const std::string& path, const Json& data,
                                            std::string_view datatype, size_t count) {
  if (!data.is_array()) return InvalidArgument(path + ": must be an array");
  std::vector<double> values;
  LEPTON_RETURN_IF_ERROR(Flatten(path, data, *FindDatatype(datatype), count, 0, values));
  if (values.size() != count) {
    return InvalidArgument(path + ": " + std::to_string(values.size()) +
                           " elements, but the shape has " + std::to_string(count));
  }
  return values;
}

Result<std::vector<double>> NumbersFromBytes(const std::string& path, std::string_view bytes,
                                             std::string_view datatype, size_t count) {
  const size_t size = DatatypeSize(datatype);
  if (bytes.size() / size != count || bytes.size() % size != 0) {
    return InvalidArgument(path + ": " + std::to_string(bytes.size()) +
                           " bytes, but the shape needs " + std::to_string(count) + " of " +
                           std::to_string(size));
  }
  std::vector<double> values(count);
  if (datatype == "FP32") {
    Widen<float>(bytes, values);
  } else if (datatype == "FP64") {
    Widen<double>(bytes, values);
  } else if (datatype == "INT8") {
    Widen<int8_t>(bytes, values);
  } else if (datatype == "INT16") {
    Widen<int16_t>(bytes, values);
  } else if (datatype == "INT32") {
    Widen<int32_t>(bytes, values);
  } else if (datatype == "INT64") {
    Widen<int64_t>(bytes, values);
  } else if (datatype == "UINT8" || datatype == "BOOL") {
    Widen<uint8_t>(bytes, values);
  } else if (datatype == "UINT16") {
    Widen<uint16_t>(bytes, values);
  } else if (datatype == "UINT32") {
    Widen<uint32_t>(bytes, values);
  } else if (datatype == "UINT64") {
    Widen<uint64_t>(bytes, values);
  } else {
    for (size_t i = 0; i < count; ++i) {
      uint16_t bits = 0;
      std::memcpy(&bits, bytes.data() + i * 2, 2);
      values[i] = FromHalf(bits);
    }
  }
  return values;
}

Result<std::vector<std::string>> TextsFromJson(const std::string& path, const Json& data,
                                               int64_t count) {
  if (!data.is_array()) return InvalidArgument(path + ": must be an array");
  std::vector<std::string> texts;
  for (const Json& element : data) {
    if (!element.is_string()) {
      return InvalidArgument(path + "[" + std::to_string(texts.size()) +
                             "]: must be a string, found " + element.type_name());
    }
    texts.push_back(element.get<std::string>());
  }
  if (static_cast<int64_t>(texts.size()) == count) return texts;
  return InvalidArgument(path + ": " + std::to_string(texts.size()) +
                         " elements, but the shape has " + std::to_string(count));
}

Result<std::vector<std::string>> TextsFromBytes(const std::string& path, std::string_view bytes,
                                                int64_t count) {
  std::vector<std::string> texts;
  while (static_cast<int64_t>(texts.size()) < count) {
    uint32_t size = 0;
    const bool cut = bytes.size() < sizeof(size);
    if (!cut) std::memcpy(&size, bytes.data(), sizeof(size));
    if (cut || bytes.size() - sizeof(size) < size) {
      return InvalidArgument(path + ": the bytes end within text " + std::to_string(texts.size()));
    }
    texts.emplace_back(bytes.substr(sizeof(size), size));
    bytes.remove_prefix(sizeof(size) + size);
  }
  if (bytes.empty()) return texts;
  return InvalidArgument(path + ": " + std::to_string(bytes.size()) + " bytes behind the last of " +
                         std::to_string(count) + " texts");
}

}  // namespace lepton::worker
