#include <cerrno>
#include <charconv>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

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

constexpr int kRouterMessagesPerTurn = 256;  // then the other sockets get their turn
constexpr size_t kGonePeersKept = 4096;
constexpr size_t kCurveKeyBytes = 32;

class ZmqRouterChannel final : public RouterChannel {
 public:
  ZmqRouterChannel(Handler handler, DisconnectHandler on_disconnect)
      : handler_(std::move(handler)), on_disconnect_(std::move(on_disconnect)) {}
  ~ZmqRouterChannel() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.Wake();
    if (thread_.joinable()) thread_.join();
  }

  Status Start(const std::string& endpoint, const ServerKey& key);
  uint16_t port() const override { return port_; }
  void Send(const PeerId& peer, const ToWorker& message) override;

 private:
  struct Outgoing {
    PeerId peer;
    ZmqMessage frame;
  };

  Status OpenZap(const std::string& worker_public);
  Status OpenRouter(const std::string& endpoint, const ServerKey& key);
  void Loop();
  void AnswerZap();
  void FollowConnections();
  bool ReceiveOne();
  bool Admit(const PeerId& peer, ZmqMessage& body);
  void DescriptorUsedAgain(uint32_t fd);
  void ConnectionGone(uint32_t fd);
  void StrangerGone();
  void PeerGone(const PeerId& peer);
  void Flush();

  const Handler handler_;
  const DisconnectHandler on_disconnect_;
  internal::ZmqContext context_;
  internal::WakeFd wake_;
  // The channel thread's own, once it runs.
  ZmqSocket zap_;
  ZmqSocket router_;
  Monitor monitor_;
  std::string admitted_key_;
  // Connections by descriptor. A disconnect is told after the messages that came before it, and
  // nothing of a peer after its disconnect.
  int unauthorized_ = 0;  // refusals whose disconnect is still to come
  std::map<uint32_t, PeerId> peer_by_fd_;
  std::multiset<uint32_t> disconnected_;
  std::set<PeerId> leaving_;  // disconnected, and their descriptors are others' by now
  std::set<PeerId> gone_;
  std::deque<PeerId> gone_order_;
  uint16_t port_ = 0;

  std::mutex mutex_;
  bool stopping_ = false;
  std::deque<Outgoing> outgoing_;
  std::thread thread_;
};

// ZAP (RFC 27) asks this inner socket about every client key.
Status ZmqRouterChannel::OpenZap(const std::string& worker_public) {
  uint8_t key[kCurveKeyBytes];
  if (worker_public.size() != 40 || zmq_z85_decode(key, worker_public.c_str()) == nullptr) {
    return InvalidArgument("worker_public: not a Z85-encoded CURVE key");
  }
  admitted_key_.assign(reinterpret_cast<const char*>(key), sizeof(key));
  zap_ = ZmqSocket(context_, ZMQ_REP);
  if (zap_.get() == nullptr) return internal::ZmqStatus("zmq_socket");
  LEPTON_RETURN_IF_ERROR(zap_.Set(ZMQ_LINGER, 0));
  if (zmq_bind(zap_.get(), "inproc://zeromq.zap.01") != 0) return internal::ZmqStatus("zap");
  return Status::Ok();
}

Status ZmqRouterChannel::OpenRouter(const std::string& endpoint, const ServerKey& key) {
  router_ = ZmqSocket(context_, ZMQ_ROUTER);
  LEPTON_RETURN_IF_ERROR(SetCommonOptions(router_, endpoint));
  // Mandatory, so that sending says why it did not: an unknown peer or a full queue.
  LEPTON_RETURN_IF_ERROR(router_.Set(ZMQ_ROUTER_MANDATORY, 1));
  LEPTON_RETURN_IF_ERROR(router_.Set(ZMQ_CURVE_SERVER, 1));
  LEPTON_RETURN_IF_ERROR(router_.SetText(ZMQ_CURVE_SECRETKEY, key.server.secret_key)
                             .WithContext("server_secret: not a CURVE key"));
  LEPTON_RETURN_IF_ERROR(router_.SetText(ZMQ_ZAP_DOMAIN, "lepton"));
  LEPTON_ASSIGN_OR_RETURN(monitor_, Monitor::Watch(context_, router_, "monitor"));
  if (zmq_bind(router_.get(), endpoint.c_str()) != 0) return internal::ZmqStatus(endpoint);

  char bound[256];
  size_t size = sizeof(bound);
  if (zmq_getsockopt(router_.get(), ZMQ_LAST_ENDPOINT, bound, &size) != 0) {
    return internal::ZmqStatus("ZMQ_LAST_ENDPOINT");
  }
  const char* colon = std::strrchr(bound, ':');
  if (colon != nullptr) std::from_chars(colon + 1, bound + size, port_);
  return Status::Ok();
}

Status ZmqRouterChannel::Start(const std::string& endpoint, const ServerKey& key) {
  LEPTON_RETURN_IF_ERROR(OpenZap(key.worker_public));
  LEPTON_RETURN_IF_ERROR(OpenRouter(endpoint, key));
  thread_ = NamedThread("wire", [this] { Loop(); });
  return Status::Ok();
}

void ZmqRouterChannel::Send(const PeerId& peer, const ToWorker& message) {
  std::optional<ZmqMessage> frame = internal::Encode(message);
  if (!frame) return;
  {
    std::lock_guard lock(mutex_);
    outgoing_.push_back({peer, std::move(*frame)});
  }
  wake_.Wake();
}

void ZmqRouterChannel::Loop() {
  internal::BlockSignalsOnThisThread();
  while (true) {
    zmq_pollitem_t items[] = {{router_.get(), 0, ZMQ_POLLIN, 0},
                              {zap_.get(), 0, ZMQ_POLLIN, 0},
                              {monitor_.socket().get(), 0, ZMQ_POLLIN, 0},
                              {nullptr, wake_.get(), ZMQ_POLLIN, 0}};
    zmq_poll(items, 4, -1);
    wake_.Drain();
    AnswerZap();
    FollowConnections();
    int budget = kRouterMessagesPerTurn;
    while (budget > 0 && ReceiveOne()) --budget;
    if (budget > 0) {
      for (const PeerId& peer : std::exchange(leaving_, {})) PeerGone(peer);
      for (const uint32_t fd : std::exchange(disconnected_, {})) ConnectionGone(fd);
    } else {
      wake_.Wake();
    }
    Flush();
    std::lock_guard lock(mutex_);
    if (stopping_) break;
  }
  monitor_ = Monitor();
  router_.Close();
  zap_.Close();
}

void ZmqRouterChannel::AnswerZap() {
  // version, request id, domain, address, routing id, mechanism, client key
  ZmqMessage part;
  while (part.Receive(zap_)) {
    std::vector<std::string> request{std::string(part.bytes())};
    while (part.more() && part.Receive(zap_)) request.emplace_back(part.bytes());
    request.resize(7);
    const bool admitted = request[5] == "CURVE" && request[6] == admitted_key_;
    if (!admitted) {
      CountDrop("unauthorized");
      LOG(WARNING) << "refused a worker from " << request[3] << ": not this pool's key";
    }
    const std::string_view reply[] = {"1.0",
                                      request[1],
                                      admitted ? "200" : "400",
                                      admitted ? "OK" : "not this pool's key",
                                      admitted ? "worker" : "",
                                      ""};
    for (size_t i = 0; i < std::size(reply); ++i) {
      ZmqMessage frame(reply[i]);
      if (!frame.Send(zap_, i + 1 < std::size(reply) ? ZMQ_SNDMORE : 0)) break;
    }
  }
}

void ZmqRouterChannel::FollowConnections() {
  while (std::optional<Monitor::Event> event = monitor_.Next()) {
    if (event->type == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) ++unauthorized_;
    if (event->type == ZMQ_EVENT_DISCONNECTED) disconnected_.insert(event->value);
    if (event->type == ZMQ_EVENT_ACCEPTED) DescriptorUsedAgain(event->value);
  }
}

// The disconnects of it that are still to be told are those of its earlier owners.
void ZmqRouterChannel::DescriptorUsedAgain(uint32_t fd) {
  for (size_t i = disconnected_.erase(fd); i > 0; --i) {
    const auto at = peer_by_fd_.find(fd);
    if (at == peer_by_fd_.end()) {
      StrangerGone();
    } else {
      leaving_.insert(std::move(at->second));
      peer_by_fd_.erase(at);
    }
  }
}

bool ZmqRouterChannel::ReceiveOne() {
  ZmqMessage id;
  if (!id.Receive(router_)) return false;
  PeerId peer(id.bytes());
  ZmqMessage body;
  if (!id.more() || !body.Receive(router_) || body.more()) {
    CountDrop("malformed");
    internal::SkipParts(router_, body);
    return true;
  }
  FollowConnections();  // that this one was accepted is there by now
  ToCoordinator message;
  if (Admit(peer, body) && internal::Decode(body, &message)) handler_(peer, std::move(message));
  return true;
}

// Notes which connection a message came over; false for a peer that is gone already.
bool ZmqRouterChannel::Admit(const PeerId& peer, ZmqMessage& body) {
  if (gone_.contains(peer)) {
    CountDrop("unknown_peer");
    return false;
  }
  const int fd = zmq_msg_get(body.get(), ZMQ_SRCFD);
  if (fd < 0 || leaving_.contains(peer)) return true;
  const auto [at, is_new] = peer_by_fd_.try_emplace(static_cast<uint32_t>(fd), peer);
  if (is_new || at->second == peer) return true;
  // The one before had not been heard of when the descriptor was used again.
  PeerGone(std::exchange(at->second, peer));
  return true;
}

void ZmqRouterChannel::ConnectionGone(uint32_t fd) {
  const auto at = peer_by_fd_.find(fd);
  if (at == peer_by_fd_.end()) return StrangerGone();
  const PeerId peer = std::move(at->second);
  peer_by_fd_.erase(at);
  PeerGone(peer);
}

// It ended before its first message. A refused key was counted where ZAP refused it.
void ZmqRouterChannel::StrangerGone() {
  if (unauthorized_ > 0) {
    --unauthorized_;
  } else {
    CountDrop("handshake");
  }
}

void ZmqRouterChannel::PeerGone(const PeerId& peer) {
  gone_.insert(peer);
  gone_order_.push_back(peer);
  if (gone_order_.size() > kGonePeersKept) {
    gone_.erase(gone_order_.front());
    gone_order_.pop_front();
  }
  if (on_disconnect_) on_disconnect_(peer);
}

void ZmqRouterChannel::Flush() {
  std::deque<Outgoing> outgoing;
  {
    std::lock_guard lock(mutex_);
    outgoing.swap(outgoing_);
  }
  for (Outgoing& out : outgoing) {
    ZmqMessage id(out.peer);
    if (!id.Send(router_, ZMQ_SNDMORE)) {
      CountDrop(errno == EAGAIN ? "peer_lagging" : "unknown_peer");
      continue;
    }
    if (!out.frame.Send(router_, 0)) CountDrop("peer_lagging");
  }
}

}  // namespace

Result<std::unique_ptr<RouterChannel>> RouterChannel::Bind(const std::string& endpoint,
                                                           const ServerKey& key, Handler handler,
                                                           DisconnectHandler on_disconnect) {
  auto channel = std::make_unique<ZmqRouterChannel>(std::move(handler), std::move(on_disconnect));
  LEPTON_RETURN_IF_ERROR(channel->Start(endpoint, key));
  return std::unique_ptr<RouterChannel>(std::move(channel));
}

}  // namespace lepton::wire
