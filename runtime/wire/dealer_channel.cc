#include <cerrno>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/base/logging.h"
#include "runtime/base/named_thread.h"
#include "runtime/wire/channel.h"
#include "runtime/wire/zmq_socket.h"

namespace lepton::wire {
namespace {

using internal::CountDrop;
using internal::Monitor;
using internal::ZmqMessage;
using internal::ZmqSocket;

constexpr size_t kMaxWaitingBytes = size_t{16} << 20;
constexpr int kMessagesPerTurn = 256;
constexpr int kFinalFlushMs = 300;

class ZmqDealerChannel final : public DealerChannel {
 public:
  ZmqDealerChannel(std::string endpoint, PoolKey key, Handler handler,
                   ConnectionHandlers connection)
      : endpoint_(std::move(endpoint)),
        key_(std::move(key)),
        handler_(std::move(handler)),
        connection_(std::move(connection)) {}
  ~ZmqDealerChannel() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.Wake();
    if (thread_.joinable()) thread_.join();
  }

  Status Start() {
    LEPTON_RETURN_IF_ERROR(Open());
    thread_ = NamedThread("wire", [this] { Loop(); });
    return Status::Ok();
  }
  bool Send(const ToCoordinator& message) override;
  void Reconnect(const std::string& endpoint) override;

 private:
  Status Open();
  void Loop();
  bool TakeWork();
  void FollowConnection();
  void Connected();
  void Rejected(Status status);
  bool ReceiveOne();
  void Flush();
  void FlushBeforeClosing();

  std::string endpoint_;  // the channel thread's own, once it runs
  const PoolKey key_;
  const Handler handler_;
  const ConnectionHandlers connection_;
  internal::ZmqContext context_;
  internal::WakeFd wake_;
  // The channel thread's own, once it runs.
  ZmqSocket dealer_;
  Monitor monitor_;
  int opened_ = 0;
  bool connected_ = false;
  std::deque<ZmqMessage> sending_;

  std::mutex mutex_;
  bool stopping_ = false;
  bool reconnect_ = false;
  std::string next_endpoint_;  // empty: the same
  std::deque<ZmqMessage> waiting_;
  size_t waiting_bytes_ = 0;
  std::thread thread_;
};

Status ZmqDealerChannel::Open() {
  dealer_ = ZmqSocket(context_, ZMQ_DEALER);
  LEPTON_RETURN_IF_ERROR(SetCommonOptions(dealer_, endpoint_));
  // A message goes to a live connection or stays with us; it never waits in a dead one's pipe.
  LEPTON_RETURN_IF_ERROR(dealer_.Set(ZMQ_IMMEDIATE, 1));
  LEPTON_RETURN_IF_ERROR(dealer_.Set(ZMQ_RECONNECT_IVL, 100));
  LEPTON_RETURN_IF_ERROR(dealer_.Set(ZMQ_RECONNECT_IVL_MAX, 2000));
  LEPTON_RETURN_IF_ERROR(dealer_.Set(ZMQ_CONNECT_TIMEOUT, 5000));
  LEPTON_RETURN_IF_ERROR(dealer_.SetText(ZMQ_CURVE_SERVERKEY, key_.server_public)
                             .WithContext("server_public: not a CURVE key"));
  LEPTON_RETURN_IF_ERROR(dealer_.SetText(ZMQ_CURVE_PUBLICKEY, key_.worker.public_key)
                             .WithContext("worker_public: not a CURVE key"));
  LEPTON_RETURN_IF_ERROR(dealer_.SetText(ZMQ_CURVE_SECRETKEY, key_.worker.secret_key)
                             .WithContext("worker_secret: not a CURVE key"));
  LEPTON_ASSIGN_OR_RETURN(
      monitor_, Monitor::Watch(context_, dealer_, "monitor-" + std::to_string(++opened_)));
  if (zmq_connect(dealer_.get(), endpoint_.c_str()) != 0) return internal::ZmqStatus(endpoint_);
  return Status::Ok();
}

bool ZmqDealerChannel::Send(const ToCoordinator& message) {
  std::optional<ZmqMessage> frame = internal::Encode(message);
  if (!frame) return true;
  {
    std::lock_guard lock(mutex_);
    if (waiting_bytes_ + frame->size() > kMaxWaitingBytes) {
      CountDrop("not_connected");
      return false;
    }
    waiting_bytes_ += frame->size();
    waiting_.push_back(std::move(*frame));
  }
  wake_.Wake();
  return true;
}

void ZmqDealerChannel::Reconnect(const std::string& endpoint) {
  {
    std::lock_guard lock(mutex_);
    reconnect_ = true;
    if (!endpoint.empty()) next_endpoint_ = endpoint;
    waiting_.clear();
    waiting_bytes_ = 0;
  }
  wake_.Wake();
}

void ZmqDealerChannel::Loop() {
  internal::BlockSignalsOnThisThread();
  while (true) {
    const short dealer_events =
        static_cast<short>(ZMQ_POLLIN | (sending_.empty() ? 0 : ZMQ_POLLOUT));
    zmq_pollitem_t items[] = {{dealer_.get(), 0, dealer_events, 0},
                              {monitor_.socket().get(), 0, ZMQ_POLLIN, 0},
                              {nullptr, wake_.get(), ZMQ_POLLIN, 0}};
    zmq_poll(items, 3, -1);
    wake_.Drain();
    FollowConnection();
    for (int i = 0; i < kMessagesPerTurn && ReceiveOne(); ++i) {
    }
    if (!TakeWork()) break;
    Flush();
  }
  FlushBeforeClosing();
  monitor_ = Monitor();
  dealer_.Close();
}

// False when the channel is to end.
bool ZmqDealerChannel::TakeWork() {
  std::unique_lock lock(mutex_);
  const bool reconnect = std::exchange(reconnect_, false);
  if (reconnect) {
    sending_.clear();
    if (!next_endpoint_.empty()) endpoint_ = std::exchange(next_endpoint_, {});
  }
  // What waits while there is no connection stays counted, which bounds it.
  if (connected_ || stopping_) {
    for (ZmqMessage& frame : waiting_) sending_.push_back(std::move(frame));
    waiting_.clear();
    waiting_bytes_ = 0;
  }
  if (stopping_) return false;
  lock.unlock();
  if (!reconnect) return true;
  connected_ = false;
  monitor_ = Monitor();
  if (dealer_.get() != nullptr) {
    Status lingering = dealer_.Set(ZMQ_LINGER, 0);
    dealer_.Close();
  }
  if (Status opened = Open(); !opened.ok()) {
    // Out of descriptors, say: the owner asks for a reconnect again when it hears nothing.
    LOG(ERROR) << "cannot reconnect: " << opened.ToString();
  }
  return true;
}

void ZmqDealerChannel::FollowConnection() {
  while (std::optional<Monitor::Event> event = monitor_.Next()) {
    switch (event->type) {
      case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        Connected();
        break;
      case ZMQ_EVENT_DISCONNECTED:
        connected_ = false;
        break;
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        Rejected(PermissionDenied(endpoint_ +
                                  ": the coordinator does not admit this worker key; copy its "
                                  "pool.key to this worker"));
        break;
      case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
      case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        Rejected(Unavailable(endpoint_ +
                             ": the handshake failed: not a coordinator, or pool.key is of "
                             "another one"));
        break;
      default:
        break;
    }
  }
}

void ZmqDealerChannel::Connected() {
  connected_ = true;
  if (!connection_.on_connected) return;
  sending_.clear();
  {
    std::lock_guard lock(mutex_);
    waiting_.clear();
    waiting_bytes_ = 0;
  }
  connection_.on_connected();
}

void ZmqDealerChannel::Rejected(Status status) {
  if (connection_.on_rejected) {
    connection_.on_rejected(std::move(status));
  } else {
    LOG_EVERY_N(WARNING, 20) << status.ToString();
  }
}

bool ZmqDealerChannel::ReceiveOne() {
  ZmqMessage frame;
  if (dealer_.get() == nullptr || !frame.Receive(dealer_)) return false;
  if (frame.more()) {
    CountDrop("malformed");
    internal::SkipParts(dealer_, frame);
    return true;
  }
  ToWorker message;
  if (internal::Decode(frame, &message)) handler_(std::move(message));
  return true;
}

void ZmqDealerChannel::Flush() {
  while (!sending_.empty()) {
    if (!sending_.front().Send(dealer_, 0)) return;  // POLLOUT says when to go on
    sending_.pop_front();
  }
}

// A Goodbye should leave; a dead coordinator must not hold us up.
void ZmqDealerChannel::FlushBeforeClosing() {
  const Deadline deadline = Deadline::In(std::chrono::milliseconds(kFinalFlushMs));
  Flush();
  while (connected_ && !sending_.empty() && !deadline.Expired()) {
    zmq_pollitem_t item = {dealer_.get(), 0, ZMQ_POLLOUT, 0};
    zmq_poll(&item, 1, deadline.LeftMs());
    Flush();
  }
}

}  // namespace

Result<std::unique_ptr<DealerChannel>> DealerChannel::Connect(const std::string& endpoint,
                                                              const PoolKey& key, Handler handler,
                                                              ConnectionHandlers connection) {
  auto channel =
      std::make_unique<ZmqDealerChannel>(endpoint, key, std::move(handler), std::move(connection));
  LEPTON_RETURN_IF_ERROR(channel->Start());
  return std::unique_ptr<DealerChannel>(std::move(channel));
}

}  // namespace lepton::wire
