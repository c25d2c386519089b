// The effects of one batch, held back until its records are durable.
// Threads: the loop's only.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "scheduler/core/effects.h"
#include "scheduler/loop/state_loop.h"

namespace lepton::scheduler {

class StateLoop::Batch final : public Effects {
 public:
  explicit Batch(std::vector<Item>& items) : items_(items) {}

  void Persist(const Record& record) override;
  void Welcome(const WorkerId& worker, const wire::Welcome& welcome) override;
  void Start(const WorkerId& worker, const wire::StartTask& start) override;
  void SendGroup(const WorkerId& worker, const wire::TaskGroup& group) override;
  void SendShards(const WorkerId& worker, const wire::TaskShards& shards) override;
  void Stop(const WorkerId& worker, const wire::StopTask& stop) override;
  void Ack(const WorkerId& worker, const wire::ReportAck& ack) override;
  void Drain(const WorkerId& worker, const wire::Drain& drain) override;
  void Answer(const Reply& reply) override;
  void Notify(const Event& event) override;
  void Accepted(const JobId& job, int trial, const wire::TaskReport& report) override;
  void Returned(const Return& seen) override;
  void ForgetJob(const JobId& job) override;
  void ForgetObjects(const std::vector<std::string>& digests) override;

  const std::vector<std::string>& records() const { return records_; }
  // Everything in the order in which it came, then Committed.
  void Perform(LoopSink& sink, const State& state, ObjectKeeper& keeper);

 private:
  template <typename Message>
  void Send(void (LoopSink::*send)(const WorkerId&, const Message&), const WorkerId& worker,
            const Message& message);

  std::vector<Item>& items_;  // request n is items_[n - 1]
  std::vector<std::string> records_;
  std::vector<std::function<void(LoopSink&, const State&)>> sends_;
  std::vector<std::string> forgotten_;
  std::set<JobId> jobs_;
};

}  // namespace lepton::scheduler
