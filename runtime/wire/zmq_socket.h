// Internal to runtime/wire: ZeroMQ handles as values, and what both channels do alike.
// Threads: a socket belongs to one thread; a context to any.
#pragma once

#include <zmq.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/base/file.h"
#include "runtime/base/status.h"

namespace lepton::wire::internal {

// One I/O thread. Destruction waits for its sockets' linger.
class ZmqContext {
 public:
  ZmqContext();
  ~ZmqContext();
  ZmqContext(const ZmqContext&) = delete;
  ZmqContext& operator=(const ZmqContext&) = delete;
  void* get() const { return context_; }

 private:
  void* context_;
};

class ZmqSocket {
 public:
  ZmqSocket() = default;
  ZmqSocket(const ZmqContext& context, int type);
  ZmqSocket(ZmqSocket&& other) noexcept : socket_(std::exchange(other.socket_, nullptr)) {}
  ZmqSocket& operator=(ZmqSocket&& other) noexcept;
  ~ZmqSocket() { Close(); }
  void* get() const { return socket_; }
  void Close();
  Status Set(int option, int value);
  Status SetInt64(int option, int64_t value);
  Status SetText(int option, std::string_view value);

 private:
  void* socket_ = nullptr;
};

// A message frame.
class ZmqMessage {
 public:
  ZmqMessage() { zmq_msg_init(&message_); }
  explicit ZmqMessage(size_t size) { zmq_msg_init_size(&message_, size); }
  explicit ZmqMessage(std::string_view bytes);
  ZmqMessage(ZmqMessage&& other) noexcept;
  ZmqMessage& operator=(ZmqMessage&& other) noexcept;
  ~ZmqMessage() { zmq_msg_close(&message_); }
  zmq_msg_t* get() { return &message_; }
  void* data() { return zmq_msg_data(&message_); }
  size_t size() const { return zmq_msg_size(&message_); }
  bool more() const { return zmq_msg_more(&message_) != 0; }
  std::string_view bytes() {
    return {static_cast<const char*>(zmq_msg_data(&message_)), zmq_msg_size(&message_)};
  }
  // False when nothing is there.
  bool Receive(ZmqSocket& socket) {
    return zmq_msg_recv(&message_, socket.get(), ZMQ_DONTWAIT) >= 0;
  }
  // False with errno when it cannot be queued; the message stays.
  bool Send(ZmqSocket& socket, int flags) {
    return zmq_msg_send(&message_, socket.get(), flags | ZMQ_DONTWAIT) >= 0;
  }

 private:
  zmq_msg_t message_;
};

// Wakes a thread out of zmq_poll.
class WakeFd {
 public:
  WakeFd();
  int get() const { return fd_.get(); }
  void Wake() const;
  void Drain() const;

 private:
  UniqueFd fd_;
};

// What happens to a socket's connections, as ZeroMQ tells it on an inner socket. It ends before the
// socket that it watches does.
class Monitor {
 public:
  Monitor() = default;
  Monitor(Monitor&& other) noexcept
      : watched_(std::exchange(other.watched_, nullptr)), socket_(std::move(other.socket_)) {}
  Monitor& operator=(Monitor&& other) noexcept;
  ~Monitor() { Stop(); }
  // `name`: unique within the context.
  static Result<Monitor> Watch(const ZmqContext& context, ZmqSocket& socket,
                               const std::string& name);
  struct Event {
    uint16_t type = 0;   // ZMQ_EVENT_...
    uint32_t value = 0;  // a file descriptor or an error number
  };
  std::optional<Event> Next();
  ZmqSocket& socket() { return socket_; }

 private:
  void Stop();

  void* watched_ = nullptr;
  ZmqSocket socket_;
};

// Options that both ends share: sizes, keep-alive, heartbeats, linger.
Status SetCommonOptions(ZmqSocket& socket, const std::string& endpoint);
// lepton_wire_dropped_total{reason}.
void CountDrop(const std::string& reason, double count = 1);
// Receives and discards the rest of a multi-part message.
void SkipParts(ZmqSocket& socket, ZmqMessage& last);
// Keeps the process's signals for its main thread.
void BlockSignalsOnThisThread();
Status ZmqStatus(std::string_view what);

// Serialised straight into a frame; nullopt (counted, logged) when larger than kMaxMessageBytes.
template <typename Message>
std::optional<ZmqMessage> Encode(const Message& message);

// Parses a frame whose oneof must be set; false and counted otherwise.
template <typename Message>
bool Decode(ZmqMessage& frame, Message* message);

}  // namespace lepton::wire::internal
