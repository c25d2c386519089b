// Asynchronous successive halving, the promoting kind (Li et al., "A System for Massively Parallel
// Hyperparameter Tuning", MLSys 2020, algorithm 2). Budgets form rungs, each `reduction_factor`
// times the one below. Whenever a worker is free, a trial among the best 1/factor of its rung that
// was not promoted yet goes on to the next rung; if there is none, a new trial starts at rung 0.
//
// One addition: when all else is over and no trial got to the top rung (few trials, or many that
// failed), the best of the highest rung goes on, so that a search always ends with a full-length
// trial.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "scheduler/search/searcher.h"

namespace lepton::search {

std::unique_ptr<Searcher> MakeAsha(const spec::SearchSpec& search, int64_t max_budget);

// Budgets of the rungs, the last one `max_budget`: at most `count`, fewer when neighbours would be
// equal. AshaRungs(3, 9, 3) = {1, 3, 9}.
std::vector<int64_t> AshaRungs(int count, int64_t max_budget, int factor);

}  // namespace lepton::search
