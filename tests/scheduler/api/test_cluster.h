// What the API's tests share: a coordinator in this process with a client of it, and a worker that
// speaks the wire protocol but runs nothing, so that a test says what each task reports.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>

#include "runtime/base/file.h"
#include "runtime/http/client.h"
#include "runtime/wire/channel.h"
#include "scheduler/coordinator.h"

namespace lepton::scheduler {

// One answer: its status, its headers and its body, parsed if it is JSON.
struct Answer {
  int status = 0;
  http::Headers headers;
  std::string body;
  nlohmann::json json;

  std::string Header(std::string_view name) const;
  std::string Text(const std::string& field) const { return json.value(field, ""); }
};

class TestCluster {
 public:
  // Loopback, ports picked, quick leases; `adjust` may change the options.
  explicit TestCluster(const std::function<void(CoordinatorOptions&)>& adjust = {});

  Coordinator& coordinator() { return *coordinator_; }
  const std::filesystem::path& folder() const { return folder_.path(); }
  const CoordinatorOptions& options() const { return options_; }
  // Stops the coordinator and starts another on the same folder and ports.
  void Restart();

  Answer Call(const std::string& method, const std::string& target, const std::string& body = "",
              const http::Headers& headers = {});
  Answer Get(const std::string& target) { return Call("GET", target); }
  // The server-sent events up to "end", at most `limit`, or what came before `deadline`.
  std::vector<http::SseParser::Event> Follow(const std::string& target, size_t limit = SIZE_MAX,
                                             const http::Headers& headers = {});

  // A file in this cluster's folder, which is one of its file roots.
  std::string WriteFile(const std::string& name, const std::string& bytes);

 private:
  TempFolder folder_{"lepton-api-test"};
  CoordinatorOptions options_;
  std::unique_ptr<Coordinator> coordinator_;
};

// "a,b,target" with two separable classes.
std::string TwoClassCsv(int rows);
// A small training job on `uri`, as JSON; fields of `more` are put on top.
std::string TrainSpec(const std::string& uri,
                      const nlohmann::json& more = nlohmann::json::object());

class FakeWorker {
 public:
  // Connects and says Hello, after a reconnect too, naming the tasks that it has reported on; keeps
  // its lease until destroyed.
  FakeWorker(Coordinator& coordinator, const std::string& id, uint32_t slots = 2,
             std::function<void(wire::Hello&)> adjust = {});
  ~FakeWorker();

  // The next message of this kind that came and was not taken yet; fails the test after 10 s.
  wire::ToWorker Take(wire::ToWorker::BodyCase kind);
  bool Has(wire::ToWorker::BodyCase kind);

  void Send(const wire::ToCoordinator& message) { channel_->Send(message); }
  // Numbers the reports of each task from 1.
  void Report(wire::TaskReport report);
  void ReportStarted(const std::string& task);
  void ReportProgress(const std::string& task, uint64_t step,
                      const std::map<std::string, double>& metrics);
  void ReportLog(const std::string& task, const std::vector<std::string>& lines);
  void ReportFinished(const std::string& task, const std::string& code = "OK",
                      const std::string& model_manifest = "",
                      const std::vector<std::string>& objects = {});
  // Moves an object over the channel; the answer is the final ack's error code ("" when stored).
  std::string Upload(const std::string& digest, const std::string& bytes, size_t chunk = 1 << 20);
  std::string Download(const std::string& digest);

  void StopHeartbeats() { heartbeats_ = false; }

 private:
  void OnMessage(wire::ToWorker message);
  void Heartbeats();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<wire::ToWorker> received_;
  std::map<std::string, uint64_t> seq_;
  std::atomic<bool> heartbeats_{true}, stopping_{false};
  std::unique_ptr<wire::DealerChannel> channel_;
  std::thread thread_;
};

// Calls `done` until it is true; false after 10 s.
bool Eventually(const std::function<bool()>& done);

}  // namespace lepton::scheduler
