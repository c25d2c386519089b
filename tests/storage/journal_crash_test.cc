// A writer process is killed over and over; the journal that is opened afterwards holds what was
// acknowledged, and possibly the batch that was on its way, never a part of it.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <random>

#include "runtime/base/file.h"
#include "storage/metadata/metadata_store.h"
#include "tests/storage/crash_journal.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

struct WriterRun {
  uint64_t opened_at = 0;  // last number when the writer opened the store
  uint64_t acknowledged = 0;
};

bool ReadNumber(int fd, uint64_t* value) {
  return ::read(fd, value, sizeof(*value)) == static_cast<ssize_t>(sizeof(*value));
}

// Runs a writer and kills it `microseconds` after it opened the store.
WriterRun RunWriterAndKill(const std::string& folder, unsigned microseconds) {
  WriterRun run;
  int ends[2];
  EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  UniqueFd from(ends[0]), to(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(to.get(), STDOUT_FILENO);
    ::execl(LEPTON_CRASH_WRITER, LEPTON_CRASH_WRITER, folder.c_str(), nullptr);
    ::_exit(127);
  }
  to.Reset();
  EXPECT_TRUE(ReadNumber(from.get(), &run.opened_at)) << "the writer did not open the store";
  ::usleep(microseconds);
  ::kill(child, SIGKILL);
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status)) << "the writer ended by itself with " << status;
  run.acknowledged = run.opened_at;
  for (uint64_t seq; ReadNumber(from.get(), &seq);) run.acknowledged = seq;
  return run;
}

// Every record is the one that belongs under its number, and the last batch is whole.
void CheckJournal(const MetadataStore& store) {
  const auto snapshot = store.ReadSnapshot();
  ASSERT_THAT(snapshot, IsOk());
  uint64_t dropped = 0;
  if (snapshot->has_value()) {
    EXPECT_EQ((*snapshot)->state, CrashState((*snapshot)->seq));
    EXPECT_LE((*snapshot)->seq, store.last_seq());
    dropped = (*snapshot)->seq > 100 ? (*snapshot)->seq - 100 : 0;
  }
  uint64_t seen = 0, batch_end = 0;
  ASSERT_THAT(store.Replay(0,
                           [&](uint64_t seq, std::string_view bytes) -> Status {
                             uint64_t at = 0, first = 0, size = 0;
                             std::sscanf(std::string(bytes.substr(0, 70)).c_str(), "%lu %lu %lu",
                                         &at, &first, &size);
                             EXPECT_EQ(at, seq);
                             EXPECT_EQ(bytes, CrashRecord(seq, first, size));
                             EXPECT_TRUE(seen == 0 || seq == seen + 1);
                             seen = seq;
                             batch_end = first + size - 1;
                             return Status::Ok();
                           }),
              IsOk());
  EXPECT_EQ(batch_end, seen) << "half a batch";
  EXPECT_EQ(seen, store.last_seq());
  // What is newer than keep_after stays readable.
  ASSERT_THAT(store.Replay(dropped,
                           [&](uint64_t seq, std::string_view) -> Status {
                             EXPECT_EQ(seq, dropped + 1);
                             return Cancelled("enough");
                           }),
              Fails(StatusCode::kCancelled, "enough"));
}

TEST(JournalCrashTest, NothingAcknowledgedIsLostToKill) {
  TempFolder folder;
  std::mt19937 random(42);
  uint64_t last = 0, batches_in_flight = 0;
  for (int round = 0; round < 25; ++round) {
    const WriterRun run = RunWriterAndKill(folder.path(), 200 + random() % 25'000);
    ASSERT_EQ(run.opened_at, last) << "opening twice gave two answers";
    const auto store = MetadataStore::Open(folder.path());
    ASSERT_THAT(store, IsOk());
    last = (*store)->last_seq();
    ASSERT_GE(last, run.acknowledged) << "acknowledged records are gone";
    ASSERT_LE(last, run.acknowledged + kMaxCrashBatch) << "more than was on its way";
    batches_in_flight += last > run.acknowledged;
    if (last > 0) CheckJournal(**store);
  }
  EXPECT_GT(last, 100u) << "the writers were killed before they wrote";
  RecordProperty("batches_in_flight", static_cast<int>(batches_in_flight));
}

}  // namespace
}  // namespace lepton::storage
