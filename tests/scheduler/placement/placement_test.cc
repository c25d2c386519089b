#include "scheduler/placement/placement.h"

#include <gmock/gmock.h>

namespace lepton::placement {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

Seat W(const std::string& name, uint32_t slots, uint32_t free, const std::string& world = "",
       uint32_t gpus = 0, const std::string& host = "") {
  Seat seat;
  seat.worker = name;
  seat.host = host.empty() ? "host-" + name : host;
  seat.world = world;
  seat.slots = slots;
  seat.free = free;
  seat.gpus = gpus;
  return seat;
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

// As many workers as a launcher began, named after their world and a number.
std::vector<Seat> World(const std::string& name, uint32_t size, uint32_t slots = 1) {
  std::vector<Seat> seats;
  for (uint32_t i = 0; i < size; ++i) {
    seats.push_back(W(name + std::to_string(i), slots, slots, name));
    seats.back().world_size = size;
  }
  return seats;
}

std::vector<Seat> operator+(std::vector<Seat> a, const std::vector<Seat>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

GangRequest AskWorld(int least, int most, uint32_t slots = 1) {
  GangRequest request = Ask(least, most, slots);
  request.whole_world = true;
  return request;
}

TEST(PlaceGangByMpi, AllWorkersOfOneLauncherOneRankOnEach) {
  const std::vector<Seat> seats = World("x", 2, 9) + World("y", 3, 2) + World("z", 4);
  EXPECT_THAT(PlaceGang(seats, AskWorld(1, 3)).workers, ElementsAre("y0", "y1", "y2"));
  EXPECT_THAT(PlaceGang(seats, AskWorld(1, 2)).workers, ElementsAre("x0", "x1"));
  EXPECT_THAT(PlaceGang(seats, AskWorld(2, 9)).workers, SizeIs(4)) << "not twice on a worker";
  EXPECT_THAT(PlaceGang(seats, AskWorld(2, 9, 2)).workers, SizeIs(3)) << "z has no slots for it";
}

TEST(PlaceGangByMpi, WhatNoWorldCanBeSaysWhy) {
  const auto never = [](const std::vector<Seat>& seats, const GangRequest& request) {
    const Placement placed = PlaceGang(seats, request);
    EXPECT_THAT(placed.workers, IsEmpty());
    EXPECT_TRUE(placed.never);
    return placed.reason;
  };
  const std::string needs = "needs all of an mpirun or srun of 2 to 3 workers, 1 slot on each";
  EXPECT_EQ(never({W("a", 9, 9), W("b", 9, 9)}, AskWorld(2, 3)),
            needs + "; no worker was started by either");
  EXPECT_EQ(never(World("x", 1, 9) + World("y", 4), AskWorld(2, 3)),
            needs + "; one has 1; one has 4");
  std::vector<Seat> seats = World("x", 3);
  seats.pop_back();
  EXPECT_EQ(never(seats, AskWorld(2, 3)), needs + "; of one of 3 only 2 may be used");
  GangRequest request = AskWorld(2, 3);
  request.excluded = {"x1"};
  EXPECT_EQ(never(World("x", 2), request),
            needs + "; of one of 2 only 1 may be used, 1 workers excluded");
  EXPECT_EQ(never(World("x", 2), AskWorld(2, 2, 2)),
            "needs all of an mpirun or srun of 2 workers, 2 slots on each; one of 2 has a "
            "worker of fewer slots");
}

TEST(PlaceGangByMpi, ItWaitsForAWorldThatIsInUse) {
  std::vector<Seat> seats = World("x", 2, 2);
  seats[1].free = 0;
  const Placement full = PlaceGang(seats, AskWorld(2, 2));
  EXPECT_FALSE(full.never);
  EXPECT_THAT(full.reason, HasSubstr("; one of 2 has not so many slots free"));
  seats[1].free = 1;
  seats[0].world_in_use = true;
  const Placement placed = PlaceGang(seats, AskWorld(2, 2));
  EXPECT_THAT(placed.workers, IsEmpty());
  EXPECT_FALSE(placed.never);
  EXPECT_THAT(placed.reason, HasSubstr("; one of 2 is in use by another gang's MPI"));
  EXPECT_THAT(PlaceGang(seats, Ask(2, 2)).workers, SizeIs(2)) << "others need no world";
}

TEST(PlaceGang, GpusAndExclusion) {
  GangRequest request = Ask(1, 4);
  request.gpu = true;
  EXPECT_TRUE(PlaceGang({W("a", 1, 1)}, request).never);
  EXPECT_THAT(PlaceGang({W("a", 1, 1), W("b", 1, 1, "", 1)}, request).workers, ElementsAre("b"));
  request.excluded = {"b"};
  const Placement placed = PlaceGang({W("b", 1, 1, "", 1)}, request);
  EXPECT_TRUE(placed.never);
  EXPECT_THAT(placed.reason, HasSubstr("1 workers excluded"));
}

TEST(PlaceGang, RanksThatNeedAGpuEachAreNoMoreThanThese) {
  GangRequest request = Ask(1, 8);
  request.gpu = request.gpu_each = true;
  std::vector<Seat> seats = {W("a", 64, 64, "", 4), W("b", 1, 1, "", 4)};
  EXPECT_THAT(PlaceGang(seats, request).workers, ElementsAre("a", "a", "a", "a", "b"));
  seats[0].gang_ranks = 3;
  EXPECT_THAT(PlaceGang(seats, request).workers, ElementsAre("a", "b"));
  seats = {W("a", 64, 64, "", 4)};
  request.min_workers = 5;
  const Placement placed = PlaceGang(seats, request);
  EXPECT_TRUE(placed.never);
  EXPECT_EQ(placed.reason, "needs 5 x 1 slots with a GPU each, 64 free of 64, 4 GPUs");
}

TEST(PlaceGang, WithoutSlotsEveryWorkerWillDoTheLeastLoadedFirst) {
  std::vector<Seat> seats = {W("a", 1, 0), W("b", 1, 0)};
  seats[0].load = 1;
  EXPECT_THAT(PlaceGang(seats, Ask(1, 1, 0)).workers, ElementsAre("b"));
  EXPECT_THAT(PlaceGang({}, Ask(1, 1, 0)).workers, IsEmpty());
}

}  // namespace
}  // namespace lepton::placement
