// Decides which configurations a tune job tries, and for how long. A searcher is a deterministic
// state machine: the same spec and the same calls give the same answers, so the journal stores the
// calls and a restart makes them again. Threads: one caller at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/spec/job_spec.h"

namespace lepton::search {

// Train `trial` until it has used `budget` (epochs or steps, the caller's unit) in all.
struct Suggestion {
  int trial = 0;  // 0, 1, ...; one seen before goes on from where it stopped
  std::map<std::string, std::string> values;  // dotted spec path -> JSON value
  int64_t budget = 0;
  int rung = 0;
};

struct Observation {
  int trial = 0;
  int64_t budget = 0;
  int rung = 0;
  bool failed = false;  // or a value that is not a finite number: the trial is out
  double value = 0;     // of the search's metric
};

class Searcher {
 public:
  virtual ~Searcher() = default;
  // The next thing to run, without taking it; nothing when it must wait for a Tell or is done.
  virtual std::optional<Suggestion> Peek() const = 0;
  // Takes what Peek says.
  virtual std::optional<Suggestion> Ask() = 0;
  // Once for every suggestion.
  virtual void Tell(const Observation& observation) = 0;
  // Nothing is left to ask and nothing is awaited.
  virtual bool Done() const = 0;
};

// A row of searcher_list.cc. `max_budget` is what a trial that is never stopped uses.
struct SearcherKind {
  std::string_view name;  // SearchSpec.algorithm
  std::unique_ptr<Searcher> (*make)(const spec::SearchSpec& search, int64_t max_budget);
};
const std::vector<SearcherKind>& SearcherKinds();

// kInvalidArgument: unknown algorithm, or numbers that make no search.
Result<std::unique_ptr<Searcher>> MakeSearcher(const spec::SearchSpec& search, int64_t max_budget);

}  // namespace lepton::search
