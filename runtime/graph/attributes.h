// The constants of a node: axis, rate, transpose flags. A handful per node, so a flat list.
// Threads: plain values.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::graph {

class Attributes {
 public:
  using Value =
      std::variant<int64_t, double, std::string, std::vector<int64_t>, std::vector<double>>;

  Attributes() = default;
  Attributes(std::initializer_list<std::pair<std::string, Value>> entries) : entries_(entries) {}

  // The fallback when the name is absent or of another kind; an op's Infer has refused the latter
  // before a kernel asks.
  int64_t Int(std::string_view name, int64_t fallback = 0) const;
  double Float(std::string_view name, double fallback = 0) const;
  std::string Text(std::string_view name, std::string fallback = "") const;
  std::vector<int64_t> Ints(std::string_view name, std::vector<int64_t> fallback = {}) const;
  std::vector<double> Floats(std::string_view name) const;  // empty when it is absent

  // Adds the attribute, or replaces it.
  void Set(std::string_view name, Value value);

  // kInvalidArgument unless every name is one of `known`.
  Status CheckNames(std::initializer_list<std::string_view> known) const;
  friend bool operator==(const Attributes&, const Attributes&) = default;

 private:
  const Value* Find(std::string_view name) const;
  std::vector<std::pair<std::string, Value>> entries_;
};

}  // namespace lepton::graph
