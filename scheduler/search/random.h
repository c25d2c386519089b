// Random search: `trials` independent points, each with the full budget.
#pragma once

#include <memory>

#include "scheduler/search/searcher.h"

namespace lepton::search {

std::unique_ptr<Searcher> MakeRandom(const spec::SearchSpec& search, int64_t max_budget);

}  // namespace lepton::search
