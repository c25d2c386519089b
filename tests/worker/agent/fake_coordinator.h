// A coordinator for the agent's tests: welcomes whoever comes, keeps what it hears, serves objects
// out of a map, and can be restarted on its port, be silent, or lie.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/wire/channel.h"

namespace lepton::worker {

class FakeCoordinator {
 public:
  struct Behaviour {
    uint32_t heartbeat_ms = 50;
    uint32_t lease_ms = 2000;
    bool ack_reports = true;
    bool answer_heartbeats = true;
    bool corrupt_objects = false;  // flips a byte of what it serves
    bool answer_objects = true;
    uint32_t get_ms = 0;    // that each chunk takes
    uint32_t put_ms = 0;    // and each answer to an upload
    std::string put_error;  // code for every upload
    std::string refuse_code;
    std::vector<std::string> unknown_tasks;
  };

  FakeCoordinator() : FakeCoordinator(Behaviour()) {}
  explicit FakeCoordinator(Behaviour behaviour);
  ~FakeCoordinator();

  const wire::PoolKey& pool_key() const { return pool_; }
  std::string endpoint() const;
  // A crash and a start: connections are gone; what was acknowledged is known.
  void Down();
  void Up();
  void UpElsewhere();  // on another port

  void Change(const std::function<void(Behaviour&)>& change);
  void AddObject(const std::string& digest, const std::string& bytes);
  bool HasObject(const std::string& digest);
  void Start(wire::StartTask start);
  void Stop(const std::string& task_id, uint32_t grace_ms, const std::string& reason = "test");
  void Group(wire::TaskGroup group);
  void Drain(const std::string& reason, uint32_t grace_ms = 0);

  // Waits up to ten seconds; false when that was not enough.
  bool AwaitWelcomed(size_t times = 1);
  bool AwaitGoodbye();
  bool AwaitHeartbeats(size_t more);
  // The task's report that `wanted` picks, or a default one with a failure of the test.
  wire::TaskReport AwaitReport(const std::string& task_id,
                               const std::function<bool(const wire::TaskReport&)>& wanted);
  wire::TaskFinished AwaitFinished(const std::string& task_id);
  int64_t AwaitStarted(const std::string& task_id);  // its pid

  std::vector<wire::TaskReport> Reports(const std::string& task_id);
  void ForgetTask(const std::string& task_id);  // as its job is
  std::vector<std::string> LogLines(const std::string& task_id);
  std::vector<wire::Hello> Hellos();
  wire::Heartbeat LastHeartbeat();
  size_t Gets();

 private:
  void OnMessage(const std::string& peer, wire::ToCoordinator message);
  void OnHello(const std::string& peer, const wire::Hello& hello);
  void OnReport(const std::string& peer, wire::TaskReport report);
  void OnGet(const std::string& peer, const wire::ObjectGet& get);
  void OnPut(const std::string& peer, const wire::ObjectPut& put);
  void Send(const std::string& peer, const wire::ToWorker& message);
  void SendToWorker(const wire::ToWorker& message);
  bool Wait(const std::function<bool()>& condition);  // with mutex_ held inside

  wire::ServerKey server_;
  wire::PoolKey pool_;
  uint16_t port_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  Behaviour behaviour_;
  std::string worker_peer_;
  size_t welcomed_ = 0;
  size_t goodbyes_ = 0;
  size_t heartbeats_ = 0;
  size_t gets_ = 0;
  wire::Heartbeat heartbeat_;
  std::vector<wire::Hello> hellos_;
  std::vector<wire::ToWorker> starts_;
  std::map<std::string, std::vector<wire::TaskReport>> reports_;
  std::map<std::string, uint64_t> acked_;
  std::map<std::string, std::string> objects_;
  std::map<std::string, std::string> incoming_;
  std::unique_ptr<wire::RouterChannel> channel_;
};

}  // namespace lepton::worker
