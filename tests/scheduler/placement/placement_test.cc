#include "scheduler/placement/placement.h"

#include <gmock/gmock.h>

namespace lepton::placement {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

Seat W(const std::string& name, uint32_t slots, uint32_t free, const std::string& world = "",
       uint32_t gpus = 0, const std::string& host = "") {
  return {name, host.empty() ? "host-" + name : host, world, slots, free, gpus, 0};
}

GangRequest Ask(int least, int most, uint32_t slots = 1) {
  GangRequest request;
  request.min_workers = least;
  request.max_workers = most;
  request.slots = slots;
  return request;
}

TEST(PlaceGang, DistinctWorkersFirstThenDoubledUp) {
  const std::vector<Seat> seats = {W("a", 2, 2), W("b", 2, 2)};
  EXPECT_THAT(PlaceGang(seats, Ask(1, 2)).workers, ElementsAre("a", "b"));
  EXPECT_THAT(PlaceGang(seats, Ask(1, 3)).workers, ElementsAre("a", "a", "b"));
  EXPECT_THAT(PlaceGang(seats, Ask(1, 9)).workers, SizeIs(4));
}

TEST(PlaceGang, AllOrNothingWithTheReason) {
  const std::vector<Seat> seats = {W("a", 2, 1), W("b", 2, 0)};
  const Placement placed = PlaceGang(seats, Ask(2, 4));
  EXPECT_THAT(placed.workers, IsEmpty());
  EXPECT_EQ(placed.reason, "needs 2 x 1 slots, 1 free of 4");
  EXPECT_FALSE(placed.never);
  EXPECT_TRUE(PlaceGang(seats, Ask(5, 5)).never);
  EXPECT_TRUE(PlaceGang(seats, Ask(1, 1, 3)).never) << "no worker has 3";
}

TEST(PlaceGang, SlotsOfDifferentWorkersDoNotAddUpForARank) {
  const std::vector<Seat> seats = {W("a", 3, 3), W("b", 3, 3)};
  EXPECT_THAT(PlaceGang(seats, Ask(1, 9, 2)).workers, ElementsAre("a", "b"));
}

TEST(PlaceGang, MostFreeFirstAndNeighboursShareAHost) {
  const std::vector<Seat> seats = {W("a", 4, 1, "", 0, "h1"), W("b", 4, 3, "", 0, "h2"),
                                   W("c", 4, 2, "", 0, "h1")};
  EXPECT_THAT(PlaceGang(seats, Ask(1, 1)).workers, ElementsAre("b"));
  EXPECT_THAT(PlaceGang(seats, Ask(1, 3)).workers, ElementsAre("a", "c", "b"));
}

TEST(PlaceGang, OneWorldForMpi) {
  GangRequest request = Ask(2, 4);
  request.one_world = true;
  const std::vector<Seat> seats = {W("a", 9, 9, "x"), W("b", 1, 1, "y"), W("c", 1, 1, "y"),
                                   W("d", 1, 1), W("e", 1, 1)};
  EXPECT_THAT(PlaceGang(seats, request).workers, ElementsAre("a", "a", "a", "a"));
  const std::vector<Seat> split = {W("a", 1, 1, "x"), W("b", 1, 1, "y"), W("d", 1, 1),
                                   W("e", 1, 1)};
  EXPECT_TRUE(PlaceGang(split, request).never) << "workers that no launcher started never meet";
}

TEST(PlaceGang, GpusAndExclusion) {
  GangRequest request = Ask(1, 4);
  request.gpu = true;
  EXPECT_TRUE(PlaceGang({W("a", 1, 1)}, request).never);
  EXPECT_THAT(PlaceGang({W("a", 1, 1), W("b", 1, 1, "", 1)}, request).workers, ElementsAre("b"));
  request.excluded = {"b"};
  const Placement placed = PlaceGang({W("b", 1, 1, "", 1)}, request);
  EXPECT_TRUE(placed.never);
  EXPECT_THAT(placed.reason, testing::HasSubstr("1 workers excluded"));
}

TEST(PlaceGang, WithoutSlotsEveryWorkerWillDoTheLeastLoadedFirst) {
  std::vector<Seat> seats = {W("a", 1, 0), W("b", 1, 0)};
  seats[0].load = 1;
  EXPECT_THAT(PlaceGang(seats, Ask(1, 1, 0)).workers, ElementsAre("b"));
  EXPECT_THAT(PlaceGang({}, Ask(1, 1, 0)).workers, IsEmpty());
}

}  // namespace
}  // namespace lepton::placement
