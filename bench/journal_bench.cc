// Submissions acknowledged per second: with group commit (one synced append for all that wait)
// against one synced append each. The same submitters, records and disk, in turns. After each round
// the journal is opened again and every acknowledged submission is looked up under the number that
// it was told, before a time is believed. usage: journal_bench [folder on the disk to measure]
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "storage/metadata/metadata_store.h"

namespace {

using namespace lepton;  // NOLINT: a program, not a header
using storage::MetadataStore;

constexpr int kSubmitters = 64;
constexpr int kRounds = 5;
constexpr Duration kRoundTime = std::chrono::seconds(1);
constexpr size_t kRecordBytes = 600;  // a job's spec

// Submitters put a record and wait; one thread appends what waits.
class Journal {
 public:
  Journal(MetadataStore& store, size_t max_batch)
      : store_(store), max_batch_(max_batch), writer_([this] { Run(); }) {}
  ~Journal() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    writer_.join();
  }

  // Returns the record's number once it is on disk.
  uint64_t Submit(std::string record) {
    Waiting mine{std::move(record)};
    std::unique_lock lock(mutex_);
    queue_.push_back(&mine);
    wake_.notify_one();
    mine.done.wait(lock, [&] { return mine.seq != 0; });
    return mine.seq;
  }
  uint64_t syncs() const { return syncs_; }

 private:
  struct Waiting {
    std::string record;
    uint64_t seq = 0;
    std::condition_variable done{};
  };

  void Run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const size_t take = std::min(max_batch_, queue_.size());
      const std::vector<Waiting*> batch(queue_.begin(), queue_.begin() + static_cast<long>(take));
      queue_.erase(queue_.begin(), queue_.begin() + static_cast<long>(take));
      lock.unlock();
      std::vector<std::string> records;
      for (Waiting* w : batch) records.push_back(std::move(w->record));
      const uint64_t last = store_.Append(records).value();
      ++syncs_;
      lock.lock();
      for (size_t i = 0; i < batch.size(); ++i) {
        batch[i]->seq = last - batch.size() + 1 + i;
        batch[i]->done.notify_one();  // under the lock: the waiter owns what is signalled
      }
    }
  }

  MetadataStore& store_;
  const size_t max_batch_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Waiting*> queue_;
  bool stopping_ = false;
  std::atomic<uint64_t> syncs_{0};
  std::thread writer_;
};

struct Round {
  double per_second = 0, per_sync = 0, p50_ms = 0, p99_ms = 0;
};

// Ends the program when an acknowledged submission is not in the reopened journal.
void CheckDurable(const std::filesystem::path& folder,
                  const std::map<uint64_t, std::string>& acknowledged) {
  const auto store = MetadataStore::Open(folder).value();
  auto expected = acknowledged.begin();
  const Status status = store->Replay(0, [&](uint64_t seq, std::string_view bytes) {
    if (expected == acknowledged.end() || expected->first != seq || expected->second != bytes) {
      return DataLoss("submission " + std::to_string(seq) + " is not what was acknowledged");
    }
    ++expected;
    return Status::Ok();
  });
  if (!status.ok() || expected != acknowledged.end()) {
    std::fprintf(stderr, "journal_bench: %s\n", status.ToString().c_str());
    std::exit(1);
  }
}

Round Measure(const std::filesystem::path& folder, size_t max_batch) {
  auto store = MetadataStore::Open(folder).value();
  std::mutex mutex;
  std::map<uint64_t, std::string> acknowledged;
  std::vector<double> latencies_ms;
  uint64_t syncs = 0;
  const MonotonicTime start = RealClock().Now();
  {
    Journal journal(*store, max_batch);
    std::vector<std::thread> submitters;
    for (int s = 0; s < kSubmitters; ++s) {
      submitters.emplace_back([&, s] {
        for (int i = 0; RealClock().Now() - start < kRoundTime; ++i) {
          std::string record = std::to_string(s) + "/" + std::to_string(i);
          record.resize(kRecordBytes, '.');
          const MonotonicTime sent = RealClock().Now();
          const uint64_t seq = journal.Submit(record);
          const double ms =
              std::chrono::duration<double, std::milli>(RealClock().Now() - sent).count();
          const std::lock_guard lock(mutex);
          acknowledged[seq] = std::move(record);
          latencies_ms.push_back(ms);
        }
      });
    }
    for (std::thread& submitter : submitters) submitter.join();
    syncs = journal.syncs();
  }
  const double seconds = std::chrono::duration<double>(RealClock().Now() - start).count();
  store.reset();
  CheckDurable(folder, acknowledged);
  std::sort(latencies_ms.begin(), latencies_ms.end());
  const auto count = static_cast<double>(acknowledged.size());
  return {count / seconds, count / static_cast<double>(syncs),
          latencies_ms[latencies_ms.size() / 2], latencies_ms[latencies_ms.size() * 99 / 100]};
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) ::setenv("TMPDIR", argv[1], 1);
  std::vector<double> group, each, ratios;
  std::printf("%d submitters, %zu-byte records, %d rounds; durability checked by reopening\n",
              kSubmitters, kRecordBytes, kRounds);
  for (int round = 0; round < kRounds; ++round) {
    const TempFolder folder("journal-bench");
    const Round e = Measure(folder.path() / "each", 1);
    const Round g = Measure(folder.path() / "group", SIZE_MAX);
    std::printf(
        "one fsync each %8.0f/s  p50 %7.2f ms  p99 %7.2f ms   group commit %8.0f/s  "
        "p50 %7.2f ms  p99 %7.2f ms  %5.1f a sync   ratio %5.1f\n",
        e.per_second, e.p50_ms, e.p99_ms, g.per_second, g.p50_ms, g.p99_ms, g.per_sync,
        g.per_second / e.per_second);
    each.push_back(e.per_second);
    group.push_back(g.per_second);
    ratios.push_back(g.per_second / e.per_second);
  }
  std::printf(
      "median: group commit %.0f submissions/s, one fsync each %.0f/s, ratio %.1f (%.1f to %.1f)\n",
      Median(group), Median(each), Median(ratios), *std::min_element(ratios.begin(), ratios.end()),
      *std::max_element(ratios.begin(), ratios.end()));
  return 0;
}
