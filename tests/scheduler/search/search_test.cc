#include <gmock/gmock.h>

#include <cmath>
#include <deque>
#include <limits>
#include <set>

#include "scheduler/search/asha.h"
#include "scheduler/search/sample.h"
#include "scheduler/search/searcher.h"

namespace lepton::search {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

spec::SearchSpec Spec(const std::string& algorithm, int trials) {
  spec::SearchSpec search;
  search.algorithm = algorithm;
  search.trials = trials;
  search.seed = 11;
  spec::Dimension lr;
  lr.path = "optimizer.lr";
  lr.type = spec::Dimension::Type::kLogUniform;
  lr.low = 1e-4;
  lr.high = 1e-1;
  search.space = {lr};
  return search;
}

std::unique_ptr<Searcher> Make(const spec::SearchSpec& search, int64_t budget) {
  auto searcher = MakeSearcher(search, budget);
  EXPECT_TRUE(searcher.ok()) << searcher.status().ToString();
  return std::move(searcher).value();
}

// Runs a search with `parallel` slots, oldest first, and returns all that was suggested.
std::vector<Suggestion> Drive(Searcher& searcher, size_t parallel,
                              double (*value)(const Suggestion&)) {
  std::vector<Suggestion> all;
  std::deque<Suggestion> running;
  while (!searcher.Done() && all.size() < 10'000) {
    while (running.size() < parallel) {
      auto next = searcher.Ask();
      if (!next) break;
      all.push_back(*next);
      running.push_back(*next);
    }
    if (running.empty()) {
      ADD_FAILURE() << "neither done nor anything to do";
      break;
    }
    const Suggestion done = running.front();
    running.pop_front();
    const double seen = value(done);
    searcher.Tell({done.trial, done.budget, done.rung, std::isnan(seen), seen});
  }
  return all;
}

double TrialNumber(const Suggestion& suggestion) {
  return suggestion.trial;
}
double Never(const Suggestion&) {
  return std::numeric_limits<double>::quiet_NaN();
}

TEST(AshaRungs, PublicVectors) {
  EXPECT_THAT(AshaRungs(3, 9, 3), ElementsAre(1, 3, 9));
  EXPECT_THAT(AshaRungs(4, 10, 2), ElementsAre(1, 2, 5, 10));
  EXPECT_THAT(AshaRungs(3, 900, 3), ElementsAre(100, 300, 900));
  EXPECT_THAT(AshaRungs(5, 4, 2), ElementsAre(1, 2, 4)) << "never a rung of nothing";
  EXPECT_THAT(AshaRungs(1, 7, 3), ElementsAre(7));
}

TEST(Asha, OneThirdGoesUpEachRungWhenServedOneByOne) {
  auto searcher = Make(Spec("asha", 9), 9);
  const auto all = Drive(*searcher, 1, &TrialNumber);
  std::map<int, std::set<int>> by_rung;
  for (const Suggestion& suggestion : all) by_rung[suggestion.rung].insert(suggestion.trial);
  EXPECT_THAT(by_rung[0], SizeIs(9));
  // Ever better trials: each third one finds itself the best and goes up (asynchrony's price).
  EXPECT_TRUE(by_rung[1].contains(8));
  EXPECT_TRUE(by_rung[2].contains(8));
  EXPECT_LT(by_rung[2].size(), by_rung[1].size());
  EXPECT_LT(by_rung[1].size(), by_rung[0].size());
  for (const Suggestion& suggestion : all) {
    EXPECT_EQ(suggestion.budget, suggestion.rung == 0 ? 1 : suggestion.rung == 1 ? 3 : 9);
  }
}

TEST(Asha, WorseTrialsAfterTheBestGiveTheTextbookHalving) {
  auto searcher = Make(Spec("asha", 9), 9);
  const auto all =
      Drive(*searcher, 9, [](const Suggestion& suggestion) { return -1.0 * suggestion.trial; });
  std::vector<std::pair<int, int>> up;  // rung, trial
  for (const Suggestion& suggestion : all) {
    if (suggestion.rung > 0) up.emplace_back(suggestion.rung, suggestion.trial);
  }
  EXPECT_THAT(up, testing::UnorderedElementsAre(std::pair(1, 0), std::pair(1, 1), std::pair(1, 2),
                                                std::pair(2, 0)));
}

TEST(Asha, MinimizesWhenAskedTo) {
  spec::SearchSpec search = Spec("asha", 9);
  search.mode = "min";
  auto searcher = Make(search, 9);
  const auto all = Drive(*searcher, 9, &TrialNumber);
  EXPECT_EQ(all.back().trial, 0);
  EXPECT_EQ(all.back().budget, 9);
}

TEST(Asha, FewTrialsStillEndWithAFullLengthOne) {
  for (int trials : {1, 2}) {
    auto searcher = Make(Spec("asha", trials), 9);
    const auto all = Drive(*searcher, 4, &TrialNumber);
    EXPECT_EQ(all.back().budget, 9);
    EXPECT_EQ(all.back().trial, trials - 1);
  }
}

TEST(Asha, FailedTrialsAreNeverPromoted) {
  auto searcher = Make(Spec("asha", 6), 9);
  const auto all = Drive(*searcher, 2, [](const Suggestion& suggestion) {
    return suggestion.trial % 2 == 0 ? std::nan("") : static_cast<double>(suggestion.trial);
  });
  for (const Suggestion& suggestion : all) {
    EXPECT_TRUE(suggestion.rung == 0 || suggestion.trial % 2 == 1);
  }
  EXPECT_EQ(all.back().budget, 9);
}

class AnySearcher : public testing::TestWithParam<std::string> {};

TEST_P(AnySearcher, EndsWithEveryTrialTried) {
  for (size_t parallel : {1u, 3u, 64u}) {
    auto searcher = Make(Spec(GetParam(), 20), 27);
    std::set<int> trials;
    std::set<std::pair<int, int>> suggestions;
    for (const Suggestion& suggestion : Drive(*searcher, parallel, &TrialNumber)) {
      trials.insert(suggestion.trial);
      EXPECT_TRUE(suggestions.insert({suggestion.trial, suggestion.rung}).second)
          << "twice the same";
    }
    EXPECT_THAT(trials, SizeIs(20));
    EXPECT_TRUE(searcher->Done());
    EXPECT_FALSE(searcher->Ask().has_value());
  }
}

TEST_P(AnySearcher, EndsWhenEverythingFails) {
  auto searcher = Make(Spec(GetParam(), 7), 27);
  EXPECT_THAT(Drive(*searcher, 2, &Never), SizeIs(7));
}

TEST_P(AnySearcher, PeekChangesNothing) {
  auto peeked = Make(Spec(GetParam(), 8), 9), plain = Make(Spec(GetParam(), 8), 9);
  for (int i = 0; i < 8; ++i) {
    const auto before = peeked->Peek();
    peeked->Peek();
    const auto a = peeked->Ask(), b = plain->Ask();
    ASSERT_TRUE(a && b && before);
    EXPECT_EQ(a->trial, b->trial);
    EXPECT_EQ(a->trial, before->trial);
    EXPECT_EQ(a->values, b->values);
    peeked->Tell({a->trial, a->budget, a->rung, false, 0.1 * i});
    plain->Tell({a->trial, a->budget, a->rung, false, 0.1 * i});
  }
}

INSTANTIATE_TEST_SUITE_P(All, AnySearcher, testing::Values("random", "asha"));

TEST(AnySearcherList, HasARowPerTestedName) {
  EXPECT_THAT(SearcherKinds(), SizeIs(2));
}

TEST(MakeSearcher, RefusesWhatMakesNoSearch) {
  EXPECT_EQ(MakeSearcher(Spec("tarot", 4), 9).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeSearcher(Spec("asha", 0), 9).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeSearcher(Spec("asha", 4), 0).status().code(), StatusCode::kInvalidArgument);
  spec::SearchSpec search = Spec("asha", 4);
  search.reduction_factor = 1;
  EXPECT_EQ(MakeSearcher(search, 9).status().code(), StatusCode::kInvalidArgument);
}

TEST(SamplePoint, StaysInsideAndCoversTheSpace) {
  spec::SearchSpec search = Spec("random", 1);
  spec::Dimension width, choice;
  width.path = "width";
  width.type = spec::Dimension::Type::kInt;
  width.low = 1;
  width.high = 3;
  choice.path = "choice";
  choice.type = spec::Dimension::Type::kChoice;
  choice.choices = {"\"relu\"", "[64, 32]"};
  search.space.push_back(width);
  search.space.push_back(choice);
  std::map<std::string, int> widths, choices;
  int below = 0;
  for (int trial = 0; trial < 3'000; ++trial) {
    const auto point = SamplePoint(search.space, 5, trial);
    const double lr = std::stod(point.at("optimizer.lr"));
    ASSERT_GE(lr, 1e-4);
    ASSERT_LE(lr, 1e-1);
    below += lr < std::sqrt(1e-4 * 1e-1) ? 1 : 0;
    ++widths[point.at("width")];
    ++choices[point.at("choice")];
  }
  EXPECT_NEAR(below, 1'500, 150) << "log-uniform: half lies below the geometric mean";
  ASSERT_THAT(widths, SizeIs(3));
  for (const auto& [text, count] : widths) EXPECT_NEAR(count, 1'000, 120) << text;
  ASSERT_THAT(choices, SizeIs(2));
}

TEST(SamplePoint, DependsOnSeedAndTrialOnly) {
  const auto space = Spec("random", 1).space;
  EXPECT_EQ(SamplePoint(space, 1, 2), SamplePoint(space, 1, 2));
  EXPECT_NE(SamplePoint(space, 1, 2), SamplePoint(space, 1, 3));
  EXPECT_NE(SamplePoint(space, 1, 2), SamplePoint(space, 2, 2));
  EXPECT_THAT(SamplePoint({}, 1, 2), IsEmpty());
}

}  // namespace
}  // namespace lepton::search
