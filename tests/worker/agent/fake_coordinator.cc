#include "tests/worker/agent/fake_coordinator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "runtime/base/hash.h"

namespace lepton::worker {
namespace {
constexpr auto kPatience = std::chrono::seconds(10);
}

FakeCoordinator::FakeCoordinator(Behaviour behaviour) : behaviour_(std::move(behaviour)) {
  const wire::CurveKeyPair server = wire::MakeCurveKeyPair(), worker = wire::MakeCurveKeyPair();
  server_ = {server, worker.public_key};
  pool_ = {server.public_key, worker};
  Up();
}

FakeCoordinator::~FakeCoordinator() {
  Down();
}

std::string FakeCoordinator::endpoint() const {
  return "tcp://127.0.0.1:" + std::to_string(port_);
}

void FakeCoordinator::Down() {
  std::unique_ptr<wire::RouterChannel> channel;
  {
    std::lock_guard lock(mutex_);
    channel_.swap(channel);
  }
  // Its thread may be in a handler, which finds no channel to answer on.
}

void FakeCoordinator::Up() {
  // Handlers wait until the channel is in place.
  std::lock_guard lock(mutex_);
  worker_peer_.clear();
  auto bound =
      wire::RouterChannel::Bind("tcp://127.0.0.1:" + std::to_string(port_), server_,
                                [this](const std::string& peer, wire::ToCoordinator message) {
                                  OnMessage(peer, std::move(message));
                                });
  ASSERT_TRUE(bound.ok()) << bound.status().ToString();
  channel_ = std::move(*bound);
  port_ = channel_->port();
}

void FakeCoordinator::UpElsewhere() {
  port_ = 0;
  Up();
}

void FakeCoordinator::Change(const std::function<void(Behaviour&)>& change) {
  std::lock_guard lock(mutex_);
  change(behaviour_);
}

void FakeCoordinator::AddObject(const std::string& digest, const std::string& bytes) {
  std::lock_guard lock(mutex_);
  objects_[digest] = bytes;
}

bool FakeCoordinator::HasObject(const std::string& digest) {
  std::lock_guard lock(mutex_);
  return objects_.contains(digest);
}

void FakeCoordinator::Start(wire::StartTask start) {
  wire::ToWorker message;
  *message.mutable_start() = std::move(start);
  {
    std::lock_guard lock(mutex_);
    starts_.push_back(message);
  }
  SendToWorker(message);
}

void FakeCoordinator::Stop(const std::string& task_id, uint32_t grace_ms,
                           const std::string& reason) {
  wire::ToWorker message;
  message.mutable_stop()->set_task_id(task_id);
  message.mutable_stop()->set_grace_ms(grace_ms);
  message.mutable_stop()->set_reason(reason);
  SendToWorker(message);
}

void FakeCoordinator::Group(wire::TaskGroup group) {
  wire::ToWorker message;
  *message.mutable_group() = std::move(group);
  SendToWorker(message);
}

void FakeCoordinator::Drain(const std::string& reason, uint32_t grace_ms) {
  wire::ToWorker message;
  message.mutable_drain()->set_grace_ms(grace_ms);
  message.mutable_drain()->set_reason(reason);
  SendToWorker(message);
}

bool FakeCoordinator::Wait(const std::function<bool()>& condition) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, condition);
}

bool FakeCoordinator::AwaitWelcomed(size_t times) {
  return Wait([&] { return welcomed_ >= times; });
}

bool FakeCoordinator::AwaitGoodbye() {
  return Wait([&] { return goodbyes_ > 0; });
}

bool FakeCoordinator::AwaitHeartbeats(size_t more) {
  size_t wanted = 0;
  {
    std::lock_guard lock(mutex_);
    wanted = heartbeats_ + more;
  }
  return Wait([&] { return heartbeats_ >= wanted; });
}

wire::TaskReport FakeCoordinator::AwaitReport(
    const std::string& task_id, const std::function<bool(const wire::TaskReport&)>& wanted) {
  wire::TaskReport found;
  EXPECT_TRUE(Wait([&] {
    for (const wire::TaskReport& report : reports_[task_id]) {
      if (!wanted(report)) continue;
      found = report;
      return true;
    }
    return false;
  })) << "no such report of "
      << task_id;
  return found;
}

wire::TaskFinished FakeCoordinator::AwaitFinished(const std::string& task_id) {
  return AwaitReport(task_id, [](const auto& report) { return report.has_finished(); }).finished();
}

int64_t FakeCoordinator::AwaitStarted(const std::string& task_id) {
  return AwaitReport(task_id, [](const auto& report) { return report.has_started(); })
      .started()
      .pid();
}

void FakeCoordinator::ForgetTask(const std::string& task_id) {
  std::lock_guard lock(mutex_);
  reports_.erase(task_id);
  acked_.erase(task_id);
}

std::vector<wire::TaskReport> FakeCoordinator::Reports(const std::string& task_id) {
  std::lock_guard lock(mutex_);
  return reports_[task_id];
}

std::vector<std::string> FakeCoordinator::LogLines(const std::string& task_id) {
  std::vector<std::string> lines;
  for (const wire::TaskReport& report : Reports(task_id)) {
    lines.insert(lines.end(), report.log().lines().begin(), report.log().lines().end());
  }
  return lines;
}

std::vector<wire::Hello> FakeCoordinator::Hellos() {
  std::lock_guard lock(mutex_);
  return hellos_;
}

wire::Heartbeat FakeCoordinator::LastHeartbeat() {
  std::lock_guard lock(mutex_);
  return heartbeat_;
}

size_t FakeCoordinator::Gets() {
  std::lock_guard lock(mutex_);
  return gets_;
}

void FakeCoordinator::OnMessage(const std::string& peer, wire::ToCoordinator message) {
  std::lock_guard lock(mutex_);
  // As a coordinator, which takes nothing from who has not said hello to it.
  if (!message.has_hello() && peer != worker_peer_) return;
  switch (message.body_case()) {
    case wire::ToCoordinator::kHello:
      OnHello(peer, message.hello());
      break;
    case wire::ToCoordinator::kHeartbeat: {
      heartbeat_ = message.heartbeat();
      ++heartbeats_;
      if (!behaviour_.answer_heartbeats) break;
      wire::ToWorker ack;
      ack.mutable_heartbeat_ack()->set_seq(message.heartbeat().seq());
      Send(peer, ack);
      break;
    }
    case wire::ToCoordinator::kReport:
      OnReport(peer, std::move(*message.mutable_report()));
      break;
    case wire::ToCoordinator::kObjectGet:
      OnGet(peer, message.object_get());
      break;
    case wire::ToCoordinator::kObjectPut:
      OnPut(peer, message.object_put());
      break;
    case wire::ToCoordinator::kGoodbye:
      ++goodbyes_;
      break;
    default:
      break;
  }
  changed_.notify_all();
}

void FakeCoordinator::OnHello(const std::string& peer, const wire::Hello& hello) {
  hellos_.push_back(hello);
  wire::ToWorker answer;
  if (!behaviour_.refuse_code.empty()) {
    answer.mutable_refused()->set_code(behaviour_.refuse_code);
    answer.mutable_refused()->set_message("go away");
    return Send(peer, answer);
  }
  worker_peer_ = peer;
  wire::Welcome& welcome = *answer.mutable_welcome();
  welcome.set_protocol_version(wire::kProtocolVersion);
  welcome.set_coordinator_incarnation("fake");
  welcome.set_heartbeat_ms(behaviour_.heartbeat_ms);
  welcome.set_lease_ms(behaviour_.lease_ms);
  for (const std::string& task_id : behaviour_.unknown_tasks) {
    welcome.add_unknown_task_ids(task_id);
  }
  for (const wire::RunningTask& running : hello.running()) {
    if (!acked_.contains(running.task_id())) continue;
    wire::RunningTask& acked = *welcome.add_acked();
    acked.set_task_id(running.task_id());
    acked.set_last_seq(acked_[running.task_id()]);
  }
  Send(peer, answer);
  // As a coordinator, which repeats an order that may have been lost with the last connection.
  for (const wire::ToWorker& start : starts_) {
    const std::string& task_id = start.start().task_id();
    const bool heard =
        std::any_of(hello.running().begin(), hello.running().end(),
                    [&](const wire::RunningTask& running) { return running.task_id() == task_id; });
    if (!heard && reports_[task_id].empty()) Send(peer, start);
  }
  ++welcomed_;
}

void FakeCoordinator::OnReport(const std::string& peer, wire::TaskReport report) {
  const std::string task_id = report.task_id();
  const uint64_t seq = report.seq();
  std::vector<wire::TaskReport>& reports = reports_[task_id];
  // One that comes again must be the same one.
  if (seq <= reports.size() && seq > 0) {
    EXPECT_EQ(reports[seq - 1].SerializeAsString(), report.SerializeAsString()) << task_id;
  } else {
    EXPECT_EQ(seq, reports.size() + 1) << task_id << ": a gap";
    reports.push_back(std::move(report));
  }
  if (!behaviour_.ack_reports) return;
  acked_[task_id] = std::max(acked_[task_id], seq);
  wire::ToWorker ack;
  ack.mutable_ack()->set_task_id(task_id);
  ack.mutable_ack()->set_seq(acked_[task_id]);
  Send(peer, ack);
}

void FakeCoordinator::OnGet(const std::string& peer, const wire::ObjectGet& get) {
  ++gets_;
  if (!behaviour_.answer_objects) return;
  std::this_thread::sleep_for(std::chrono::milliseconds(behaviour_.get_ms));
  wire::ToWorker answer;
  wire::ObjectData& data = *answer.mutable_object_data();
  data.set_digest(get.digest());
  data.set_offset(get.offset());
  data.set_request(get.request());
  const auto object = objects_.find(get.digest());
  if (object == objects_.end()) {
    data.set_error_code("NOT_FOUND");
    data.set_error("no such object");
  } else {
    data.set_total_bytes(object->second.size());
    std::string chunk = object->second.substr(get.offset(), wire::kObjectChunkBytes);
    if (behaviour_.corrupt_objects && !chunk.empty()) chunk[chunk.size() / 2] ^= 1;
    data.set_data(chunk);
  }
  Send(peer, answer);
}

void FakeCoordinator::OnPut(const std::string& peer, const wire::ObjectPut& put) {
  if (!behaviour_.answer_objects) return;
  std::this_thread::sleep_for(std::chrono::milliseconds(behaviour_.put_ms));
  wire::ToWorker answer;
  wire::ObjectAck& ack = *answer.mutable_object_ack();
  ack.set_digest(put.digest());
  ack.set_request(put.request());
  std::string& bytes = incoming_[put.digest()];
  if (!behaviour_.put_error.empty()) {
    ack.set_error_code(behaviour_.put_error);
    ack.set_error("it does not fit");
  } else if (objects_.contains(put.digest())) {
    ack.set_complete(true);
    ack.set_offset(put.total_bytes());
  } else {
    if (put.offset() == bytes.size()) bytes += put.data();
    ack.set_offset(bytes.size());
    if (bytes.size() == put.total_bytes()) {
      EXPECT_EQ(Sha256Hex(bytes), put.digest());
      objects_[put.digest()] = bytes;
      ack.set_complete(true);
    }
  }
  Send(peer, answer);
}

void FakeCoordinator::Send(const std::string& peer, const wire::ToWorker& message) {
  if (channel_ != nullptr) channel_->Send(peer, message);
}

void FakeCoordinator::SendToWorker(const wire::ToWorker& message) {
  std::lock_guard lock(mutex_);
  ASSERT_NE(channel_, nullptr);
  channel_->Send(worker_peer_, message);
}

}  // namespace lepton::worker
