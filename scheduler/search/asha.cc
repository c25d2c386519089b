#include "scheduler/search/asha.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "scheduler/search/sample.h"

namespace lepton::search {
namespace {

class Asha final : public Searcher {
 public:
  Asha(const spec::SearchSpec& search, int64_t max_budget)
      : search_(search),
        budgets_(AshaRungs(search.max_rungs, max_budget, search.reduction_factor)),
        rungs_(budgets_.size()) {}

  std::optional<Suggestion> Peek() const override {
    const std::optional<Choice> next = Next();
    if (!next) return std::nullopt;
    return Suggestion{next->trial, SamplePoint(search_.space, search_.seed, next->trial),
                      budgets_[next->rung], static_cast<int>(next->rung)};
  }

  std::optional<Suggestion> Ask() override {
    std::optional<Suggestion> next = Peek();
    if (!next) return std::nullopt;
    if (next->rung == 0) {
      ++asked_;
    } else {
      rungs_[static_cast<size_t>(next->rung) - 1].promoted.insert(next->trial);
    }
    ++outstanding_;
    return next;
  }

  void Tell(const Observation& seen) override {
    --outstanding_;
    const size_t rung = std::min(static_cast<size_t>(std::max(seen.rung, 0)), rungs_.size() - 1);
    ++rungs_[rung].finished;
    if (seen.failed || !std::isfinite(seen.value)) return;
    // The best first; of equals, the older trial.
    const double loss = search_.mode == "max" ? -seen.value : seen.value;
    rungs_[rung].ranking.insert({loss, seen.trial});
  }

  bool Done() const override { return outstanding_ == 0 && !Next(); }

 private:
  struct Rung {
    std::set<std::pair<double, int>> ranking;
    std::set<int> promoted;
    int finished = 0;  // failed ones too: they count as the worst
  };
  struct Choice {
    int trial;
    size_t rung;
  };

  // The best trial of `rung` that was not promoted, among its best `top`.
  std::optional<int> Promotable(size_t rung, int top) const {
    for (const auto& [loss, trial] : rungs_[rung].ranking) {
      if (top-- <= 0) break;
      if (!rungs_[rung].promoted.contains(trial)) return trial;
    }
    return std::nullopt;
  }

  std::optional<Choice> Next() const {
    for (size_t rung = rungs_.size() - 1; rung-- > 0;) {
      const int top = rungs_[rung].finished / search_.reduction_factor;
      if (auto trial = Promotable(rung, top)) return Choice{*trial, rung + 1};
    }
    if (asked_ < search_.trials) return Choice{asked_, 0};
    if (outstanding_ > 0 || !rungs_.back().ranking.empty()) return std::nullopt;
    for (size_t rung = rungs_.size() - 1; rung-- > 0;) {
      const int all = static_cast<int>(rungs_[rung].ranking.size());
      if (auto trial = Promotable(rung, all)) return Choice{*trial, rung + 1};
    }
    return std::nullopt;
  }

  spec::SearchSpec search_;
  std::vector<int64_t> budgets_;
  std::vector<Rung> rungs_;
  int asked_ = 0;
  int outstanding_ = 0;
};

}  // namespace

std::vector<int64_t> AshaRungs(int count, int64_t max_budget, int factor) {
  std::vector<int64_t> budgets;
  int64_t budget = max_budget;
  while (static_cast<int>(budgets.size()) < count && budget >= 1) {
    budgets.push_back(budget);
    budget /= factor;
  }
  std::reverse(budgets.begin(), budgets.end());
  return budgets;
}

std::unique_ptr<Searcher> MakeAsha(const spec::SearchSpec& search, int64_t max_budget) {
  return std::make_unique<Asha>(search, max_budget);
}

}  // namespace lepton::search
