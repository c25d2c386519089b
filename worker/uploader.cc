#include "worker/uploader.h"

#include <pthread.h>
#include <signal.h>

#include <string>
#include <utility>
#include <vector>

#include "runtime/base/logging.h"

namespace lepton::worker {
namespace {

// The report without what could not be stored.
wire::TaskReport WithoutObjects(wire::TaskReport report, const Status& failure) {
  LOG(ERROR) << report.task_id() << ": upload: " << failure.ToString();
  if (report.has_checkpoint() || report.has_checkpoint_slice()) {
    const std::string step = std::to_string(
        report.has_checkpoint() ? report.checkpoint().step() : report.checkpoint_slice().step());
    const std::string lost = "checkpoint of step " + step + " is not stored: " + failure.ToString();
    wire::TaskLog& log = *report.mutable_log();
    log.add_lines("[" + lost + "]");
    log.set_checkpoint_lost(lost);
    return report;
  }
  if (report.has_shard_done()) {
    report.mutable_shard_done()->set_error_code(std::string(StatusCodeName(failure.code())));
    report.mutable_shard_done()->set_error(failure.message());
    return report;
  }
  wire::TaskFinished& finished = *report.mutable_finished();
  finished.clear_model_manifest();
  finished.clear_objects();
  if (finished.code() == StatusCodeName(StatusCode::kOk)) {
    finished.set_code(std::string(StatusCodeName(failure.code())));
    finished.set_message("the results could not be stored: " + failure.message());
  }
  return report;
}

}  // namespace

Uploader::Uploader(ObjectTransfer* objects, Done done)
    : objects_(objects), done_(std::move(done)), thread_([this] { Run(); }) {}

Uploader::~Uploader() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  objects_->Wake();
  thread_.join();
}

std::vector<storage::Digest> Uploader::ObjectsOf(const wire::TaskReport& report) {
  std::vector<storage::Digest> digests;
  const auto add = [&](const auto& objects, const std::string& manifest) {
    digests.assign(objects.begin(), objects.end());
    if (!manifest.empty()) digests.push_back(manifest);
  };
  if (report.has_checkpoint()) add(report.checkpoint().objects(), report.checkpoint().manifest());
  if (report.has_checkpoint_slice()) digests.push_back(report.checkpoint_slice().object());
  if (report.has_shard_done()) digests.push_back(report.shard_done().object());
  if (report.has_finished()) add(report.finished().objects(), report.finished().model_manifest());
  return digests;
}

void Uploader::Add(uint64_t entry, wire::TaskReport report, std::shared_ptr<void> hold) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back({entry, std::move(report), std::move(hold)});
  }
  changed_.notify_all();
}

std::set<std::string> Uploader::Tasks() const {
  std::lock_guard lock(mutex_);
  std::set<std::string> tasks;
  for (const Item& item : queue_) tasks.insert(item.report.task_id());
  if (!current_.empty()) tasks.insert(current_);
  return tasks;
}

void Uploader::Run() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  while (true) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    Item item = std::move(queue_.front());
    queue_.pop_front();
    current_ = item.report.task_id();
    lock.unlock();
    wire::TaskReport report = Upload(std::move(item.report));
    if (!stopping_) done_(item.entry, std::move(report));
    lock.lock();
    current_.clear();
  }
}

wire::TaskReport Uploader::Upload(wire::TaskReport report) {
  for (const storage::Digest& digest : ObjectsOf(report)) {
    const Status status = objects_->Upload(digest, stopping_);
    if (!status.ok()) return WithoutObjects(std::move(report), status);
  }
  return report;
}

}  // namespace lepton::worker
