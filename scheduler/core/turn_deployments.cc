#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/base/hash.h"
#include "scheduler/core/index.h"
#include "scheduler/core/queue.h"
#include "scheduler/core/turn.h"

namespace lepton::scheduler {
namespace {

constexpr int kMaxReplicas = 64;
constexpr int64_t kReplicaBackoffMs = 1'000;
// A replica that lived this long did not fail because of what it serves.
constexpr int64_t kHealthyLifeMs = 60'000;

Status CheckReplicas(int replicas) {
  if (replicas >= 0 && replicas <= kMaxReplicas) return Status::Ok();
  return InvalidArgument(
      fmt::format("replicas: {} is out of range: 0 to {}", replicas, kMaxReplicas));
}

// The first field in which a deployment is another than what is asked for now: "max_batch (8 now, 4
// there)"; empty if none but its replicas.
std::string OtherThan(const Deployment& known, const CreateDeployment& create) {
  if (known.model_manifest() != create.model_manifest) {
    return fmt::format("model ({} is {} now, {} is served)", create.spec.model, create.model,
                       known.model());
  }
  const nlohmann::json now = spec::DeploymentSpecToJson(create.spec);
  const auto there = nlohmann::json::parse(known.spec_json(), nullptr, false);
  for (const auto& [field, value] : now.items()) {
    if (field == "replicas" || field == "model") continue;
    const auto found = there.find(field);
    if (found != there.end() && *found == value) continue;
    return fmt::format("{} ({} now, {} there)", field, value.dump(),
                       found == there.end() ? "none" : found->dump());
  }
  return "";
}

placement::GangRequest ReplicaRequest(uint32_t slots) {
  placement::GangRequest request;
  request.slots = slots;
  return request;
}

}  // namespace

Status Turn::CheckFits(int replicas, uint32_t slots) const {
  const std::vector<placement::Seat> seats = PoolSeats(state_);
  if (seats.empty()) return Status::Ok();  // nobody knows yet how large the pool will be
  placement::GangRequest all = ReplicaRequest(slots);
  all.min_workers = all.max_workers = std::max(replicas, 1);
  const auto placed = placement::PlaceGang(seats, all);
  if (!placed.never) return Status::Ok();
  return FailedPrecondition(fmt::format(
      "replicas: {}: more than this pool has at all: ask for less or add workers", placed.reason));
}

void Turn::On(const CreateDeployment& create) {
  const std::string& name = create.spec.name;
  if (Status status = CheckName("name", name); !status.ok()) return Answer(status);
  if (Status status = CheckReplicas(create.spec.replicas); !status.ok()) return Answer(status);
  if (create.spec.slots_per_replica < 0) {
    return Answer(InvalidArgument("slots_per_replica: must be 0 or more"));
  }
  const std::string spec_json = spec::DeploymentSpecToJson(create.spec).dump();
  if (auto it = state_.deployments.find(name); it != state_.deployments.end()) {
    const Deployment& known = it->second;
    if (known.state() != DEPLOYMENT_ACTIVE) {
      return Answer(AlreadyExists(
          fmt::format("deployment '{}' is being deleted: try again in a moment", name)));
    }
    // But for the number of replicas, which may have changed since: to ask for another is to scale.
    if (std::string other = OtherThan(known, create); !other.empty()) {
      return Answer(AlreadyExists(
          fmt::format("deployment '{}' exists, with another {}: delete it first", name, other)));
    }
    return On(ScaleDeployment{name, create.spec.replicas});
  }
  const auto slots = static_cast<uint32_t>(create.spec.slots_per_replica);
  if (Status status = CheckFits(create.spec.replicas, slots); !status.ok()) return Answer(status);
  Record record;
  Deployment& deployment = *record.mutable_deployment_created();
  deployment.set_name(name);
  deployment.set_spec_json(spec_json);
  deployment.set_replicas(static_cast<uint32_t>(create.spec.replicas));
  deployment.set_slots_per_replica(slots);
  deployment.set_model_manifest(create.model_manifest);
  deployment.set_model(create.model);
  for (const wire::ObjectRef& ref : create.model_objects) *deployment.add_model_objects() = ref;
  deployment.set_replica_token(Sha256Hex(
      fmt::format("{}/deployment/{}/{}", options_.token_secret, name, state_.last_seq + 1)));
  Persist(std::move(record));
  reactor_.dirty_ = true;
  Answer(Status::Ok(), name);
}

DeploymentChanged Turn::ChangeOf(const Deployment& deployment) const {
  DeploymentChanged changed;
  changed.set_name(deployment.name());
  changed.set_state(deployment.state());
  changed.set_replicas(deployment.replicas());
  changed.set_restarts(deployment.restarts());
  changed.set_failures_in_row(deployment.failures_in_row());
  changed.set_retry_at_ms(deployment.retry_at_ms());
  changed.set_error(deployment.error());
  return changed;
}

void Turn::On(const ScaleDeployment& scale) {
  auto it = state_.deployments.find(scale.name);
  if (it == state_.deployments.end() || it->second.state() != DEPLOYMENT_ACTIVE) {
    return Answer(NotFound(fmt::format("no deployment '{}'", scale.name)));
  }
  if (Status status = CheckReplicas(scale.replicas); !status.ok()) return Answer(status);
  const auto replicas = static_cast<uint32_t>(scale.replicas);
  if (replicas == it->second.replicas()) return Answer(Status::Ok(), scale.name, true);
  if (replicas > it->second.replicas()) {
    const Status fits = CheckFits(scale.replicas, it->second.slots_per_replica());
    if (!fits.ok()) return Answer(fits);
  }
  Record record;
  *record.mutable_deployment_changed() = ChangeOf(it->second);
  record.mutable_deployment_changed()->set_replicas(replicas);
  Persist(std::move(record));
  reactor_.dirty_ = true;
  Answer(Status::Ok(), scale.name, true);
}

void Turn::On(const DeleteDeployment& remove) {
  auto it = state_.deployments.find(remove.name);
  if (it == state_.deployments.end()) {
    return Answer(NotFound(fmt::format("no deployment '{}'", remove.name)));
  }
  if (it->second.state() == DEPLOYMENT_DELETING) return Answer(Status::Ok(), remove.name, true);
  Record record;
  *record.mutable_deployment_changed() = ChangeOf(it->second);
  record.mutable_deployment_changed()->set_state(DEPLOYMENT_DELETING);
  record.mutable_deployment_changed()->set_replicas(0);
  Persist(std::move(record));
  reactor_.dirty_ = true;
  Answer(Status::Ok(), remove.name);
}

// Brings the number of replicas to what is wanted, as far as slots and back-off allow.
void Turn::Reconcile(const std::string& name) {
  const Deployment& deployment = state_.deployments.at(name);
  std::vector<const Gang*> living;
  if (auto it = state_.gangs_of_deployment.find(name); it != state_.gangs_of_deployment.end()) {
    for (const std::string& id : it->second) {
      const Gang* gang = state_.FindGang(id);
      if (gang->state() != GANG_STOPPING) living.push_back(gang);
    }
  } else if (deployment.state() == DEPLOYMENT_DELETING) {
    std::vector<std::string> digests;
    ForEachObject(deployment, [&](const std::string& digest) { digests.push_back(digest); });
    Record record;
    record.mutable_deployment_removed()->set_name(name);
    Persist(std::move(record));
    return Forget(digests);
  }
  // The last to serve is the first to go.
  std::sort(living.begin(), living.end(), [](const Gang* a, const Gang* b) {
    const bool a_serves = a->state() == GANG_RUNNING, b_serves = b->state() == GANG_RUNNING;
    return a_serves != b_serves ? a_serves : a->attempt() < b->attempt();
  });
  while (living.size() > deployment.replicas()) {
    const bool deleted = deployment.state() == DEPLOYMENT_DELETING;
    StopGang(living.back()->id(), deleted ? "DELETED" : "SCALED", "one replica too many");
    living.pop_back();
  }
  if (now_ < deployment.retry_at_ms()) return;
  for (size_t have = living.size(); have < deployment.replicas(); ++have) {
    if (!StartReplica(deployment)) return;
  }
}

bool Turn::StartReplica(const Deployment& deployment) {
  placement::GangRequest request = ReplicaRequest(deployment.slots_per_replica());
  // One without a slot of its own would find room where no slot is free.
  for (const WorkerId& id : Away("cpu")) request.excluded.insert(id.str());
  const auto placed =
      placement::PlaceGang(SeatsOf(state_, Away("cpu"), deployment.name()), request);
  if (placed.workers.empty()) return false;
  GangPlan plan;
  plan.gang.set_id(fmt::format("deploy-{}.n{}", deployment.name(), deployment.next_replica()));
  plan.gang.set_deployment(deployment.name());
  plan.gang.set_trial(-1);
  plan.gang.set_kind("infer");
  plan.gang.set_attempt(deployment.next_replica());
  plan.workers = placed.workers;
  plan.slots = deployment.slots_per_replica();
  StartGang(std::move(plan));
  return true;
}

// The first failure in a row is made good at once: requests are waiting.
void Turn::OnReplicaEnded(const Gang& gang, const Verdict& verdict) {
  const Deployment& deployment = state_.deployments.at(gang.deployment());
  if (verdict.kind == Verdict::Kind::kStopped || verdict.kind == Verdict::Kind::kMoved) return;
  if (deployment.state() == DEPLOYMENT_DELETING) return;
  const bool healthy = now_ - gang.placed_ms() >= kHealthyLifeMs;
  const uint32_t in_row = healthy ? 1 : deployment.failures_in_row() + 1;
  Record record;
  DeploymentChanged& changed = *record.mutable_deployment_changed();
  changed = ChangeOf(deployment);
  changed.set_restarts(deployment.restarts() + 1);
  changed.set_failures_in_row(in_row);
  changed.set_retry_at_ms(in_row <= 1
                              ? now_
                              : now_ + BackoffMs(kReplicaBackoffMs, static_cast<int>(in_row) - 1,
                                                 options_.backoff_cap_ms));
  changed.set_error(verdict.kind == Verdict::Kind::kSucceeded ? "a replica ended by itself"
                                                              : verdict.cause);
  Persist(std::move(record));
}

}  // namespace lepton::scheduler
