#include "scheduler/search/sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lepton::search {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014): a good hash of a counter, equal on every machine.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// In [0, 1), 53 bits.
double Uniform(uint64_t seed, int trial, size_t dimension) {
  const uint64_t bits = Mix(Mix(Mix(seed) ^ static_cast<uint64_t>(trial)) ^ dimension);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

double Between(double low, double high, double u, bool log) {
  if (!log) return low + u * (high - low);
  return std::exp(std::log(low) + u * (std::log(high) - std::log(low)));
}

// Every whole number from low to high: each has an equal share of [low, high + 1).
int64_t WholeBetween(double low, double high, double u, bool log) {
  const double value = std::floor(Between(low, high + 1, u, log));
  return static_cast<int64_t>(std::clamp(value, low, high));
}

std::string Draw(const spec::Dimension& dimension, double u) {
  using Type = spec::Dimension::Type;
  const double low = dimension.low, high = dimension.high;
  switch (dimension.type) {
    case Type::kUniform:
    case Type::kLogUniform: {
      const double value = Between(low, high, u, dimension.type == Type::kLogUniform);
      return fmt::format("{}", std::clamp(value, low, high));
    }
    case Type::kInt:
    case Type::kLogInt:
      return fmt::format("{}", WholeBetween(low, high, u, dimension.type == Type::kLogInt));
    case Type::kChoice:
      break;
  }
  if (dimension.choices.empty()) return "null";
  const size_t index = static_cast<size_t>(u * static_cast<double>(dimension.choices.size()));
  return dimension.choices[std::min(index, dimension.choices.size() - 1)];
}

}  // namespace

std::map<std::string, std::string> SamplePoint(const std::vector<spec::Dimension>& space,
                                               uint64_t seed, int trial) {
  std::map<std::string, std::string> point;
  for (size_t i = 0; i < space.size(); ++i) {
    point[space[i].path] = Draw(space[i], Uniform(seed, trial, i));
  }
  return point;
}

}  // namespace lepton::search
