// Every state that a small elastic job can reach under faults, and broken protocols that the same
// search must find.
#include "tests/scheduler/core/protocol_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <iostream>

namespace lepton::scheduler {
namespace {

using testing::HasSubstr;

std::string TraceOf(const ModelResult& result) {
  std::string text = result.violation;
  for (const std::string& line : result.trace) text += "\n  " + line;
  return text;
}

ModelResult Explore(const ModelOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  ModelResult result = ExploreProtocol(options);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::cout << options.workers << " workers (" << options.late << " late), at least "
            << options.min_workers << ", " << options.steps << " steps, " << options.faults
            << " faults, " << options.drains << " drains, " << options.uploads
            << " ends in two steps: " << result.states << " states, " << result.transitions
            << " transitions, " << result.inputs << " inputs of the reactor, " << result.finished
            << " ends, " << seconds.count() << " s\n";
  return result;
}

TEST(ProtocolModel, WithoutFaults) {
  const ModelResult result = Explore({.faults = 0, .uploads = 3});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
  EXPECT_GT(result.states, 50);
  EXPECT_GT(result.finished, 0);
}

TEST(ProtocolModel, AnyFaultAtAnyMoment) {
  const ModelResult result = Explore({.faults = 1, .uploads = 1});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, AWorkerJoinsAndAnyFaultAtAnyMoment) {
  const ModelResult result = Explore({.late = 1, .steps = 2, .faults = 1, .uploads = 1});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

// Nor must the job start again.
TEST(ProtocolModel, AnyOfThreeDiesAndTheOthersGoOn) {
  const ModelResult result =
      Explore({.faults = 1, .deaths_only = true, .uploads = 1, .must_succeed = true});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, TwoOfThreeDie) {
  const ModelResult result = Explore({.steps = 1, .faults = 2, .deaths_only = true});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

// A joiner gets the state beside two steps, and any fault may come meanwhile: it dies, or who gives
// it the state, or the coordinator.
TEST(ProtocolModel, AJoinerGetsTheStateBesideTheStepsAndAnyFaultAtAnyMoment) {
  const ModelResult result = Explore({.late = 1, .steps = 3, .faults = 1, .pieces = 2});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

// The same where an end is told in two steps.
TEST(ProtocolModel, AJoinerGetsTheStateBesideTheStepsAndOneOfThreeDiesInTwoSteps) {
  const ModelResult result =
      Explore({.late = 1, .steps = 3, .faults = 1, .pieces = 2, .deaths_only = true, .uploads = 1});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

// Then the state may be lost with one, but not with a drain.
TEST(ProtocolModel, AJoinerGetsTheStateOfTheOnlyOneThatHasItAndAnyFaultAtAnyMoment) {
  const ModelResult result =
      Explore({.workers = 2, .late = 1, .steps = 4, .faults = 1, .pieces = 2, .uploads = 2});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, TwoFaultsOnTwoWorkers) {
  const ModelResult result = Explore({.workers = 2, .steps = 1, .faults = 2, .uploads = 2});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, AGangThatMustBeWholeAndAnyFaultAtAnyMoment) {
  const ModelResult result = Explore({.min_workers = 3, .steps = 1, .faults = 1, .uploads = 1});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, TwoWorkersAreCutOffFromEachOtherAtAnyMoment) {
  const ModelResult result =
      Explore({.steps = 1, .faults = 1, .links = true, .links_only = true, .must_succeed = true});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, AWorkerJoinsAndTwoAreCutOffFromEachOther) {
  const ModelResult result = Explore({.late = 1,
                                      .steps = 2,
                                      .faults = 1,
                                      .links = true,
                                      .links_only = true,
                                      .must_succeed = true});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, ACutAndAnyOtherFaultOnTwoWorkers) {
  const ModelResult result = Explore({.workers = 2, .steps = 1, .faults = 2, .links = true});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, TwoWithSlicesAreCutOffFromEachOther) {
  const ModelResult result = Explore({.steps = 1,
                                      .faults = 1,
                                      .links = true,
                                      .links_only = true,
                                      .slices = true,
                                      .must_succeed = true});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

// A state in slices. Ranks get SIGTERM and workers are drained, one, two and all, at any moment:
// what a rank holds is handed over or in a checkpoint before it goes.
TEST(ProtocolModel, AnyTwoOfThreeWithSlicesLeave) {
  const ModelResult result = Explore({.steps = 1, .faults = 0, .slices = true, .drains = 2});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, AllOfTwoWithSlicesLeave) {
  const ModelResult result =
      Explore({.workers = 2, .steps = 2, .faults = 0, .slices = true, .drains = 3, .uploads = 2});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, AllOfThreeWithSlicesLeave) {
  const ModelResult result = Explore(
      {.steps = 1, .faults = 0, .slices = true, .drains = 3, .sigterms = false, .uploads = 1});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, OneOfThreeWithSlicesLeavesAndAnyOtherDies) {
  const ModelResult result = Explore({.steps = 1,
                                      .faults = 1,
                                      .slices = true,
                                      .drains = 1,
                                      .sigterms = false,
                                      .deaths_only = true});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, OneOfTwoWithSlicesLeavesAndAnyFaultAtAnyMoment) {
  const ModelResult result =
      Explore({.workers = 2, .steps = 1, .faults = 1, .slices = true, .drains = 1, .uploads = 2});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

TEST(ProtocolModel, AGangWithSlicesThatMustBeWholeLeaves) {
  const ModelResult result = Explore({.workers = 2,
                                      .min_workers = 2,
                                      .steps = 2,
                                      .faults = 0,
                                      .slices = true,
                                      .drains = 2,
                                      .uploads = 2});
  EXPECT_EQ(result.violation, "") << TraceOf(result);
}

// What the search finds when the protocol is broken on purpose.
struct BrokenCase {
  const char* name;
  ModelOptions options;
  const char* violation;
};

class BrokenProtocol : public testing::TestWithParam<BrokenCase> {};

TEST_P(BrokenProtocol, IsFound) {
  const ModelResult result = Explore(GetParam().options);
  EXPECT_THAT(result.violation, HasSubstr(GetParam().violation)) << TraceOf(result);
  EXPECT_GT(result.trace.size(), 3u);
  if (testing::Test::HasFailure()) return;
  std::cout << TraceOf(result) << "\n";
}

INSTANTIATE_TEST_SUITE_P(
    Protocols, BrokenProtocol,
    testing::Values(
        BrokenCase{
            "OrdersBeforeTheJournal",
            {.workers = 2, .steps = 1, .faults = 2, .broken = Broken::kOrdersBeforeTheJournal},
            "is sent out while seat"},
        BrokenCase{"AMinorityGoesOn",
                   {.workers = 2, .steps = 3, .faults = 1, .broken = Broken::kMinorityGoesOn},
                   "epoch"},
        BrokenCase{"OrdersAreNotRepeated",
                   {.workers = 2, .steps = 1, .faults = 1, .broken = Broken::kOrdersAreNotRepeated},
                   "deadlock"},
        BrokenCase{"CutsAreNotTold",
                   {.workers = 2,
                    .steps = 1,
                    .faults = 1,
                    .links = true,
                    .links_only = true,
                    .must_succeed = true,
                    .broken = Broken::kCutsAreNotTold},
                   "deadlock"},
        BrokenCase{"LeavesAtOnce",
                   {.steps = 2,
                    .faults = 1,
                    .slices = true,
                    .drains = 1,
                    .deaths_only = true,
                    .broken = Broken::kLeavesAtOnce},
                   "is lost at step"},
        BrokenCase{"PiecesAreKept",
                   {.late = 1,
                    .steps = 3,
                    .faults = 1,
                    .pieces = 2,
                    .deaths_only = true,
                    .broken = Broken::kPiecesAreKept},
                   "with a piece of step"},
        BrokenCase{"JoinersCountAtOnce",
                   {.workers = 2,
                    .late = 1,
                    .steps = 4,
                    .faults = 1,
                    .pieces = 2,
                    .broken = Broken::kJoinersCountAtOnce},
                   "pieces of the state"},
        BrokenCase{"LeaversDoNotWait",
                   {.workers = 2,
                    .late = 1,
                    .steps = 4,
                    .faults = 1,
                    .pieces = 2,
                    .broken = Broken::kLeaversDoNotWait},
                   "nobody who had it died"},
        BrokenCase{"EndsAreNotTold",
                   {.workers = 2,
                    .steps = 1,
                    .faults = 1,
                    .deaths_only = true,
                    .uploads = 1,
                    .broken = Broken::kEndsAreNotTold},
                   "what it left is stored"},
        BrokenCase{"BusyIsNotTold",
                   {.workers = 2, .steps = 1, .faults = 1, .broken = Broken::kBusyIsNotTold},
                   "while it computes"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace lepton::scheduler
