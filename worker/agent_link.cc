// The agent's side of the protocol: Hello, heartbeats, reports and their acknowledgement.
#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "runtime/base/config.h"
#include "runtime/base/logging.h"
#include "worker/agent_loop.h"
#include "worker/host_info.h"

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;

// A restarted worker under its old name waits until the coordinator gives the old one up.
constexpr Duration kRefusedRetry = milliseconds(500);
// Without a connection: how often to look for the coordinator's address, and to say that it is
// away.
constexpr Duration kLookEvery = std::chrono::seconds(1);
constexpr Duration kQuiet = std::chrono::seconds(5);
constexpr Duration kComplainEvery = std::chrono::minutes(1);

}  // namespace

Status Agent::Loop::OpenChannel() {
  wire::DealerChannel::ConnectionHandlers connection;
  connection.on_connected = [this] {
    objects_->OnDisconnected();
    Post([this] { OnConnected(); });
  };
  connection.on_rejected = [this](Status status) {
    Post([this, status = std::move(status)] { OnRejected(status); });
  };
  const auto handler = [this](wire::ToWorker message) {
    // Transfers wait on their own threads and need no turn of ours.
    if (message.has_object_data()) {
      objects_->OnData(std::move(*message.mutable_object_data()));
      Post([this] { last_heard_ = RealClock().Now(); });
    } else if (message.has_object_ack()) {
      objects_->OnAck(std::move(*message.mutable_object_ack()));
      Post([this] { last_heard_ = RealClock().Now(); });
    } else {
      Post([this, message = std::move(message)]() mutable { OnMessage(std::move(message)); });
    }
  };
  Result<std::unique_ptr<wire::DealerChannel>> channel =
      wire::DealerChannel::Connect(options_.coordinator, options_.key, handler, connection);
  if (!channel.ok()) return channel.status().WithContext("coordinator");
  channel_ = *std::move(channel);
  return Status::Ok();
}

void Agent::Loop::OnConnected() {
  link_ = Link::kGreeting;
  greeted_ = RealClock().Now();
  rejections_ = 0;
  SendHello();
}

void Agent::Loop::OnRejected(const Status& status) {
  if (status.code() == StatusCode::kPermissionDenied) {
    StopAll("the coordinator does not admit this worker", status);
  } else if (rejections_++ % 20 == 0) {
    LOG(WARNING) << status.ToString() << "; trying again";
  }
}

void Agent::Loop::OnMessage(wire::ToWorker message) {
  last_heard_ = RealClock().Now();
  switch (message.body_case()) {
    case wire::ToWorker::kWelcome:
      return OnWelcome(message.welcome());
    case wire::ToWorker::kRefused:
      return OnRefused(message.refused());
    case wire::ToWorker::kStart:
      return OnStartTask(std::move(*message.mutable_start()));
    case wire::ToWorker::kGroup: {
      const auto runner = runners_.find(message.group().task_id());
      if (runner != runners_.end()) runner->second->Deliver(std::move(*message.mutable_group()));
      return;
    }
    case wire::ToWorker::kShards: {
      const auto runner = runners_.find(message.shards().task_id());
      if (runner != runners_.end()) runner->second->Deliver(std::move(*message.mutable_shards()));
      return;
    }
    case wire::ToWorker::kStop:
      return OnStopTask(message.stop());
    case wire::ToWorker::kAck:
      return OnAck(message.ack());
    case wire::ToWorker::kDrain:
      return OnDrain(message.drain());
    default:
      return;  // a HeartbeatAck has done its work above
  }
}

void Agent::Loop::OnWelcome(const wire::Welcome& welcome) {
  if (welcome.protocol_version() != wire::kProtocolVersion) {
    return StopAll("another protocol",
                   FailedPrecondition("the coordinator speaks protocol " +
                                      std::to_string(welcome.protocol_version()) +
                                      ", this worker " + std::to_string(wire::kProtocolVersion) +
                                      ": install the same version of lepton on both"));
  }
  if (link_ != Link::kServing) {
    LOG(INFO) << "welcomed by coordinator " << welcome.coordinator_incarnation();
  }
  link_ = Link::kServing;
  if (welcome.heartbeat_ms() > 0) heartbeat_ = milliseconds(welcome.heartbeat_ms());
  if (welcome.lease_ms() > 0) lease_ = milliseconds(welcome.lease_ms());
  next_heartbeat_ = RealClock().Now();
  for (const std::string& task_id : welcome.unknown_task_ids()) ForgetTask(task_id);
  outbox_.Replay();
  for (const wire::RunningTask& acked : welcome.acked()) {
    outbox_.Ack(acked.task_id(), acked.last_seq());
  }
  objects_->OnConnected();
}

// Once the coordinator has the end of a task that ran here, no order to start it is on its way: a
// job of the same name, when the first is forgotten, may have a task of the same id.
void Agent::Loop::OnAck(const wire::ReportAck& ack) {
  outbox_.Ack(ack.task_id(), ack.seq());
  if (!outbox_.Has(ack.task_id()) && ran_.erase(ack.task_id()) > 0) ended_.erase(ack.task_id());
}

void Agent::Loop::OnRefused(const wire::Refused& refused) {
  Status status(StatusCodeFromName(refused.code()), refused.message());
  status = status.WithContext("refused by the coordinator");
  const bool may_pass =
      status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kAlreadyExists;
  if (!may_pass) return StopAll("the coordinator refuses this worker", std::move(status));
  LOG_EVERY_N(WARNING, 10) << status.ToString() << "; trying again";
  // The greeting's limit ends this connection soon, and the next one says Hello again.
  link_ = Link::kGreeting;
  greeted_ = RealClock().Now() - std::chrono::seconds(2) + kRefusedRetry;
}

void Agent::Loop::OnDrain(const wire::Drain& drain) {
  if (phase_ != Phase::kWorking) return;
  LOG(INFO) << "draining: " << drain.reason();
  phase_ = Phase::kDraining;
  if (drain.grace_ms() > 0) drain_until_ = RealClock().Now() + milliseconds(drain.grace_ms());
}

void Agent::Loop::SendHello() {
  wire::ToCoordinator message;
  wire::Hello& hello = *message.mutable_hello();
  hello.set_protocol_version(wire::kProtocolVersion);
  hello.set_software_version(LEPTON_VERSION);
  hello.set_worker_id(options_.worker_id);
  hello.set_incarnation(incarnation_);
  hello.set_host(HostName());
  hello.set_pid(getpid());
  hello.set_slots(options_.slots);
  hello.set_cores(UsableCores());
  hello.set_memory_bytes(MemoryBytes());
  hello.set_device(options_.device);
  hello.set_gpus(options_.gpus);
  hello.set_bf16_sums(options_.bf16_sums);
  hello.set_launcher(options_.launcher.name);
  hello.set_launcher_rank(options_.launcher.rank);
  hello.set_launcher_size(options_.launcher.size);
  hello.set_launcher_world(options_.launcher.world);
  hello.set_data_address(options_.data_address);
  if (heartbeats_ > 0) {
    const Duration silent = RealClock().Now() - last_heard_;
    hello.set_silent_ms(
        std::max<int64_t>(1, std::chrono::duration_cast<milliseconds>(silent).count()));
  }
  hello.mutable_labels()->insert(options_.labels.begin(), options_.labels.end());
  for (const wire::RunningTask& task : outbox_.Tasks()) *hello.add_running() = task;
  for (const auto& [id, runner] : runners_) {
    if (!outbox_.Has(id)) hello.add_running()->set_task_id(id);
  }
  channel_->Send(message);
}

void Agent::Loop::SendHeartbeat() {
  next_heartbeat_ = RealClock().Now() + heartbeat_;
  wire::ToCoordinator message;
  wire::Heartbeat& heartbeat = *message.mutable_heartbeat();
  heartbeat.set_seq(++heartbeats_);
  heartbeat.set_leaving(phase_ != Phase::kWorking);
  heartbeat.set_load_average(LoadAverage());
  heartbeat.set_memory_used_bytes(MemoryUsedBytes());
  std::set<std::string> ids;
  for (const auto& [id, runner] : runners_) ids.insert(id);
  for (const wire::RunningTask& task : outbox_.Tasks()) ids.insert(task.task_id());
  heartbeat.mutable_running_task_ids()->Add(ids.begin(), ids.end());
  for (const std::string& id : uploader_->Tasks()) {
    if (!runners_.contains(id)) heartbeat.add_storing_task_ids(id);
  }
  channel_->Send(message);
}

void Agent::Loop::SendReports() {
  if (link_ != Link::kServing) return;
  outbox_.TakeSendable([this](const wire::TaskReport& report) {
    wire::ToCoordinator message;
    *message.mutable_report() = report;
    return channel_->Send(message);
  });
}

void Agent::Loop::SendGoodbye() {
  if (link_ != Link::kServing) return;
  wire::ToCoordinator message;
  message.mutable_goodbye()->set_reason(result_.ok() ? "stopped" : result_.ToString());
  channel_->Send(message);
}

// Reading an address is the one thing that this thread may wait for: while nobody is there to talk
// to.
void Agent::Loop::LookForCoordinator(MonotonicTime now) {
  if (now < next_look_) return;
  next_look_ = now + kLookEvery;
  const std::string found = options_.find_coordinator ? options_.find_coordinator() : "";
  if (!found.empty() && found != options_.coordinator) {
    LOG(INFO) << "the coordinator is at " << found << " now, no longer at " << options_.coordinator;
    options_.coordinator = found;
    channel_->Reconnect(found);
  }
  if (now - last_heard_ < kQuiet || now < next_complaint_) return;
  next_complaint_ = now + kComplainEvery;
  const auto silent = std::chrono::floor<std::chrono::seconds>(now - last_heard_);
  LOG(WARNING) << options_.coordinator << ": no coordinator for " << FormatDuration(silent)
               << "; trying on";
}

void Agent::Loop::LoseLink() {
  link_ = Link::kConnecting;
  objects_->OnDisconnected();
  channel_->Reconnect("");
}

}  // namespace lepton::worker
