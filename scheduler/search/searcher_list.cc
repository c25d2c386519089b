#include <fmt/format.h>

#include "scheduler/search/asha.h"
#include "scheduler/search/random.h"
#include "scheduler/search/searcher.h"

namespace lepton::search {

const std::vector<SearcherKind>& SearcherKinds() {
  static const std::vector<SearcherKind> kinds = {
      {"random", &MakeRandom},
      {"asha", &MakeAsha},
  };
  return kinds;
}

Result<std::unique_ptr<Searcher>> MakeSearcher(const spec::SearchSpec& search, int64_t max_budget) {
  if (search.trials < 1) {
    return InvalidArgument(
        fmt::format("search.trials: {} is out of range: at least 1", search.trials));
  }
  if (search.reduction_factor < 2 || search.max_rungs < 1) {
    return InvalidArgument(
        fmt::format("search: reduction_factor {} and max_rungs {}: at least 2 and 1",
                    search.reduction_factor, search.max_rungs));
  }
  if (max_budget < 1) return InvalidArgument("epochs: a search needs trials of at least 1");
  std::string known;
  for (const SearcherKind& kind : SearcherKinds()) {
    if (kind.name == search.algorithm) return kind.make(search, max_budget);
    known += (known.empty() ? "" : ", ") + std::string(kind.name);
  }
  return InvalidArgument(
      fmt::format("search.algorithm: '{}' is unknown: one of {}", search.algorithm, known));
}

}  // namespace lepton::search
