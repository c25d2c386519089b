#include "scheduler/links/worker_link.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/base/metrics.h"

namespace lepton::scheduler {
namespace {

constexpr uint32_t kMaxSlots = 4096;

void CountIgnored(const char* reason) {
  metrics::Counter("lepton_link_ignored_total", "Messages from workers that were not acted on.",
                   {{"reason", reason}})
      .Increment();
}

}  // namespace

Result<std::unique_ptr<WorkerLink>> WorkerLink::Start(WorkerLinkOptions options,
                                                      const wire::ServerKey& key, StateLoop& loop,
                                                      storage::ObjectStore& objects) {
  auto link = std::unique_ptr<WorkerLink>(new WorkerLink(std::move(options), loop, objects));
  {
    // Held while binding, so that a handler waits until channel_ is set.
    std::lock_guard lock(link->mutex_);
    LEPTON_ASSIGN_OR_RETURN(
        link->channel_, wire::RouterChannel::Bind(
                            link->options_.endpoint, key,
                            [raw = link.get()](const PeerId& peer, wire::ToCoordinator message) {
                              raw->OnMessage(peer, std::move(message));
                            },
                            [raw = link.get()](const PeerId& peer) { raw->OnDisconnect(peer); }));
    link->transfers_ = std::make_unique<ObjectServer>(
        objects, loop.keeper(), [raw = link.get()](const PeerId& peer, const wire::ToWorker& out) {
          raw->channel_->Send(peer, out);
        });
  }
  link->ArmLeaseTimer();
  return link;
}

WorkerLink::~WorkerLink() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  transfers_.reset();  // finishes on its threads, still sending
  channel_.reset();
}

void WorkerLink::OnMessage(const PeerId& peer, wire::ToCoordinator message) {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  if (message.has_hello()) return OnHello(peer, std::move(*message.mutable_hello()));
  const auto known = worker_of_.find(peer);
  if (known == worker_of_.end()) return CountIgnored("no_session");
  const WorkerId worker = known->second;
  Session& session = sessions_.at(worker);
  Renew(session);
  switch (message.body_case()) {
    case wire::ToCoordinator::kHeartbeat:
      return OnHeartbeat(worker, session, message.heartbeat());
    case wire::ToCoordinator::kReport:
      return loop_.Post(TaskReported{worker, std::move(*message.mutable_report())});
    case wire::ToCoordinator::kObjectGet:
      return transfers_->Get(peer, std::move(*message.mutable_object_get()));
    case wire::ToCoordinator::kObjectPut:
      return transfers_->Put(peer, std::move(*message.mutable_object_put()));
    case wire::ToCoordinator::kGoodbye:
      return EndSession(worker, "left: " + message.goodbye().reason());
    default:
      return CountIgnored("unknown_message");
  }
}

void WorkerLink::Renew(Session& session) const {
  session.expires = RealClock().Now() + options_.lease;
  session.connected = true;
  session.vitals.last_seen_ms = RealClock().WallMs();
}

void WorkerLink::OnDisconnect(const PeerId& peer) {
  std::lock_guard lock(mutex_);
  const auto known = worker_of_.find(peer);
  if (stopping_ || known == worker_of_.end()) return;
  Session& session = sessions_.at(known->second);
  session.connected = false;
  session.expires = std::min(session.expires, RealClock().Now() + options_.reconnect_grace);
}

Status WorkerLink::CheckHello(const wire::Hello& hello) const {
  if (hello.protocol_version() != wire::kProtocolVersion) {
    return FailedPrecondition(fmt::format(
        "protocol_version: the worker speaks {} (lepton {}), this coordinator {}: use the same "
        "release on both",
        hello.protocol_version(), hello.software_version(), wire::kProtocolVersion));
  }
  LEPTON_RETURN_IF_ERROR(CheckName("worker_id", hello.worker_id()));
  if (hello.incarnation().empty()) return InvalidArgument("incarnation: empty");
  if (hello.slots() < 1 || hello.slots() > kMaxSlots) {
    return InvalidArgument(
        fmt::format("slots: {} is out of range: 1 to {}", hello.slots(), kMaxSlots));
  }
  const auto found = sessions_.find(WorkerId(hello.worker_id()));
  if (found != sessions_.end() && found->second.incarnation != hello.incarnation() &&
      found->second.connected && RealClock().Now() < found->second.expires) {
    return AlreadyExists(fmt::format(
        "worker_id: {} is a living worker: choose another id, or wait until its lease has run out",
        hello.worker_id()));
  }
  return Status::Ok();
}

void WorkerLink::OnHello(const PeerId& peer, wire::Hello hello) {
  if (const Status status = CheckHello(hello); !status.ok()) return Refuse(peer, status);
  const WorkerId worker(hello.worker_id());
  if (const auto other = worker_of_.find(peer);
      other != worker_of_.end() && other->second != worker) {
    return Refuse(peer, InvalidArgument("worker_id: changed within one connection"));
  }
  if (const auto old = sessions_.find(worker);
      old != sessions_.end() && old->second.incarnation != hello.incarnation()) {
    EndSession(worker, "lost: another process took its place");
  }
  Session& session = sessions_[worker];
  if (session.peer != peer && !session.peer.empty()) ForgetPeer(session.peer);
  session.peer = peer;
  session.incarnation = hello.incarnation();
  Renew(session);
  worker_of_[peer] = worker;
  LOG(INFO) << "worker " << worker << ": hello from " << hello.host() << " pid " << hello.pid()
            << ", " << hello.slots() << " slots, " << hello.running_size() << " tasks running";
  loop_.Post(WorkerHello{std::move(hello)});
}

void WorkerLink::OnHeartbeat(const WorkerId& worker, Session& session,
                             const wire::Heartbeat& heartbeat) {
  if (heartbeat.leaving() && !std::exchange(session.leaving, true)) {
    loop_.Post(WorkerLeaving{worker});
  }
  if (!heartbeat.storing_task_ids().empty()) {
    const auto& tasks = heartbeat.storing_task_ids();
    loop_.Post(TasksStoring{worker, {tasks.begin(), tasks.end()}});
  }
  session.vitals.load_average = heartbeat.load_average();
  session.vitals.memory_used_bytes = heartbeat.memory_used_bytes();
  wire::ToWorker message;
  message.mutable_heartbeat_ack()->set_seq(heartbeat.seq());
  channel_->Send(session.peer, message);
}

void WorkerLink::Refuse(const PeerId& peer, const Status& status) {
  LOG(WARNING) << "worker refused: " << status.ToString();
  wire::ToWorker message;
  message.mutable_refused()->set_code(std::string(StatusCodeName(status.code())));
  message.mutable_refused()->set_message(status.message());
  channel_->Send(peer, message);
}

void WorkerLink::ForgetPeer(const PeerId& peer) {
  worker_of_.erase(peer);
  transfers_->Drop(peer);
}

void WorkerLink::EndSession(const WorkerId& worker, const std::string& reason) {
  const auto found = sessions_.find(worker);
  if (found == sessions_.end()) return;
  LOG(INFO) << "worker " << worker << " " << reason;
  ForgetPeer(found->second.peer);
  sessions_.erase(found);
  loop_.Post(WorkerLost{worker, reason});
}

void WorkerLink::CheckLeases(Duration stall) {
  std::lock_guard lock(mutex_);
  const MonotonicTime now = RealClock().Now();
  std::vector<WorkerId> silent;
  for (auto& [worker, session] : sessions_) {
    session.expires += stall;
    if (now >= session.expires) silent.push_back(worker);
  }
  for (const auto& worker : silent) {
    EndSession(worker, sessions_.at(worker).connected ? "lost: its lease ran out"
                                                      : "lost: its connection broke");
  }
}

void WorkerLink::ArmLeaseTimer() {
  const Duration shortest = std::min(options_.lease, options_.reconnect_grace);
  const Duration interval = shortest / 5;
  const MonotonicTime due = RealClock().Now() + interval;
  loop_.After(interval, [this, interval, due](const State&) {
    const Duration late = RealClock().Now() - due;
    CheckLeases(late > interval ? late : Duration::zero());
    ArmLeaseTimer();
  });
}

void WorkerLink::DropSessions() {
  std::lock_guard lock(mutex_);
  for (const auto& [peer, worker] : worker_of_) transfers_->Drop(peer);
  worker_of_.clear();
  sessions_.clear();
}

std::optional<WorkerLink::Vitals> WorkerLink::VitalsOf(const WorkerId& worker) const {
  std::lock_guard lock(mutex_);
  const auto found = sessions_.find(worker);
  if (found == sessions_.end()) return std::nullopt;
  return found->second.vitals;
}

void WorkerLink::SendTo(const WorkerId& worker, const wire::ToWorker& message) {
  std::lock_guard lock(mutex_);
  const auto found = sessions_.find(worker);
  if (found != sessions_.end() && !stopping_) channel_->Send(found->second.peer, message);
}

void WorkerLink::Welcome(const WorkerId& worker, const wire::Welcome& welcome) {
  wire::ToWorker message;
  *message.mutable_welcome() = welcome;
  SendTo(worker, message);
}

void WorkerLink::StartTask(const WorkerId& worker, const wire::StartTask& start) {
  wire::ToWorker message;
  *message.mutable_start() = start;
  for (auto& input : *message.mutable_start()->mutable_inputs()) {
    if (input.bytes() != 0) continue;
    if (const auto size = objects_.Size(input.digest()); size.ok()) input.set_bytes(*size);
  }
  SendTo(worker, message);
}

void WorkerLink::SendGroup(const WorkerId& worker, const wire::TaskGroup& group) {
  wire::ToWorker message;
  *message.mutable_group() = group;
  SendTo(worker, message);
}

void WorkerLink::SendShards(const WorkerId& worker, const wire::TaskShards& shards) {
  wire::ToWorker message;
  *message.mutable_shards() = shards;
  SendTo(worker, message);
}

void WorkerLink::StopTask(const WorkerId& worker, const wire::StopTask& stop) {
  wire::ToWorker message;
  *message.mutable_stop() = stop;
  SendTo(worker, message);
}

void WorkerLink::Ack(const WorkerId& worker, const wire::ReportAck& ack) {
  wire::ToWorker message;
  *message.mutable_ack() = ack;
  SendTo(worker, message);
}

void WorkerLink::Drain(const WorkerId& worker, const wire::Drain& drain) {
  wire::ToWorker message;
  *message.mutable_drain() = drain;
  SendTo(worker, message);
}

}  // namespace lepton::scheduler
