// The imports that go on in this coordinator, for GET /v1/imports: what a client that waits for its
// POST shows meanwhile.
// Threads: any.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "storage/datasets/import.h"

namespace lepton::api {

class ImportBoard {
 public:
  struct Line {
    std::string subject;  // "job run", "dataset pets"
    std::string phase;    // "reading pictures"
    uint64_t done = 0, total = 0;
    int64_t started_ms = 0;
  };

  // One import, on the board for as long as this lives.
  class Entry {
   public:
    ~Entry();
    // False: the import is to end.
    bool Update(const storage::ImportProgress& progress);

   private:
    friend class ImportBoard;
    Entry(ImportBoard* board, std::list<Line>::iterator line) : board_(board), line_(line) {}
    ImportBoard* board_;
    std::list<Line>::iterator line_;
  };
  std::unique_ptr<Entry> Begin(std::string subject, int64_t now_ms);

  std::vector<Line> Lines() const;
  // Ends those that go on, and those that begin later.
  void Stop() { stopped_ = true; }

 private:
  mutable std::mutex mutex_;
  std::list<Line> lines_;
  std::atomic<bool> stopped_{false};
};

}  // namespace lepton::api
