// Appends until it is killed; tells each acknowledged number on standard output as soon as Append
// has returned. usage: journal_crash_writer FOLDER
#include <unistd.h>

#include <cstdio>

#include "storage/metadata/metadata_store.h"
#include "tests/storage/crash_journal.h"

int main(int argc, char** argv) {
  using namespace lepton::storage;
  if (argc != 2) return 2;
  auto store = MetadataStore::Open(argv[1]);
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", store.status().ToString().c_str());
    return 1;
  }
  const auto tell = [](uint64_t seq) {
    return ::write(STDOUT_FILENO, &seq, sizeof(seq)) == sizeof(seq);
  };
  if (!tell((*store)->last_seq())) return 1;
  for (int i = 1;; ++i) {
    const auto last = (*store)->Append(CrashBatch((*store)->last_seq() + 1));
    if (!last.ok() || !tell(*last)) return 1;
    if (!(*store)->Put("logs", {{KeyU64(*last), "line"}}).ok()) return 1;
    if (i % 16 == 0) {
      const uint64_t keep_after = *last > 100 ? *last - 100 : 0;
      if (!(*store)->WriteSnapshot(*last, CrashState(*last), keep_after).ok()) return 1;
    }
  }
}
