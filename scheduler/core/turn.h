// One call of Reactor::On: the decisions, by subject. A turn changes the state only through
// Persist. Private to scheduler/core.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "scheduler/core/reactor.h"
#include "scheduler/core/verdict.h"
#include "scheduler/placement/placement.h"

namespace lepton::scheduler {

// Until when a gang that is starting must be up.
int64_t StartDeadline(const Gang& gang, const ReactorOptions& options);
// When an elastic gang may try another seat on a worker where one failed (0: at once), and when it
// next needs a Tick, after the one at `ticked_ms` (the largest: never).
int64_t JoinRetryMs(const Gang& gang, const spec::JobSpec& spec, const ReactorOptions& options);
int64_t ElasticTimer(const Gang& gang, const spec::JobSpec& spec, const ReactorOptions& options,
                     int64_t ticked_ms);
// When a sharded gang's hands are to be looked at again, after `ticked_ms` (the largest: never).
int64_t ShardTimer(const Gang& gang, const Job& job, int64_t ticked_ms);
// What a worker had no place for is placed anew, perhaps there, but not in a tight loop.
inline constexpr int64_t kRefusedRetryMs = 1'000;
// Before a worker gets tasks again whose GPU has failed; doubled each time.
inline constexpr int64_t kBrokenRetryMs = 10'000;
// A job that loses joiners however often it is tried does not try them every few seconds for days:
// so many times the longest other back-off.
inline constexpr int64_t kHopelessTimes = 10;
// What a trial of this search trains, up to the rung that it is at.
Result<spec::JobSpec> TrialSpec(const spec::JobSpec& tune, const Trial& trial);
// base * 2^(restarts - 1), at most `cap`.
int64_t BackoffMs(int64_t base_ms, int restarts, int64_t cap_ms);

class Turn {
 public:
  Turn(Reactor& reactor, const Input& input, Effects& effects);
  void Run();

 private:
  // ---- reactor.cc ----
  void Persist(Record record);
  void Answer(Status status, std::string id = "", bool existed = false);
  // Forgets those of `digests` that nothing refers to any more.
  void Forget(const std::vector<std::string>& digests);
  void On(const Tick&);

  // ---- turn_jobs.cc ----
  void On(const SubmitJob& submit);
  void On(const CancelJob& cancel);
  struct JobChange {
    JobState to = JOB_STATE_UNSPECIFIED;
    std::string reason_code;
    std::string cause;
    std::string error_code;
    std::string error;
    JobState stopping_to = JOB_STATE_UNSPECIFIED;
    int64_t retry_at_ms = 0;
    uint32_t attempts = 0;  // to add
    uint32_t worker_restarts = 0;
    uint32_t task_restarts = 0;
    const JobResult* result = nullptr;
  };
  void MoveJob(const JobId& id, const JobChange& change);
  // To FAILED or CANCELLED, by way of STOPPING while tasks live.
  void StopJob(const JobId& id, JobState to, const std::string& reason_code,
               const std::string& error_code, const std::string& cause);
  void OnJobGangEnded(const Gang& gang, const Verdict& verdict);
  void Succeed(const JobId& id, const JobResult& result);
  void Restart(const JobId& id, const Verdict& verdict);
  void AwaitLauncher(const JobId& id, const std::string& cause);
  void TickJob(const JobId& id);
  void ForgetJobs();
  std::optional<Status> CheckRepeat(const SubmitJob& submit, const std::string& spec_json,
                                    JobId* existing) const;
  // kFailedPrecondition: the pool is known, and has not so many slots at all.
  Status CheckFits(int replicas, uint32_t slots) const;

  // ---- turn_reports.cc ----
  void On(const TaskReported& reported);
  void On(const TasksStoring& storing);
  void OnCheckpointLost(const JobId& id, const std::string& cause);
  void OnLog(const Gang& gang, const Task& task, const wire::TaskLog& log);
  void OnCheckpoint(const Gang& gang);
  void OnTaskEnded(const std::string& gang_id, uint32_t rank, int64_t ended_ms);
  void OnTaskGone(const std::string& gang_id, uint32_t rank, int64_t ended_ms);
  // An elastic gang's others, without a rank that ended so. False when they cannot, or need not.
  bool OthersGoOn(const std::string& gang_id, const Task& task, const Verdict& verdict,
                  int64_t ended_ms);
  void LoseTask(const std::string& task_id, const std::string& cause);
  // A gang in which a task was lost: all at once, after every LoseTask of one event.
  void AfterLoss(const std::set<std::string>& gang_ids, const std::string& stop_code);

  // ---- turn_gangs.cc ----
  void MaybeRunning(const std::string& gang_id);
  void SendGroup(const Gang& gang, const Task& to);
  void SendStop(const Task& task, uint32_t grace_ms, const std::string& reason);
  void StopGang(const std::string& gang_id, const std::string& stop_code, const std::string& cause,
                int trigger_rank = -1);
  // StopGang for a fault: its job is recovering meanwhile.
  void BreakGang(const std::string& gang_id, const std::string& stop_code, const std::string& cause,
                 int trigger_rank);
  void EndGang(const std::string& gang_id);
  void TickGang(const std::string& gang_id);
  // Makes a gang and starts its tasks.
  struct GangPlan {
    Gang gang;  // without tasks
    std::vector<std::string> workers;
    uint32_t slots = 1;
  };
  void StartGang(GangPlan plan);
  // It is to outlive its ranks: all of them are members of its first epoch.
  static void MakeElastic(GangPlan& plan);

  // ---- turn_starts.cc ----
  // May be repeated: a worker ignores the order for a task that it knows.
  void SendStart(const Gang& gang, const Task& task);
  void FillReplica(const Gang& gang, wire::StartTask* start) const;
  void FillRank(const Gang& gang, const Task& task, wire::StartTask* start) const;
  static void FillJoiner(const Gang& gang, wire::StartTask* start);

  // ---- turn_elastic.cc ----
  struct EpochChange {
    std::string reason_code;
    std::string cause;
    int64_t fault_ms = 0;   // 0: now
    bool at_once = true;    // the members do not wait for the end of a step
    bool fault = true;      // counts against restart.max
    int trigger_rank = -1;  // whose end it is
  };
  // True when the gang goes on with those of its members that live.
  bool GoOnWithout(const std::string& gang_id, EpochChange change);
  // The same without a worker's tasks, which end after the next step.
  bool LetLeave(const std::string& gang_id, const WorkerId& worker, const std::string& cause);
  bool HoldsSlices(const Gang& gang) const;  // parallel.zero
  bool StateLeaves(const Gang& gang) const;
  std::vector<uint32_t> NextMembers(const Gang& gang) const;
  // Ends a gang that holds slices, with a checkpoint by all that live.
  void WindDown(const std::string& gang_id, const std::string& stop_code, const std::string& cause,
                int trigger_rank);
  // Adds seats that were never in a group, waiting ones first; false when there is no place.
  bool FillUp(const std::string& gang_id, int missing, std::vector<uint32_t>* members);
  placement::Placement PlaceSeats(const Gang& gang, int least, int most,
                                  const std::set<std::string>& avoided = {}) const;
  // From the order to leave to SIGKILL.
  uint32_t LeaveGraceMs(const Gang& gang) const;
  void LetJoin(const std::string& gang_id);
  void NewEpoch(const std::string& gang_id, const std::vector<uint32_t>& members,
                const EpochChange& change);
  void SendEpoch(const Gang& gang, const Task& task);
  void MaybeForm(const std::string& gang_id);
  void OnListening(const std::string& gang_id, const Task& task,
                   const wire::TaskEndpoint& endpoint);
  // Ranks that have handed over are members no more, whether they know already or not.
  void LetGo(const std::string& gang_id, const wire::TaskEndpoint& endpoint);
  // Places and starts `least` to `most` further seats, on none of the `avoided` workers; none when
  // there is no place.
  std::vector<uint32_t> AddSeats(const std::string& gang_id, int least, int most,
                                 const std::set<std::string>& avoided = {});
  void ServeJoins();
  bool OthersWait(const std::string& device) const;
  void TickElastic(const std::string& gang_id);

  // ---- turn_shards.cc ----
  // Deals what is undone, and tells those whose hands changed, and `tell`. Nothing of a gang that
  // stops, or is not sharded.
  void DealHands(const std::string& gang_id, std::set<uint32_t> tell);
  void SendShards(const Gang& gang, const Task& task);
  void FailShard(const std::string& gang_id, int shard);
  void OnShardsReady(const std::string& gang_id, uint32_t seat);
  // `others` had it too.
  void OnShardDone(const std::string& gang_id, uint32_t seat, const wire::TaskShardDone& done,
                   std::set<uint32_t> others);
  std::set<uint32_t> OthersWith(const Gang& gang, const Task& task, uint32_t shard) const;
  void FinishShards(const JobId& id, const std::string& object, uint64_t bytes);
  void On(const ShardsStored& stored);

  // ---- turn_unreachable.cc ----
  // True when members of a forming gang cannot reach each other, and some of them go for it.
  bool PartUnreachable(const std::string& gang_id);
  // The same for a seat that would join.
  bool RefuseUnreachable(const std::string& gang_id, uint32_t seat);
  // Remembers these pairs of seats.
  void RecordCuts(const std::string& gang_id,
                  const std::vector<std::pair<uint32_t, uint32_t>>& pairs,
                  const std::vector<uint32_t>& leaving);
  // `at_once`: without meeting the others again, though it holds slices.
  void TellToLeave(const Task& task, const std::string& cause, bool at_once);
  void SendLeave(const Task& task, const std::string& cause);

  // ---- turn_schedule.cc ----
  void Schedule();
  void ServeQueue(const std::string& device);
  // False when the job must wait for slots.
  bool ServeJob(const JobId& id);
  bool ServeTune(const JobId& id);
  void StartJob(const JobId& id, const placement::Placement& placed);
  std::set<WorkerId> Away(const std::string& device) const;
  std::string DeviceOf(const Gang& gang) const;
  void PutOffAfter(const Gang& gang, const Task& task);

  // ---- turn_trials.cc ----
  struct TrialChange {
    TrialState to = TRIAL_STATE_UNSPECIFIED;
    std::string reason_code;
    std::string cause;
    std::string error_code;
    std::string error;
    int64_t retry_at_ms = 0;
    uint32_t attempts = 0;
    uint32_t worker_restarts = 0;
    uint32_t task_restarts = 0;
    const JobResult* result = nullptr;
  };
  void MoveTrial(const JobId& id, int trial, const TrialChange& change);
  void AskSearcher(const JobId& id);
  void TellSearcher(const JobId& id, int trial, std::optional<double> value);
  bool StartTrial(const JobId& id, int trial, const placement::Placement& placed);
  void OnTrialGangEnded(const Gang& gang, const Verdict& verdict);
  void FinishTrial(const JobId& id, int trial, const Gang& gang);
  void FailTrial(const JobId& id, int trial, const std::string& reason_code,
                 const std::string& error_code, const std::string& error);
  void MaybeEndTune(const JobId& id);
  // The search is over: keeps the best trial's model only.
  void LetTrialsGo(const JobId& id);

  // ---- turn_deployments.cc ----
  void On(const CreateDeployment& create);
  void On(const ScaleDeployment& scale);
  void On(const DeleteDeployment& remove);
  void Reconcile(const std::string& name);
  bool StartReplica(const Deployment& deployment);
  void OnReplicaEnded(const Gang& gang, const Verdict& verdict);
  DeploymentChanged ChangeOf(const Deployment& deployment) const;

  // ---- turn_workers.cc ----
  void On(const WorkerHello& hello);
  // Once no worker is unconfirmed: that there was no coordinator, to every job that it concerns.
  void MaybeTellAbsence();
  void On(const WorkerLost& lost);
  void On(const WorkerLeaving& leaving);
  void On(const DrainWorker& drain);
  void LoseWorker(const WorkerId& id, const std::string& reason);
  std::set<std::string> GangsOn(const WorkerId& worker) const;
  uint32_t DrainGraceMs(const WorkerId& worker) const;
  void TickWorkers();

  // ---- turn_catalog.cc ----
  void On(const CreateDataset& create);
  void On(const RegisterModel& registered);
  void On(const SetAlias& set);
  void RegisterResult(const Job& job, const JobResult& result);

  const State& state() const { return state_; }

  Reactor& reactor_;
  const ReactorOptions& options_;
  State& state_;
  const Input& input_;
  Effects& effects_;
  const int64_t now_;
};

}  // namespace lepton::scheduler
