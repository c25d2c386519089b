#include "tests/scheduler/api/test_cluster.h"

#include <fmt/format.h>

#include "runtime/base/hash.h"

namespace lepton::scheduler {
namespace {

constexpr Duration kPatience = std::chrono::seconds(10);

}  // namespace

std::string Answer::Header(std::string_view name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

TestCluster::TestCluster(const std::function<void(CoordinatorOptions&)>& adjust) {
  options_.data_dir = folder_.path() / "data";
  options_.file_roots = {folder_.path()};
  options_.heartbeat = std::chrono::milliseconds(100);
  options_.lease = std::chrono::milliseconds(1500);
  if (adjust) adjust(options_);
  auto started = Coordinator::Start(options_);
  EXPECT_TRUE(started.ok()) << started.status().ToString();
  coordinator_ = *std::move(started);
}

void TestCluster::Restart() {
  options_.http_port = coordinator_->http_port();
  options_.link_port = coordinator_->link_port();
  coordinator_->Stop(std::chrono::milliseconds(100));
  coordinator_.reset();
  auto started = Coordinator::Start(options_);
  ASSERT_TRUE(started.ok()) << started.status().ToString();
  coordinator_ = *std::move(started);
}

Answer TestCluster::Call(const std::string& method, const std::string& target,
                         const std::string& body, const http::Headers& headers) {
  auto url = http::ParseUrl(coordinator_->url());
  http::Client client(*url, {});
  http::Request request;
  request.method = method;
  request.target = target;
  request.body = body;
  request.headers = headers;
  auto response = client.Call(request, Deadline::In(kPatience * 3));
  Answer answer;
  if (!response.ok()) {
    ADD_FAILURE() << method << " " << target << ": " << response.status().ToString();
    return answer;
  }
  answer.status = response->status;
  answer.headers = response->headers;
  answer.body = response->body;
  answer.json = nlohmann::json::parse(answer.body, nullptr, false);
  if (answer.json.is_discarded()) answer.json = nullptr;
  return answer;
}

std::vector<http::SseParser::Event> TestCluster::Follow(const std::string& target, size_t limit,
                                                        const http::Headers& headers) {
  auto url = http::ParseUrl(coordinator_->url());
  http::Client client(*url, {});
  http::Request request;
  request.method = "GET";
  request.target = target;
  request.headers = headers;
  http::SseParser parser;
  std::vector<http::SseParser::Event> events;
  const Status status =
      client.CallStreaming(request, Deadline::In(kPatience), [&](std::string_view bytes) {
        for (auto& event : parser.Feed(bytes)) {
          if (event.event == "end") return false;
          events.push_back(std::move(event));
          if (events.size() >= limit) return false;
        }
        return true;
      });
  EXPECT_TRUE(status.ok() || status.code() == StatusCode::kCancelled) << status.ToString();
  return events;
}

std::string TestCluster::WriteFile(const std::string& name, const std::string& bytes) {
  const auto path = folder_.path() / name;
  EXPECT_TRUE(WriteFileAtomic(path, bytes).ok());
  return "file://" + path.string();
}

std::string TwoClassCsv(int rows) {
  std::string csv = "a,b,target\n";
  for (int i = 0; i < rows; ++i) csv += fmt::format("{},{},{}\n", i, -i, i % 2 ? "yes" : "no");
  return csv;
}

std::string TrainSpec(const std::string& uri, const nlohmann::json& more) {
  nlohmann::json spec = {{"kind", "train"},
                         {"name", "small"},
                         {"dataset", {{"uri", uri}}},
                         {"model", {{"hidden", {4}}}},
                         {"epochs", 1}};
  spec.merge_patch(more);
  return spec.dump();
}

FakeWorker::FakeWorker(Coordinator& coordinator, const std::string& id, uint32_t slots,
                       std::function<void(wire::Hello&)> adjust) {
  wire::ToCoordinator hello;
  auto& body = *hello.mutable_hello();
  body.set_protocol_version(wire::kProtocolVersion);
  body.set_software_version("test");
  body.set_worker_id(id);
  body.set_incarnation(RandomHex(8));
  body.set_host("testhost");
  body.set_pid(1);
  body.set_slots(slots);
  body.set_cores(slots);
  body.set_memory_bytes(uint64_t{1} << 30);
  body.set_device("cpu");
  body.set_data_address("127.0.0.1");
  if (adjust) adjust(body);
  const auto key = wire::PoolKeyFromJson(coordinator.pool_key_json());
  EXPECT_TRUE(key.ok());
  wire::DealerChannel::ConnectionHandlers connection;
  connection.on_connected = [this, hello] {
    std::lock_guard lock(mutex_);
    if (!channel_) return;
    wire::ToCoordinator message = hello;
    for (const auto& [task, seq] : seq_) {
      auto* running = message.mutable_hello()->add_running();
      running->set_task_id(task);
      running->set_last_seq(seq);
    }
    channel_->Send(message);
  };
  // Held so that on_connected finds the channel.
  std::lock_guard lock(mutex_);
  auto channel = wire::DealerChannel::Connect(
      coordinator.link_endpoint(), *key,
      [this](wire::ToWorker message) { OnMessage(std::move(message)); }, std::move(connection));
  EXPECT_TRUE(channel.ok()) << channel.status().ToString();
  channel_ = *std::move(channel);
  thread_ = std::thread([this] { Heartbeats(); });
}

FakeWorker::~FakeWorker() {
  stopping_ = true;
  thread_.join();
  std::unique_ptr<wire::DealerChannel> channel;
  {
    std::lock_guard lock(mutex_);
    channel = std::move(channel_);
  }
}

void FakeWorker::Heartbeats() {
  uint64_t seq = 0;
  while (!stopping_) {
    if (heartbeats_) {
      wire::ToCoordinator message;
      message.mutable_heartbeat()->set_seq(++seq);
      message.mutable_heartbeat()->set_load_average(0.5);
      channel_->Send(message);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

void FakeWorker::OnMessage(wire::ToWorker message) {
  if (message.has_heartbeat_ack()) return;
  std::lock_guard lock(mutex_);
  received_.push_back(std::move(message));
  changed_.notify_all();
}

bool FakeWorker::Has(wire::ToWorker::BodyCase kind) {
  std::lock_guard lock(mutex_);
  return std::any_of(received_.begin(), received_.end(),
                     [&](const auto& message) { return message.body_case() == kind; });
}

wire::ToWorker FakeWorker::Take(wire::ToWorker::BodyCase kind) {
  std::unique_lock lock(mutex_);
  const MonotonicTime until = RealClock().Now() + kPatience;
  while (true) {
    const auto found = std::find_if(received_.begin(), received_.end(), [&](const auto& message) {
      return message.body_case() == kind;
    });
    if (found != received_.end()) {
      wire::ToWorker message = std::move(*found);
      received_.erase(found);
      return message;
    }
    if (changed_.wait_until(lock, until) == std::cv_status::timeout) {
      ADD_FAILURE() << "no message of kind " << kind;
      return {};
    }
  }
}

void FakeWorker::Report(wire::TaskReport report) {
  {
    std::lock_guard lock(mutex_);
    report.set_seq(++seq_[report.task_id()]);
  }
  report.set_wall_ms(RealClock().WallMs());
  wire::ToCoordinator message;
  *message.mutable_report() = std::move(report);
  channel_->Send(message);
}

void FakeWorker::ReportStarted(const std::string& task) {
  wire::TaskReport report;
  report.set_task_id(task);
  report.mutable_started()->set_pid(4242);
  Report(std::move(report));
}

void FakeWorker::ReportProgress(const std::string& task, uint64_t step,
                                const std::map<std::string, double>& metrics) {
  wire::TaskReport report;
  report.set_task_id(task);
  report.mutable_progress()->set_step(step);
  report.mutable_progress()->set_total_steps(10);
  report.mutable_progress()->mutable_metrics()->insert(metrics.begin(), metrics.end());
  Report(std::move(report));
}

void FakeWorker::ReportLog(const std::string& task, const std::vector<std::string>& lines) {
  wire::TaskReport report;
  report.set_task_id(task);
  for (const auto& line : lines) report.mutable_log()->add_lines(line);
  Report(std::move(report));
}

void FakeWorker::ReportFinished(const std::string& task, const std::string& code,
                                const std::string& model_manifest,
                                const std::vector<std::string>& objects) {
  wire::TaskReport report;
  report.set_task_id(task);
  auto& finished = *report.mutable_finished();
  finished.set_code(code);
  finished.set_steps(10);
  finished.set_model_manifest(model_manifest);
  for (const auto& digest : objects) finished.add_objects(digest);
  (*finished.mutable_metrics())["test/accuracy"] = 0.75;
  Report(std::move(report));
}

std::string FakeWorker::Upload(const std::string& digest, const std::string& bytes, size_t chunk) {
  size_t offset = 0;
  while (true) {
    wire::ToCoordinator message;
    auto& put = *message.mutable_object_put();
    put.set_digest(digest);
    put.set_offset(offset);
    put.set_total_bytes(bytes.size());
    put.set_data(bytes.substr(offset, chunk));
    put.set_request(offset + 1);
    channel_->Send(message);
    const auto ack = Take(wire::ToWorker::kObjectAck).object_ack();
    if (!ack.error_code().empty() || ack.complete()) return ack.error_code();
    if (ack.offset() <= offset && ack.request() == offset + 1) return "STUCK";
    offset = ack.offset();
  }
}

std::string FakeWorker::Download(const std::string& digest) {
  std::string bytes;
  while (true) {
    wire::ToCoordinator message;
    message.mutable_object_get()->set_digest(digest);
    message.mutable_object_get()->set_offset(bytes.size());
    channel_->Send(message);
    const auto data = Take(wire::ToWorker::kObjectData).object_data();
    if (!data.error_code().empty()) return "error " + data.error_code();
    bytes += data.data();
    if (bytes.size() >= data.total_bytes()) return bytes;
  }
}

bool Eventually(const std::function<bool()>& done) {
  const MonotonicTime until = RealClock().Now() + kPatience;
  while (RealClock().Now() < until) {
    if (done()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return done();
}

}  // namespace lepton::scheduler
