// The coordinator of protocol_model.h: the real reactor between two inputs, as its snapshot.
// Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "scheduler/core/reactor.h"

namespace lepton::scheduler::model {

constexpr int64_t kModelStart = 1'700'000'000'000;

struct Image {
  std::string snapshot;
  std::map<int, Task> tasks;      // of the job's gang, by seat
  std::set<std::string> greeted;  // workers that have come since it started
  int64_t now = kModelStart;
  std::string key;
  int id = -1;  // of the key
  uint64_t epoch = 0;
  std::set<int> members;  // of the epoch
  bool goes = false;      // the gang forms groups
  bool gone = false;      // over, and nothing of it lives
  bool over = false;      // the job is: done, failed, or it waits for another start
  std::string job_state;
};
using ImagePtr = std::shared_ptr<const Image>;

std::shared_ptr<Image> TakeImage(const Reactor& reactor, std::set<std::string> greeted,
                                 int64_t now);

int SeatOf(const std::string& task_id);
std::string TaskId(int seat);
std::string WorkerName(size_t worker);

}  // namespace lepton::scheduler::model
