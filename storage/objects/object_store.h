// Immutable bytes under their SHA-256. Layout: <root>/objects/ab/abcdef... ; writes go to a file in
// <root>/tmp, are fsynced and renamed, so a crash leaves no partial object. The checksum is
// verified on read. A text that is not a digest is kInvalidArgument everywhere, so that no request
// can leave the root. What reads or writes much shows in pieces that it moves (progress::Moved).
// Threads: any; several processes may share a root.
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/mapped_file.h"
#include "runtime/base/status.h"

namespace lepton::storage {

using Digest = std::string;  // 64 lower-case hex digits

class ObjectStore {
 public:
  // Makes the folders; removes temporary files older than an hour that nobody writes.
  // kPermissionDenied on a read-only disk.
  static Result<std::unique_ptr<ObjectStore>> Open(const std::filesystem::path& root);

  // Durable when it returns. Storing what exists costs one hash and one stat. kResourceExhausted:
  // disk full.
  Result<Digest> Put(std::string_view bytes);
  // The whole object, verified. kNotFound; kDataLoss when the bytes do not match (the bad file is
  // moved to <root>/corrupt/, so that the object can be stored again).
  Result<std::string> Get(const Digest& digest) const;
  // The whole object without a copy; the same errors. `verify` reads all of it once: leave it out
  // for large objects, which were verified when they arrived.
  Result<MappedFile> Map(const Digest& digest, bool verify = true) const;
  // An object from its beginning to its end, in pieces, so that it need not fit into memory. The
  // last piece comes only if the whole has the digest. Threads: one at a time.
  class Reader {
   public:
    ~Reader();
    uint64_t size() const;
    // At most so many bytes, and at least one before the end. kDataLoss as of Get.
    Result<std::string> Next(size_t max_bytes);

   private:
    friend class ObjectStore;
    struct State;
    explicit Reader(std::unique_ptr<State> state);
    static Status Damaged(const State& at);
    std::unique_ptr<State> state_;
  };
  // kNotFound. The store must outlive the reader.
  Result<std::unique_ptr<Reader>> Read(const Digest& digest) const;
  // Part of an object, unverified: for transfers, whose receiver verifies the whole. Short or empty
  // at the object's end.
  Result<std::string> GetRange(const Digest& digest, uint64_t offset, size_t max_bytes) const;
  Result<uint64_t> Size(const Digest& digest) const;
  bool Has(const Digest& digest) const;
  // kNotFound when there is no such object.
  Status Remove(const Digest& digest);

  // For caches: when an object was stored or last touched, over all processes that share the root.
  using Time = std::chrono::system_clock::time_point;
  struct Stored {
    Digest digest;
    uint64_t bytes = 0;
    Time used;
  };
  // All that is there, in no order. Reads the folders: a stat an object.
  Result<std::vector<Stored>> List() const;
  // Used now. kNotFound when there is no such object.
  Status Touch(const Digest& digest) const;
  // Removes it unless it was used after `since`, also if that happens this very moment: whoever
  // touched or stored it has it. False when it was kept.
  Result<bool> RemoveUnused(const Digest& digest, Time since);
  // Where the object is or would be; of a text that is no digest, a path that never exists.
  std::filesystem::path PathOf(const Digest& digest) const;

  // An object that arrives in pieces, in order.
  class Writer {
   public:
    ~Writer();  // discards what was not finished
    Status Append(std::string_view bytes);
    uint64_t size() const;
    // kDataLoss when the content's digest is not `expected` (if given). The writer is spent.
    Result<Digest> Finish(const Digest& expected = {});

   private:
    friend class ObjectStore;
    struct State;
    explicit Writer(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
  };
  // The store must outlive the writer.
  Result<std::unique_ptr<Writer>> NewObject() const;

  // Whether Get or Map met bytes that do not match, and moved them aside: fetched anew, the object
  // may well be whole.
  bool found_corrupt() const { return found_corrupt_; }

  const std::filesystem::path& root() const { return root_; }

 private:
  explicit ObjectStore(std::filesystem::path root) : root_(std::move(root)) {}
  // Moves a file that failed its checksum out of the way; kDataLoss.
  Status Quarantine(const Digest& digest) const;

  std::filesystem::path root_;
  mutable std::atomic<bool> found_corrupt_{false};
};

// True for 64 lower-case hex digits.
bool IsDigest(std::string_view text);

}  // namespace lepton::storage
