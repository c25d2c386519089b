#include "runtime/base/metrics.h"

#include <prometheus/family.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <mutex>

namespace lepton::metrics {
namespace {

prometheus::Registry& TheRegistry() {
  static auto* registry = new prometheus::Registry();
  return *registry;
}

// Building a family that exists returns the existing one (prometheus-cpp merges by name).
template <typename Builder>
auto& FamilyOf(Builder builder, const std::string& name, const std::string& help) {
  static std::mutex mutex;
  static std::map<std::string, decltype(&builder.Register(TheRegistry()))> families;
  const std::lock_guard lock(mutex);
  auto it = families.find(name);
  if (it == families.end()) {
    it = families.emplace(name, &builder.Name(name).Help(help).Register(TheRegistry())).first;
  }
  return *it->second;
}

const std::vector<double>& DefaultBuckets() {
  static const std::vector<double> buckets = {0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005,
                                              0.01,   0.02,   0.05,   0.1,   0.2,   0.5,
                                              1,      2,      5,      10,    30,    100};
  return buckets;
}
}  // namespace

prometheus::Counter& Counter(const std::string& name, const std::string& help,
                             const Labels& labels) {
  return FamilyOf(prometheus::BuildCounter(), name, help).Add(labels);
}

prometheus::Gauge& Gauge(const std::string& name, const std::string& help, const Labels& labels) {
  return FamilyOf(prometheus::BuildGauge(), name, help).Add(labels);
}

prometheus::Histogram& Histogram(const std::string& name, const std::string& help,
                                 const Labels& labels, const std::vector<double>& buckets) {
  return FamilyOf(prometheus::BuildHistogram(), name, help)
      .Add(labels, buckets.empty() ? DefaultBuckets() : buckets);
}

std::string Expose() {
  return prometheus::TextSerializer().Serialize(TheRegistry().Collect());
}

}  // namespace lepton::metrics
