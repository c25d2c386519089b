// The control plane's transport: ZeroMQ ROUTER (coordinator) and DEALER (worker) over CURVE
// (RFC 26/CurveZMQ). The pool has one server key pair and one client key pair, made at the
// coordinator's first start; whoever holds the pool's client secret key is a worker of the pool.
// ZeroMQ types appear in this folder's .cc files only.
//
// Malformed, oversized (> kMaxMessageBytes) or unauthenticated messages are dropped and counted in
// lepton_wire_dropped_total{reason}; they never reach a handler. Reasons: handshake (a
// connection that ended before its first message: not ZMTP, or a wrong server key), unauthorized (a
// stranger's client key), malformed, oversized, peer_lagging, unknown_peer, not_connected.
//
// Each channel has its own ZeroMQ context and one thread, which owns all its sockets. Destroying a
// channel takes at most a second, whatever the peers do; never do so from a handler.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"
#include "runtime/wire/messages.pb.h"

namespace lepton::wire {

// Also of what ranks of one gang tell each other, which has no version of its own.
inline constexpr uint32_t kProtocolVersion = 10;
inline constexpr size_t kMaxMessageBytes = size_t{4} << 20;
inline constexpr size_t kObjectChunkBytes = size_t{1} << 20;

// Z85-encoded CURVE keys (40 characters each).
struct CurveKeyPair {
  std::string public_key;
  std::string secret_key;
};
CurveKeyPair MakeCurveKeyPair();

// What a worker needs to join: the contents of `pool.key` (JSON, mode 0600).
struct PoolKey {
  std::string server_public;
  CurveKeyPair worker;
};
// The coordinator's own keys: `server.key` (JSON, mode 0600) beside pool.key.
struct ServerKey {
  CurveKeyPair server;
  std::string worker_public;
};
// Reads both files in `folder`, making them first if neither exists. kPermissionDenied when a key
// file is readable by others.
Result<ServerKey> LoadOrMakeServerKey(const std::string& folder);
Result<PoolKey> LoadPoolKey(const std::string& path);
std::string PoolKeyToJson(const PoolKey& key);
Result<PoolKey> PoolKeyFromJson(std::string_view json);

// The coordinator's end. Handlers run on the channel's one thread. Send may be called from any
// thread and never blocks; to an unknown peer it does nothing, and what a peer that does not read
// (1000 messages behind) is sent is dropped.
class RouterChannel {
 public:
  using PeerId = std::string;  // ZeroMQ routing id: one per connection
  using Handler = std::function<void(const PeerId&, ToCoordinator)>;
  // A peer that has sent something is gone: its process died (within milliseconds), or the network
  // swallowed its heartbeats for 6 s. If it comes back, it does so under a new id.
  using DisconnectHandler = std::function<void(const PeerId&)>;

  // `endpoint`: "tcp://127.0.0.1:0"; port 0 picks one. kFailedPrecondition: the port is in use.
  static Result<std::unique_ptr<RouterChannel>> Bind(const std::string& endpoint,
                                                     const ServerKey& key, Handler handler,
                                                     DisconnectHandler on_disconnect = {});
  virtual ~RouterChannel() = default;  // stops the thread
  virtual uint16_t port() const = 0;
  virtual void Send(const PeerId& peer, const ToWorker& message) = 0;
};

// A worker's end. ZeroMQ reconnects by itself with back-off (100 ms doubling to 2 s); the caller
// learns that from on_connected (or from missing HeartbeatAcks), and sends Hello again.
class DealerChannel {
 public:
  using Handler = std::function<void(ToWorker)>;
  // Both run on the channel's thread.
  struct ConnectionHandlers {
    // After each handshake. What was sent before it and is still here is dropped, so that a new
    // connection starts with what this callback sends. Without it, messages wait for a connection.
    std::function<void()> on_connected;
    // The coordinator does not admit this worker key (kPermissionDenied), or the handshake fails
    // (kUnavailable: not a coordinator, or another server key). ZeroMQ goes on trying.
    std::function<void(Status)> on_rejected;
  };

  static Result<std::unique_ptr<DealerChannel>> Connect(const std::string& endpoint,
                                                        const PoolKey& key, Handler handler,
                                                        ConnectionHandlers connection = {});
  virtual ~DealerChannel() = default;
  // False when so much waits already (16 MiB) that it was not taken: later, perhaps. What can never
  // be sent, for it is larger than kMaxMessageBytes, is dropped and counts as taken.
  virtual bool Send(const ToCoordinator& message) = 0;
  // Drops the connection and its queue and connects anew, under a new peer id; to `endpoint` unless
  // it is empty.
  virtual void Reconnect(const std::string& endpoint) = 0;
};

// Length-prefixed (4 bytes little-endian) messages over a stream socket: agent <-> task process.
// Blocking, with deadlines. kUnavailable: the other side closed. kDataLoss: an oversized, malformed
// or cut frame; the stream is useless afterwards. kDeadlineExceeded: nothing was consumed.
// Threads: one sender and one receiver at a time.
class FrameSocket {
 public:
  explicit FrameSocket(int fd) : fd_(fd) {}
  Status Send(const google::protobuf::MessageLite& message, Deadline deadline);
  Status Receive(google::protobuf::MessageLite* message, Deadline deadline);
  int fd() const { return fd_; }

 private:
  int fd_;  // not owned
};

// The bytes that FrameSocket::Send sends, for a caller with a queue of its own.
std::string EncodeFrame(const google::protobuf::MessageLite& message);

// The same frames, read without blocking: for a poll loop over many descriptors.
class FrameReader {
 public:
  // Reads what is there. kUnavailable: the other side closed; frames read before still come out.
  Status Fill(int fd);
  // The next whole frame's bytes; empty optional when more must be read. kDataLoss: oversized.
  Result<std::optional<std::string>> Next();

 private:
  std::string buffer_;
  size_t consumed_ = 0;
};

}  // namespace lepton::wire
