// Sharded gangs in the reactor: deaths, joins, leaves, stragglers, restarts of the coordinator and
// of the job, and the end.
#include <gmock/gmock.h>

#include "scheduler/core/elastic.h"
#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// `ranks` on as many workers of one slot, 8 shards of 10 rows but for the last, of 5.
class ShardedGang : public testing::Test {
 protected:
  void Place(int ranks, int max_workers = 0) {
    for (int i = 0; i < ranks; ++i) sim.Hello("w" + std::to_string(i));
    id = sim.Submit(Sim::Batch(1, max_workers > 0 ? max_workers : ranks));
  }
  void Start(int ranks, int max_workers = 0) {
    Place(ranks, max_workers);
    for (int seat = 0; seat < ranks; ++seat) Take(seat);
  }
  void Take(int seat) {
    sim.Started(Seat(seat));
    sim.ShardsReady(Seat(seat), 75, 10);
  }
  std::string Seat(int seat) const {
    return id + ".a" + std::to_string(attempt) + ".r" + std::to_string(seat);
  }
  const Gang& gang() const { return *sim.state().FindGang(id + ".a" + std::to_string(attempt)); }
  std::vector<uint32_t> HandOf(int seat) const {
    const auto& shards = gang().tasks(seat).shards();
    return {shards.begin(), shards.end()};
  }
  // Seat -> what it was told by the last input.
  std::map<std::string, std::vector<uint32_t>> Told() const {
    std::map<std::string, std::vector<uint32_t>> told;
    for (const auto& [worker, order] : sim.out.shards) {
      told[order.task_id()] = {order.shards().begin(), order.shards().end()};
    }
    return told;
  }
  const Shards& shards() const { return sim.job(id).shards(); }
  std::string LastEvent() const { return sim.job(id).events().rbegin()->cause(); }
  // The seat that has it does it.
  void DoAll() {
    for (int round = 0; round < 100; ++round) {
      bool any = false;
      for (int seat = 0; seat < gang().tasks_size(); ++seat) {
        if (HandOf(seat).empty()) continue;
        sim.ShardDone(Seat(seat), HandOf(seat)[0]);
        any = true;
      }
      if (!any) return;
    }
  }
  Sim sim;
  std::string id;
  int attempt = 1;
};

TEST_F(ShardedGang, TheFirstRankThatIsReadyBeginsAndTheOthersTakeHalves) {
  Place(2);
  ASSERT_THAT(sim.out.starts, SizeIs(2));
  EXPECT_TRUE(sim.out.starts[0].second.sharded());
  EXPECT_GT(sim.out.starts[0].second.hang_ms(), 0u) << "a rank that hangs is killed";
  Take(1);
  EXPECT_EQ(sim.StateOf(id), "RUNNING") << "nobody waits for the other";
  EXPECT_THAT(HandOf(1), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_EQ(sim.out.shards[0].second.rows(), 75);
  EXPECT_EQ(sim.out.shards[0].second.shard_rows(), 10);
  Take(0);
  EXPECT_THAT(HandOf(1), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(HandOf(0), ElementsAre(4, 5, 6, 7));
  EXPECT_EQ(Told().size(), 2u);
}

TEST_F(ShardedGang, AllDoneIsStoredAndTheRanksAreLetGo) {
  Start(2);
  wire::TaskReport report;
  report.mutable_shard_done()->set_shard(4);
  report.mutable_shard_done()->set_object("s4");
  report.mutable_shard_done()->set_tokens(2);
  report.mutable_shard_done()->set_loss(6);
  sim.Report(Seat(1), report);
  DoAll();
  EXPECT_EQ(shards().done(), 8u);
  EXPECT_EQ(shards().rows_done(), 75);
  EXPECT_EQ(sim.job(id).progress().step(), 75u);
  EXPECT_EQ(sim.StateOf(id), "RUNNING") << "until the file is durable";
  sim.Stored(id, "all");
  EXPECT_THAT(sim.out.stops, SizeIs(2));
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  const JobResult& result = sim.job(id).result();
  EXPECT_EQ(result.files().at("predictions.csv"), "all");
  EXPECT_EQ(result.metrics().at("rows"), 75);
  EXPECT_EQ(result.metrics().at("loss"), 3);
  EXPECT_TRUE(sim.state().ObjectInUse("all"));
  EXPECT_FALSE(sim.state().ObjectInUse("s3")) << "the parts are of no use any more";
  EXPECT_EQ(sim.job(id).attempt(), 1u);
}

TEST_F(ShardedGang, AStoreWithoutRoomForTheFileCostsNothingThatIsDone) {
  Start(2);
  DoAll();
  ShardsStored stored;
  stored.job = JobId(id);
  stored.status = ResourceExhausted("no space left on device");
  for (int times = 0; times < 3; ++times) {
    sim.On(stored);
    EXPECT_EQ(sim.StateOf(id), "RUNNING");
    EXPECT_TRUE(sim.state().ObjectInUse("s3"));
  }
  int told = 0;
  for (const Event& event : sim.job(id).events()) told += event.reason_code() == "NOT_STORED";
  EXPECT_EQ(told, 1);
  sim.Stored(id, "all");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
}

// Its process has ended, and the last that it did is on its way.
TEST_F(ShardedGang, ARankThatIsGoneIsDealtNothingAndOthersTakeWhatItHad) {
  Start(2);
  const std::vector<uint32_t> had = HandOf(1);
  ASSERT_THAT(had, SizeIs(4));
  sim.Gone(Seat(1), "ABORTED", 9);
  EXPECT_THAT(HandOf(0), SizeIs(8)) << "at once";
  EXPECT_THAT(Told(), SizeIs(1));
  sim.ShardDone(Seat(0), 0);
  EXPECT_THAT(Told(), IsEmpty());
  // What it had done counts, and it died of the next.
  sim.ShardDone(Seat(1), had[0]);
  EXPECT_EQ(shards().done(), 2u);
  EXPECT_THAT(HandOf(0), SizeIs(6));
  for (const uint32_t shard : {1, 2, 3}) sim.ShardDone(Seat(0), shard);
  EXPECT_EQ(HandOf(0)[0], had[1]);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  EXPECT_EQ(shards().results(static_cast<int>(had[1])).deaths(), 1u);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

// What another has done by then did not kill it.
TEST_F(ShardedGang, ADeathIsCountedAgainstWhatTheRankWasIn) {
  Start(2);
  sim.Gone(Seat(1), "ABORTED", 9);
  for (uint32_t shard = 0; shard < 8; ++shard) sim.ShardDone(Seat(0), shard);
  EXPECT_EQ(shards().done(), 8u);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  for (const ShardResult& result : shards().results()) EXPECT_EQ(result.deaths(), 0u);
}

TEST_F(ShardedGang, WhoIsLeftAloneByOneThatIsGoneHasAllOfIt) {
  Start(1);
  sim.Gone(Seat(0), "ABORTED", 9);
  EXPECT_THAT(sim.out.shards, IsEmpty());
  sim.ShardDone(Seat(0), 0);
  EXPECT_THAT(sim.out.shards, IsEmpty());
  sim.Finish(Seat(0), "ABORTED", "", 9);
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  EXPECT_EQ(shards().done(), 1u);
}

TEST_F(ShardedGang, ADeadRanksShardsGoToTheLivingAtOnceAndNothingDoneIsDoneAgain) {
  Start(3);
  sim.ShardDone(Seat(0), HandOf(0)[0]);
  const std::vector<uint32_t> mine = HandOf(0);
  const size_t taken = HandOf(1).size();
  sim.now += 40;
  sim.Finish(Seat(1), "ABORTED", "", 9);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  EXPECT_EQ(gang().epoch(), 2u);
  EXPECT_THAT(HandOf(1), IsEmpty());
  EXPECT_EQ(HandOf(0)[0], mine[0]) << "what is in progress goes on";
  EXPECT_EQ(HandOf(0).size() + HandOf(2).size(), 7u);
  EXPECT_EQ(shards().taken_over(), taken);
  EXPECT_THAT(sim.out.groups, IsEmpty()) << "nobody has to meet anybody";
  EXPECT_THAT(sim.out.stops, IsEmpty());
  const Job& job = sim.job(id);
  ASSERT_THAT(job.recoveries(), SizeIs(1));
  EXPECT_EQ(job.recoveries(0).reason_code(), "RANK_LOST");
  EXPECT_EQ(job.recoveries(0).ranks(), 2u);
  EXPECT_THAT(job.recoveries(0).cause(), HasSubstr("rank 1 on worker w1: killed by signal 9"));
  // Also below min_workers, and until the last.
  sim.Finish(Seat(2), "ABORTED", "", 9);
  EXPECT_THAT(HandOf(0), SizeIs(7));
  DoAll();
  sim.Stored(id);
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(sim.job(id).attempt(), 1u);
}

TEST_F(ShardedGang, AJoinerTakesShardsAsSoonAsItIsReady) {
  Start(1, 3);
  EXPECT_THAT(HandOf(0), SizeIs(8));
  sim.Hello("w1");
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_TRUE(sim.out.starts[0].second.joins());
  sim.Started(Seat(1));
  EXPECT_THAT(HandOf(0), SizeIs(8)) << "not before it is ready";
  sim.ShardsReady(Seat(1), 75, 999);
  EXPECT_THAT(HandOf(0), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(HandOf(1), ElementsAre(4, 5, 6, 7));
  EXPECT_EQ(sim.out.shards[0].second.shard_rows(), 10) << "the first rank's cut rules";
  EXPECT_EQ(sim.job(id).recoveries(0).reason_code(), "RANK_JOINS");
  // Nobody is asked to join for the last shards.
  DoAll();
  sim.Hello("w2");
  EXPECT_THAT(sim.out.starts, IsEmpty());
}

TEST_F(ShardedGang, AJoinerWhosePeersAllDiedGoesOnAlone) {
  Start(1, 2);
  sim.ShardDone(Seat(0), 0);
  sim.Hello("w1");
  sim.Started(Seat(1));
  sim.Finish(Seat(0), "ABORTED", "", 9);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  sim.ShardsReady(Seat(1), 75, 10);
  EXPECT_THAT(HandOf(1), SizeIs(7));
}

TEST_F(ShardedGang, AStragglersShardIsDoneByAnotherAndTheFirstCounts) {
  Start(2);
  for (int i = 0; i < 7; ++i) {
    sim.now += 100;
    const int seat = HandOf(1).empty() ? 0 : 1;
    if (seat == 0) break;
    sim.ShardDone(Seat(1), HandOf(1)[0]);
  }
  EXPECT_THAT(HandOf(0), ElementsAre(0)) << "it has done nothing, and all but that was taken";
  sim.Pass(200);
  EXPECT_THAT(HandOf(1), ElementsAre(0));
  EXPECT_THAT(LastEvent(), HasSubstr("rank 0 on worker w0 has shard 0 for"));
  EXPECT_THAT(LastEvent(), HasSubstr("rank 1 on worker w1 does it too"));
  sim.ShardDone(Seat(1), 0);
  EXPECT_EQ(shards().done(), 8u);
  EXPECT_EQ(Told().at(Seat(0)), std::vector<uint32_t>()) << "it may let go";
  sim.ShardDone(Seat(0), 0);
  EXPECT_EQ(shards().done(), 8u);
  EXPECT_EQ(shards().done_twice(), 1u);
  EXPECT_EQ(shards().differing(), 0u);
  EXPECT_EQ(shards().rows_done(), 75);
}

TEST_F(ShardedGang, OtherBytesForTheSameShardAreToldOfAndDropped) {
  Start(2);
  sim.ShardDone(Seat(0), 3, "right");
  sim.ShardDone(Seat(1), 3, "wrong");
  EXPECT_EQ(shards().differing(), 1u);
  EXPECT_EQ(shards().results(3).object(), "right");
  EXPECT_THAT(sim.out.forgotten, ElementsAre("wrong"));
  EXPECT_THAT(LastEvent(), HasSubstr("shard 3 by rank 1 on worker w1 has other bytes"));
}

TEST_F(ShardedGang, TheCoordinatorsDeathLosesNoShardAndTellsEachRankWhatItHas) {
  Start(2);
  sim.ShardDone(Seat(0), 4);
  sim.TakeSnapshot();
  sim.ShardDone(Seat(0), 5);
  const auto mine = HandOf(0), others = HandOf(1);
  sim.Restart();
  sim.Hello("w0", 1, "i1", {Seat(0)});
  EXPECT_EQ(Told().at(Seat(0)), mine);
  sim.Hello("w1", 1, "i1", {Seat(1)});
  EXPECT_EQ(Told().at(Seat(1)), others);
  EXPECT_EQ(shards().done(), 2u);
  EXPECT_EQ(gang().epoch(), 1u);
}

TEST_F(ShardedGang, ARestartOfTheJobGoesOnWithWhatIsUndone) {
  Start(2);
  sim.ShardDone(Seat(0), 4);
  sim.ShardDone(Seat(1), 0);
  sim.Lose("w0");
  sim.Lose("w1");
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  sim.Pass(60'000);
  sim.Hello("w2");
  attempt = 2;
  ASSERT_EQ(sim.StateOf(id), "STARTING");
  Take(0);
  EXPECT_THAT(HandOf(0), ElementsAre(1, 2, 3, 5, 6, 7));
  EXPECT_EQ(sim.job(id).progress().step(), 20u);
  bool told = false;
  for (const Event& event : sim.job(id).events()) {
    told = told || event.cause() == "75 rows in 8 shards of 10, of which 2 are done";
  }
  EXPECT_TRUE(told);
}

TEST_F(ShardedGang, AllDieAfterTheLastShardAndTheNextGangFindsTheFile) {
  Start(1);
  DoAll();
  sim.Finish(Seat(0), "ABORTED", "", 9);
  sim.Stored(id, "all");
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  sim.Pass(60'000);
  attempt = 2;
  Take(0);
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(sim.job(id).result().files().at("predictions.csv"), "all");
}

TEST_F(ShardedGang, ADrainedWorkersRankKeepsWhatItHasBegunOnly) {
  Start(2);
  sim.On(DrainWorker{WorkerId("w0"), "maintenance"});
  EXPECT_THAT(HandOf(0), SizeIs(1));
  EXPECT_THAT(HandOf(1), SizeIs(7));
  EXPECT_EQ(shards().taken_over(), 3u);
  ASSERT_THAT(sim.out.stops, SizeIs(1));
  EXPECT_TRUE(sim.out.stops[0].second.alone());
  sim.ShardDone(Seat(0), 4);
  sim.Finish(Seat(0), "CANCELLED", "left");
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  EXPECT_EQ(sim.job(id).recoveries(0).reason_code(), "RANK_LEAVES");
  EXPECT_THAT(HandOf(1), SizeIs(7));
  EXPECT_EQ(shards().results(4).deaths(), 0u);
}

TEST_F(ShardedGang, TheLastWorkersDrainMovesTheJob) {
  Start(1);
  sim.ShardDone(Seat(0), 0);
  sim.On(DrainWorker{WorkerId("w0"), "maintenance"});
  sim.StopAll();
  sim.Hello("w9");
  attempt = 2;
  Take(0);
  EXPECT_THAT(HandOf(0), SizeIs(7));
  EXPECT_EQ(sim.job(id).worker_restarts(), 0u) << "a drain is no fault";
}

TEST_F(ShardedGang, AShardThatKillsWhoeverTriesItFailsTheJobByItsRows) {
  Place(1);
  for (int death = 0; death < 20 && sim.StateOf(id) != "FAILED"; ++death) {
    Take(0);
    // All else is done, and then the one.
    while (HandOf(0).size() > 1) sim.ShardDone(Seat(0), HandOf(0)[1]);
    sim.Finish(Seat(0), "ABORTED", "", 11);
    sim.Pass(60'000);
    ++attempt;
  }
  EXPECT_EQ(sim.StateOf(id), "FAILED");
  EXPECT_THAT(sim.job(id).error(),
              testing::AnyOf(HasSubstr("shard 0 (rows 0 to 9"), HasSubstr("restart.max")));
}

TEST_F(ShardedGang, AShardThatKillsRanksOfALargeGangIsNamed) {
  Start(8, 8);
  // Others go on, so that the faults are not in a row.
  int last = 7;
  for (int death = 0; death < 6; ++death) {
    int seat = 0;
    while (HandOf(seat).empty() || HandOf(seat)[0] != 2) ++seat;
    sim.Finish(Seat(seat), "ABORTED", "", 11);
    if (sim.StateOf(id) != "RUNNING") break;
    Take(++last);
    for (int other = 0; other <= last; ++other) {
      if (HandOf(other).empty() || HandOf(other)[0] == 2) continue;
      sim.ShardDone(Seat(other), HandOf(other)[0]);
      break;
    }
  }
  EXPECT_EQ(sim.StateOf(id), "STOPPING");
  EXPECT_THAT(sim.job(id).error(),
              HasSubstr("shard 2 (rows 20 to 29 of the output): 6 ranks died"));
}

TEST_F(ShardedGang, AShardThatCannotBeStoredCostsItsRankAndGoesElsewhere) {
  Start(2);
  wire::TaskReport report;
  report.mutable_shard_done()->set_shard(0);
  report.mutable_shard_done()->set_error_code("DATA_LOSS");
  report.mutable_shard_done()->set_error("the object is not what it was");
  sim.Report(Seat(0), report);
  EXPECT_EQ(shards().done(), 0u);
  EXPECT_THAT(HandOf(1), SizeIs(8));
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

TEST_F(ShardedGang, ASpoiledShardIsDoneAgain) {
  Start(1);
  DoAll();
  ShardsStored stored;
  stored.job = JobId(id);
  stored.status = DataLoss("object s5 is not what it was");
  stored.bad_shard = 5;
  sim.On(stored);
  EXPECT_THAT(HandOf(0), ElementsAre(5));
  EXPECT_EQ(shards().rows_done(), 65);
  EXPECT_FALSE(sim.state().ObjectInUse("s5"));
  sim.Stored(id, "too early");
  EXPECT_TRUE(shards().file().empty());
}

TEST_F(ShardedGang, CancelStopsAllAndKeepsNothing) {
  Start(2);
  sim.ShardDone(Seat(0), 4);
  sim.On(CancelJob{JobId(id), "enough"});
  EXPECT_THAT(sim.out.stops, SizeIs(2));
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "CANCELLED");
  EXPECT_FALSE(sim.state().ObjectInUse("s4"));
  EXPECT_EQ(shards().done(), 1u) << "how far it came is still known";
}

TEST_F(ShardedGang, WithRecoveryByRestartTheGangStartsAgainFromItsShards) {
  for (int i = 0; i < 2; ++i) sim.Hello("w" + std::to_string(i));
  spec::JobSpec spec = Sim::Batch(1, 2);
  spec.elastic.recovery = "restart";
  id = sim.Submit(spec);
  Take(0);
  Take(1);
  sim.ShardDone(Seat(0), HandOf(0)[0]);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  sim.StopAll();
  sim.Pass(60'000);
  attempt = 2;
  Take(0);
  EXPECT_THAT(HandOf(0), SizeIs(7));
}

TEST_F(ShardedGang, PaceSaysHowLongTheRestTakes) {
  Start(1);
  for (uint32_t i = 0; i < 5; ++i) {
    sim.now += 500;
    sim.ShardDone(Seat(0), i);
  }
  EXPECT_DOUBLE_EQ(sim.job(id).progress().samples_per_second(), 20);
}

}  // namespace
}  // namespace lepton::scheduler
