#include "runtime/wire/zmq_socket.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runtime/base/logging.h"
#include "runtime/base/metrics.h"
#include "runtime/wire/channel.h"

namespace lepton::wire::internal {

ZmqContext::ZmqContext() : context_(zmq_ctx_new()) {
  CHECK(context_ != nullptr) << zmq_strerror(errno);
  zmq_ctx_set(context_, ZMQ_BLOCKY, 0);
}

ZmqContext::~ZmqContext() {
  while (zmq_ctx_term(context_) != 0 && errno == EINTR) {
  }
}

ZmqSocket::ZmqSocket(const ZmqContext& context, int type)
    : socket_(zmq_socket(context.get(), type)) {}

ZmqSocket& ZmqSocket::operator=(ZmqSocket&& other) noexcept {
  if (this != &other) {
    Close();
    socket_ = std::exchange(other.socket_, nullptr);
  }
  return *this;
}

void ZmqSocket::Close() {
  if (socket_ != nullptr) zmq_close(socket_);
  socket_ = nullptr;
}

Status ZmqSocket::Set(int option, int value) {
  if (zmq_setsockopt(socket_, option, &value, sizeof(value)) == 0) return Status::Ok();
  return ZmqStatus("zmq_setsockopt " + std::to_string(option));
}

Status ZmqSocket::SetInt64(int option, int64_t value) {
  if (zmq_setsockopt(socket_, option, &value, sizeof(value)) == 0) return Status::Ok();
  return ZmqStatus("zmq_setsockopt " + std::to_string(option));
}

Status ZmqSocket::SetText(int option, std::string_view value) {
  if (zmq_setsockopt(socket_, option, value.data(), value.size()) == 0) return Status::Ok();
  return ZmqStatus("zmq_setsockopt " + std::to_string(option));
}

ZmqMessage::ZmqMessage(std::string_view bytes) : ZmqMessage(bytes.size()) {
  std::memcpy(zmq_msg_data(&message_), bytes.data(), bytes.size());
}

ZmqMessage::ZmqMessage(ZmqMessage&& other) noexcept : ZmqMessage() {
  zmq_msg_move(&message_, &other.message_);
}

ZmqMessage& ZmqMessage::operator=(ZmqMessage&& other) noexcept {
  if (this != &other) zmq_msg_move(&message_, &other.message_);
  return *this;
}

WakeFd::WakeFd() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK(fd_.valid()) << strerror(errno);
}

void WakeFd::Wake() const {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the thread is awake anyway.
  [[maybe_unused]] const ssize_t written = write(fd_.get(), &one, sizeof(one));
}

void WakeFd::Drain() const {
  uint64_t count;
  [[maybe_unused]] const ssize_t got = read(fd_.get(), &count, sizeof(count));
}

Result<Monitor> Monitor::Watch(const ZmqContext& context, ZmqSocket& socket,
                               const std::string& name) {
  const std::string endpoint = "inproc://" + name;
  constexpr int kEvents = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED |
                          ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                          ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
  if (zmq_socket_monitor(socket.get(), endpoint.c_str(), kEvents) != 0) {
    return ZmqStatus("zmq_socket_monitor");
  }
  Monitor monitor;
  monitor.watched_ = socket.get();
  monitor.socket_ = ZmqSocket(context, ZMQ_PAIR);
  LEPTON_RETURN_IF_ERROR(monitor.socket_.Set(ZMQ_LINGER, 0));
  if (zmq_connect(monitor.socket_.get(), endpoint.c_str()) != 0) return ZmqStatus(endpoint);
  return monitor;
}

Monitor& Monitor::operator=(Monitor&& other) noexcept {
  if (this != &other) {
    Stop();
    watched_ = std::exchange(other.watched_, nullptr);
    socket_ = std::move(other.socket_);
  }
  return *this;
}

// In this order: ZeroMQ's I/O thread waits until somebody takes what it tells, for ever if the
// inner socket is closed first, and with it wait all connections of the context.
void Monitor::Stop() {
  if (watched_ != nullptr) zmq_socket_monitor(watched_, nullptr, 0);
  watched_ = nullptr;
  socket_.Close();
}

std::optional<Monitor::Event> Monitor::Next() {
  ZmqMessage frame;
  if (!frame.Receive(socket_)) return std::nullopt;
  Event event;
  if (frame.size() >= sizeof(event.type) + sizeof(event.value)) {
    const char* data = static_cast<const char*>(frame.data());
    std::memcpy(&event.type, data, sizeof(event.type));
    std::memcpy(&event.value, data + sizeof(event.type), sizeof(event.value));
  }
  SkipParts(socket_, frame);
  return event;
}

Status SetCommonOptions(ZmqSocket& socket, const std::string& endpoint) {
  if (socket.get() == nullptr) return ZmqStatus("zmq_socket");
  // A frame a little over the limit is received, dropped and counted; a far larger one (also an
  // unauthenticated one) costs the peer its connection.
  LEPTON_RETURN_IF_ERROR(socket.SetInt64(ZMQ_MAXMSGSIZE, 2 * int64_t{kMaxMessageBytes}));
  LEPTON_RETURN_IF_ERROR(socket.Set(ZMQ_SNDHWM, 1000));
  LEPTON_RETURN_IF_ERROR(socket.Set(ZMQ_RCVHWM, 256));
  LEPTON_RETURN_IF_ERROR(socket.Set(ZMQ_LINGER, 500));
  LEPTON_RETURN_IF_ERROR(socket.Set(ZMQ_TCP_KEEPALIVE, 1));
  LEPTON_RETURN_IF_ERROR(socket.Set(ZMQ_HANDSHAKE_IVL, 5000));
  LEPTON_RETURN_IF_ERROR(socket.Set(ZMQ_HEARTBEAT_IVL, 2000));
  LEPTON_RETURN_IF_ERROR(socket.Set(ZMQ_HEARTBEAT_TIMEOUT, 6000));
  LEPTON_RETURN_IF_ERROR(socket.Set(ZMQ_HEARTBEAT_TTL, 6000));
  if (endpoint.find('[') != std::string::npos) LEPTON_RETURN_IF_ERROR(socket.Set(ZMQ_IPV6, 1));
  return Status::Ok();
}

void CountDrop(const std::string& reason, double count) {
  metrics::Counter("lepton_wire_dropped_total",
                   "Control messages and connections dropped, by reason.", {{"reason", reason}})
      .Increment(count);
}

void SkipParts(ZmqSocket& socket, ZmqMessage& last) {
  bool more = last.more();
  while (more) {
    ZmqMessage part;
    if (!part.Receive(socket)) return;
    more = part.more();
  }
}

void BlockSignalsOnThisThread() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

Status ZmqStatus(std::string_view what) {
  const int error = errno;
  std::string message = std::string(what) + ": " + zmq_strerror(error);
  switch (error) {
    case EINVAL:
    case ENODEV:
    case EPROTONOSUPPORT:
      return InvalidArgument(std::move(message));
    case EADDRINUSE:
      return FailedPrecondition(std::string(what) + ": the port is in use");
    case EACCES:
      return PermissionDenied(std::move(message));
    case EMFILE:
      return ResourceExhausted(std::move(message));
    default:
      return Internal(std::move(message));
  }
}

template <typename Message>
std::optional<ZmqMessage> Encode(const Message& message) {
  const size_t size = message.ByteSizeLong();
  if (size > kMaxMessageBytes) {
    LOG(ERROR) << "control message of " << size << " bytes not sent: the limit is "
               << kMaxMessageBytes;
    CountDrop("oversized");
    return std::nullopt;
  }
  ZmqMessage frame(size);
  if (!message.SerializeToArray(frame.data(), static_cast<int>(size))) {
    LOG(ERROR) << "control message not sent: it cannot be serialised";
    CountDrop("malformed");
    return std::nullopt;
  }
  return frame;
}

template <typename Message>
bool Decode(ZmqMessage& frame, Message* message) {
  if (frame.size() > kMaxMessageBytes) {
    CountDrop("oversized");
    return false;
  }
  if (!message->ParseFromArray(frame.data(), static_cast<int>(frame.size())) ||
      message->body_case() == Message::BODY_NOT_SET) {
    CountDrop("malformed");
    return false;
  }
  return true;
}

template std::optional<ZmqMessage> Encode(const ToWorker&);
template std::optional<ZmqMessage> Encode(const ToCoordinator&);
template bool Decode(ZmqMessage&, ToWorker*);
template bool Decode(ZmqMessage&, ToCoordinator*);

}  // namespace lepton::wire::internal
