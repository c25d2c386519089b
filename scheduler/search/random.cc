#include "scheduler/search/random.h"

#include "scheduler/search/sample.h"

namespace lepton::search {
namespace {

class Random final : public Searcher {
 public:
  Random(const spec::SearchSpec& search, int64_t max_budget)
      : search_(search), max_budget_(max_budget) {}

  std::optional<Suggestion> Peek() const override {
    if (asked_ >= search_.trials) return std::nullopt;
    return Suggestion{asked_, SamplePoint(search_.space, search_.seed, asked_), max_budget_, 0};
  }

  std::optional<Suggestion> Ask() override {
    std::optional<Suggestion> next = Peek();
    if (next) ++asked_;
    return next;
  }

  void Tell(const Observation&) override { ++told_; }
  bool Done() const override { return told_ >= search_.trials; }

 private:
  spec::SearchSpec search_;
  int64_t max_budget_;
  int asked_ = 0;
  int told_ = 0;
};

}  // namespace

std::unique_ptr<Searcher> MakeRandom(const spec::SearchSpec& search, int64_t max_budget) {
  return std::make_unique<Random>(search, max_budget);
}

}  // namespace lepton::search
