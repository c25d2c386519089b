// Moves objects between the worker's local store and the coordinator's, in chunks, one request and
// answer at a time over the control channel. The receiver verifies the whole by its digest.
// A lost connection only delays a transfer: it goes on where it was after the next Welcome.
// Threads: Fetch and Upload from any threads (they block); the On-calls from the channel's or the
// agent's thread (they do not).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"
#include "runtime/wire/messages.pb.h"
#include "storage/objects/object_store.h"

namespace lepton::worker {

class ObjectTransfer {
 public:
  struct Limits {
    Duration answer = std::chrono::seconds(5);     // then the request is repeated
    Duration progress = std::chrono::seconds(60);  // connected, but nothing moves: kUnavailable
    int attempts = 3;                              // of an object that arrives corrupt
  };
  using Sender = std::function<void(const wire::ToCoordinator&)>;

  ObjectTransfer(storage::ObjectStore* store, Sender send, Limits limits);

  // Called on the caller's thread with every chunk that has come, of its own transfer or of
  // another's that it waits for.
  using Arrived = std::function<void(uint64_t bytes)>;
  // Puts the object into the local store; costs nothing if it is there. kCancelled when
  // `cancelled` turned true (call Wake after setting it) or after Shutdown; kNotFound: the
  // coordinator has no such object; kDataLoss: it arrived corrupt every time.
  Status Fetch(const wire::ObjectRef& object, const std::atomic<bool>& cancelled,
               const Arrived& arrived = nullptr);
  // Sends a local object; costs one round trip if the coordinator has it.
  Status Upload(const storage::Digest& digest, const std::atomic<bool>& cancelled);

  // When the coordinator last answered an upload.
  MonotonicTime uploaded_at() const;

  void OnConnected();
  void OnDisconnected();
  void OnData(wire::ObjectData data);
  void OnAck(wire::ObjectAck ack);
  void Wake();
  void Shutdown();

 private:
  struct Answer {
    std::optional<wire::ObjectData> data;
    std::optional<wire::ObjectAck> ack;
  };
  class Fetching;

  bool Ended(const std::atomic<bool>& cancelled) const { return cancelled || shut_down_; }
  // True when there was none at first.
  Result<bool> AwaitConnection(const std::atomic<bool>& cancelled);
  uint64_t Ask(wire::ToCoordinator message);
  // kUnavailable: ask again, on the new connection or since the answer is overdue.
  Result<Answer> Await(uint64_t request, const std::atomic<bool>& cancelled);
  void Pause(const std::atomic<bool>& cancelled);
  void Drop(uint64_t request);
  // True when somebody else has fetched it meanwhile; false: the caller is to.
  Result<bool> AwaitOther(const storage::Digest& digest, const std::atomic<bool>& cancelled,
                          const Arrived& arrived);
  Status FetchOnce(const wire::ObjectRef& object, const std::atomic<bool>& cancelled,
                   const Arrived& arrived);

  storage::ObjectStore* const store_;
  const Sender send_;
  const Limits limits_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  MonotonicTime uploaded_at_{};
  bool connected_ = false;
  bool shut_down_ = false;
  uint64_t next_request_ = 1;
  uint64_t oldest_valid_ = 1;  // earlier requests went over a connection that is gone
  std::map<uint64_t, std::optional<Answer>> requests_;
  std::map<storage::Digest, uint64_t> fetching_;  // and the bytes that have come
};

}  // namespace lepton::worker
