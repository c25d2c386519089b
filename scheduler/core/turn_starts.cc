// Orders to start tasks. All that an order says is in the state, so that one that was lost can be
// said again.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/base/hash.h"
#include "scheduler/core/elastic.h"
#include "scheduler/core/queue.h"
#include "scheduler/core/turn.h"

namespace lepton::scheduler {
namespace {

// The first 16 bytes of a SHA-256.
std::string GroupToken(const std::string& secret, const std::string& gang_id) {
  const std::string hex = Sha256Hex(secret + "/gang/" + gang_id);
  std::string token;
  for (size_t i = 0; i < 32; i += 2) {
    token += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return token;
}

}  // namespace

Result<spec::JobSpec> TrialSpec(const spec::JobSpec& tune, const Trial& trial) {
  LEPTON_ASSIGN_OR_RETURN(spec::JobSpec spec,
                          spec::ApplyTrial(tune, {trial.values().begin(), trial.values().end()}));
  // The schedule is that of a whole training; only where to stop differs from rung to rung.
  spec.labels[spec.steps > 0 ? "lepton.stop_at_step" : "lepton.stop_at_epoch"] =
      std::to_string(trial.budget());
  return spec;
}

void Turn::SendStart(const Gang& gang, const Task& task) {
  wire::StartTask start;
  start.set_task_id(task.id());
  start.set_rank(task.rank());
  start.set_attempt(gang.attempt());
  start.set_kind(gang.kind());
  start.set_size(static_cast<uint32_t>(gang.tasks_size()));
  start.set_group_token(GroupToken(options_.token_secret, gang.id()));
  start.set_epoch(gang.elastic() ? gang.epoch() : gang.attempt());
  start.set_slots(std::max(task.slots(), 1u));
  start.set_no_slot(task.slots() == 0);
  start.set_bf16_sums(gang.bf16_sums());
  start.set_stop_grace_ms(options_.stop_grace_ms);
  if (gang.job_id().empty()) {
    FillReplica(gang, &start);
  } else {
    FillRank(gang, task, &start);
  }
  effects_.Start(WorkerId(task.worker_id()), start);
}

void Turn::FillReplica(const Gang& gang, wire::StartTask* start) const {
  const Deployment& deployment = state_.deployments.at(gang.deployment());
  start->set_deployment(gang.deployment());
  // The replica answers as the version that it serves, not as the alias that it was asked for by.
  auto spec = nlohmann::json::parse(deployment.spec_json());
  if (!deployment.model().empty()) spec["model"] = deployment.model();
  start->set_spec_json(spec.dump());
  start->set_model_manifest(deployment.model_manifest());
  for (const wire::ObjectRef& ref : deployment.model_objects()) *start->add_inputs() = ref;
  start->set_replica_token(deployment.replica_token());
  start->set_replica_bind(options_.replica_bind);
}

void Turn::FillRank(const Gang& gang, const Task& task, wire::StartTask* start) const {
  const Job& job = state_.jobs.at(JobId(gang.job_id()));
  const spec::JobSpec& spec = state_.Spec(JobId(job.id()));
  start->set_job_id(job.id());
  start->set_spec_json(job.spec_json());
  const auto* checkpoints = &job.checkpoints();
  if (gang.trial() >= 0) {
    const Trial& trial = job.trials(gang.trial());
    // It was tried before the gang was made.
    if (const auto its = TrialSpec(spec, trial); its.ok()) {
      start->set_spec_json(spec::JobSpecToJson(*its).dump());
    }
    checkpoints = &trial.checkpoints();
  }
  // A joiner has the state from its peers.
  if (!task.joins()) start->set_resume_checkpoint(gang.resume_checkpoint());
  const google::protobuf::RepeatedPtrField<Checkpoint> none;
  FillInputs(job.inputs(), start->resume_checkpoint().empty() ? none : *checkpoints, start);
  start->set_elastic(gang.elastic());
  start->set_sharded(gang.sharded());
  start->set_gpu(UsesGpu(spec));
  if (task.joins()) FillJoiner(gang, start);
  if (!IsTraining(spec) && !gang.sharded()) return;
  const int64_t budget = BudgetMs(spec);
  if (!gang.sharded()) start->set_leave_grace_ms(static_cast<uint32_t>(budget));
  if (!gang.elastic() && gang.tasks_size() == 1) return;
  // Those that wait for one that hangs would not know it from a slow one.
  start->set_pulse_ms(static_cast<uint32_t>(std::max<int64_t>(5, budget / 20)));
  start->set_hang_ms(static_cast<uint32_t>(budget / 2));
}

void Turn::FillJoiner(const Gang& gang, wire::StartTask* start) {
  start->set_joins(true);
  start->set_epoch(gang.epoch() + 1);
  for (const uint32_t seat : gang.members()) {
    const Task& member = gang.tasks(static_cast<int>(seat));
    if (!IsUp(member) || member.endpoint().empty()) continue;
    wire::Member& probe = *start->add_probe();
    probe.set_seat(seat);
    probe.set_host(member.host());
    probe.set_address(member.endpoint());
  }
}

}  // namespace lepton::scheduler
