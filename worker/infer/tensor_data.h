// The elements of one tensor of the Open Inference Protocol, in JSON or in bytes.
// Threads: pure functions.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::worker {

// Bytes of an element; 0 for an unknown datatype and for BYTES.
size_t DatatypeSize(std::string_view datatype);
// "BOOL, UINT8, ...": those that a number may come in.
std::string NumericDatatypes();

// Exactly `count` numbers from flat or nested arrays, in order; null is NaN. `path` for errors.
Result<std::vector<double>> NumbersFromJson(const std::string& path, const nlohmann::json& data,
                                            std::string_view datatype, size_t count);
// From little-endian bytes: bytes.size() must be count * DatatypeSize(datatype).
Result<std::vector<double>> NumbersFromBytes(const std::string& path, std::string_view bytes,
                                             std::string_view datatype, size_t count);

// Exactly `count` texts from a flat array of strings.
Result<std::vector<std::string>> TextsFromJson(const std::string& path, const nlohmann::json& data,
                                               int64_t count);
// From bytes: each text behind its length, 32 bits little-endian.
Result<std::vector<std::string>> TextsFromBytes(const std::string& path, std::string_view bytes,
                                                int64_t count);

}  // namespace lepton::worker
