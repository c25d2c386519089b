// A task's world inside a test: real object store, recorded reports, ranks as threads.
#pragma once

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "collectives/split.h"
#include "runtime/base/file.h"
#include "storage/datasets/import.h"
#include "storage/models/model_manifest.h"
#include "storage/objects/object_store.h"
#include "tests/worker/train/thread_gang.h"
#include "worker/task_context.h"

namespace lepton::testing {

class FakeTask final : public worker::TaskContext {
 public:
  FakeTask(storage::ObjectStore& objects, spec::JobSpec spec, wire::StartTask start,
           std::shared_ptr<ThreadGang> gang)
      : objects_(objects), spec_(std::move(spec)), start_(std::move(start)), gang_(gang) {}

  const wire::StartTask& start() const override { return start_; }
  const spec::JobSpec& spec() const override { return spec_; }
  storage::ObjectStore& objects() override { return objects_; }
  Result<std::unique_ptr<collectives::Communicator>> JoinGang() override {
    if (backend != nullptr) return JoinThrough(*backend);
    return std::unique_ptr<collectives::Communicator>(
        std::make_unique<ThreadCommunicator>(gang_, static_cast<int>(start_.rank())));
  }
  Result<std::unique_ptr<collectives::Communicator>> JoinGroup(collectives::Communicator& gang,
                                                               int color, int leaves) override {
    return collectives::Split(gang, color, "127.0.0.1", {}, Deadline::In(std::chrono::seconds(20)),
                              leaves);
  }
  void ReportProgress(const wire::TaskProgress& report) override {
    progress.push_back(report);
    if (on_progress) on_progress(report);
  }
  void ReportCheckpoint(const wire::TaskCheckpoint& report) override {
    checkpoints.push_back(report);
    if (report.step() == stop_at_checkpoint) stop = true;
  }
  void ReportCheckpointSlice(const wire::TaskCheckpointSlice& report) override {
    slices.push_back(report);
  }
  void ReportReady(const std::string&, uint16_t, double) override {}
  worker::ShardSource* shards() override { return shard_source.get(); }
  void SetResult(const wire::TaskFinished& finished) override { result = finished; }
  bool stop_requested() const override { return stop; }

  std::vector<wire::TaskProgress> progress;
  std::vector<wire::TaskCheckpoint> checkpoints;
  std::vector<wire::TaskCheckpointSlice> slices;
  wire::TaskFinished result;
  std::atomic<bool> stop = false;
  uint64_t stop_at_checkpoint = 0;  // asks for a stop once this step is checkpointed
  std::function<void(const wire::TaskProgress&)> on_progress;
  std::shared_ptr<worker::ShardSource> shard_source;  // of a task that takes shards
  const collectives::Backend* backend = nullptr;      // a real one in place of the threads' own

 private:
  // The gang's barrier stands in for the coordinator, which tells the ranks each other's addresses.
  Result<std::unique_ptr<collectives::Communicator>> JoinThrough(const collectives::Backend& real) {
    LEPTON_ASSIGN_OR_RETURN(auto endpoint, real.Listen("127.0.0.1"));
    collectives::GroupSpec group;
    group.rank = static_cast<int>(start_.rank());
    group.size = static_cast<int>(start_.size());
    group.token = "0123456789abcdef";
    group.leaves = spec_.shards();
    const std::string address = endpoint->address();
    LEPTON_RETURN_IF_ERROR(
        gang_->Exchange(group.rank, {address.begin(), address.end()}, [&](const auto& addresses) {
          for (const auto& bytes : addresses)
            group.members.emplace_back(bytes.begin(), bytes.end());
        }));
    return real.Join(std::move(endpoint), group, {}, Deadline::In(std::chrono::seconds(20)));
  }

  storage::ObjectStore& objects_;
  const spec::JobSpec spec_;
  const wire::StartTask start_;
  const std::shared_ptr<ThreadGang> gang_;
};

struct Rank {
  std::unique_ptr<FakeTask> task;
  Status status;
  double metric(const std::string& name) const {
    const auto& metrics = task->result.metrics();
    const auto found = metrics.find(name);
    return found == metrics.end() ? std::numeric_limits<double>::quiet_NaN() : found->second;
  }
};

// One object store, and gangs that run tasks on it.
class TaskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    FLAGS_minloglevel = 2;  // the tasks' own lines are no concern here
    auto opened = storage::ObjectStore::Open(folder_.path());
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    objects_ = *std::move(opened);
  }

  storage::Digest Import(const std::string& csv) {
    const auto imported = storage::ImportCsv(*objects_, "data", csv);
    EXPECT_TRUE(imported.ok()) << imported.status().ToString();
    return imported.ok() ? imported->digest : "";
  }

  static spec::JobSpec Spec(const std::string& yaml) {
    const auto spec = spec::ParseJobSpec(yaml);
    EXPECT_TRUE(spec.ok()) << spec.status().ToString();
    return spec.ok() ? *spec : spec::JobSpec();
  }

  // Runs `function` on `ranks` threads. `prepare` may change each task before it starts.
  std::vector<Rank> RunGang(worker::TaskFunction function, const spec::JobSpec& spec,
                            wire::StartTask start, int ranks = 1,
                            const std::function<void(FakeTask&)>& prepare = {}) {
    const auto gang = std::make_shared<ThreadGang>(ranks);
    start.set_job_id("j1");
    start.set_size(static_cast<uint32_t>(ranks));
    std::vector<Rank> result(ranks);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      start.set_rank(static_cast<uint32_t>(rank));
      result[rank].task = std::make_unique<FakeTask>(*objects_, spec, start, gang);
      if (prepare) prepare(*result[rank].task);
      threads.emplace_back([&, rank] { result[rank].status = function(*result[rank].task); });
    }
    for (std::thread& thread : threads) thread.join();
    return result;
  }

  storage::ModelManifest ModelOf(const Rank& rank) {
    const auto json = objects_->Get(rank.task->result.model_manifest());
    EXPECT_TRUE(json.ok()) << json.status().ToString();
    const auto manifest = storage::ModelManifestFromJson(json.ok() ? *json : "{}");
    EXPECT_TRUE(manifest.ok()) << manifest.status().ToString();
    return manifest.ok() ? *manifest : storage::ModelManifest();
  }

  TempFolder folder_;
  std::unique_ptr<storage::ObjectStore> objects_;
};

}  // namespace lepton::testing
