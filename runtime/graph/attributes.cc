#include "runtime/graph/attributes.h"

#include <algorithm>

namespace lepton::graph {

const Attributes::Value* Attributes::Find(std::string_view name) const {
  for (const auto& [key, value] : entries_) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Attributes::Set(std::string_view name, Value value) {
  for (auto& [key, old] : entries_) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  entries_.emplace_back(name, std::move(value));
}

int64_t Attributes::Int(std::string_view name, int64_t fallback) const {
  const Value* value = Find(name);
  const int64_t* number = value == nullptr ? nullptr : std::get_if<int64_t>(value);
  return number == nullptr ? fallback : *number;
}

double Attributes::Float(std::string_view name, double fallback) const {
  const Value* value = Find(name);
  const double* number = value == nullptr ? nullptr : std::get_if<double>(value);
  return number == nullptr ? fallback : *number;
}

std::string Attributes::Text(std::string_view name, std::string fallback) const {
  const Value* value = Find(name);
  const std::string* text = value == nullptr ? nullptr : std::get_if<std::string>(value);
  return text == nullptr ? std::move(fallback) : *text;
}

std::vector<int64_t> Attributes::Ints(std::string_view name, std::vector<int64_t> fallback) const {
  const Value* value = Find(name);
  const auto* list = value == nullptr ? nullptr : std::get_if<std::vector<int64_t>>(value);
  return list == nullptr ? std::move(fallback) : *list;
}

std::vector<double> Attributes::Floats(std::string_view name) const {
  const Value* value = Find(name);
  const auto* list = value == nullptr ? nullptr : std::get_if<std::vector<double>>(value);
  return list == nullptr ? std::vector<double>() : *list;
}

Status Attributes::CheckNames(std::initializer_list<std::string_view> known) const {
  for (const auto& entry : entries_) {
    if (std::find(known.begin(), known.end(), entry.first) == known.end()) {
      return InvalidArgument("unknown attribute '" + entry.first + "'");
    }
  }
  return Status::Ok();
}

}  // namespace lepton::graph
