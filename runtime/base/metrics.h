// The process's metrics, in Prometheus's text format at /metrics. Names: one prefix `lepton_`, base
// units, `_total`, `_seconds`, `_bytes`, `_ratio`; never a job id as a label.
// Threads: all calls from any thread. Families and their series live for ever.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

#include <map>
#include <string>
#include <vector>

namespace lepton::metrics {

using Labels = std::map<std::string, std::string>;

// The series with this name and these labels; made on first use. `help` counts on first use only.
prometheus::Counter& Counter(const std::string& name, const std::string& help,
                             const Labels& labels = {});
prometheus::Gauge& Gauge(const std::string& name, const std::string& help,
                         const Labels& labels = {});
// Buckets: 0.1 ms to 100 s, unless given.
prometheus::Histogram& Histogram(const std::string& name, const std::string& help,
                                 const Labels& labels = {},
                                 const std::vector<double>& buckets = {});
// All series as Prometheus text.
std::string Expose();

}  // namespace lepton::metrics
