#include "runtime/wire/channel.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "runtime/base/file.h"
#include "runtime/base/metrics.h"

namespace lepton::wire {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto kPatience = seconds(10);

struct Keys {
  ServerKey server;
  PoolKey pool;
};
Keys MakeKeys() {
  const CurveKeyPair server = MakeCurveKeyPair(), worker = MakeCurveKeyPair();
  return {{server, worker.public_key}, {server.public_key, worker}};
}

double Drops(const std::string& reason) {
  return metrics::Counter("lepton_wire_dropped_total", "", {{"reason", reason}}).Value();
}

// Waits for a condition that a channel's thread makes true.
class Gate {
 public:
  void Do(const std::function<void()>& change) {
    std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  bool Wait(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, condition);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

bool Eventually(const std::function<bool()>& condition) {
  const Deadline deadline = Deadline::In(kPatience);
  while (!condition()) {
    if (deadline.Expired()) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

// A coordinator that keeps what it hears and answers each heartbeat.
struct Server {
  explicit Server(const ServerKey& key, const std::string& endpoint = "tcp://127.0.0.1:0") {
    auto bound = RouterChannel::Bind(
        endpoint, key,
        [this](const RouterChannel::PeerId& peer, ToCoordinator message) {
          ToWorker ack;
          ack.mutable_heartbeat_ack()->set_seq(message.heartbeat().seq());
          RouterChannel* out = nullptr;
          gate.Do([&] {
            peers.insert(peer);
            messages.push_back(std::move(message));
            out = channel.get();
          });
          if (out != nullptr) out->Send(peer, ack);
        },
        [this](const RouterChannel::PeerId& peer) { gate.Do([&] { gone.push_back(peer); }); });
    EXPECT_TRUE(bound.ok()) << bound.status().ToString();
    gate.Do([&] { channel = std::move(*bound); });
  }
  std::string endpoint() const { return "tcp://127.0.0.1:" + std::to_string(channel->port()); }

  Gate gate;
  std::set<RouterChannel::PeerId> peers;
  std::vector<RouterChannel::PeerId> gone;
  std::vector<ToCoordinator> messages;
  std::unique_ptr<RouterChannel> channel;
};

struct Client {
  Client(const std::string& endpoint, const PoolKey& key,
         DealerChannel::ConnectionHandlers connection = {}) {
    auto made = DealerChannel::Connect(
        endpoint, key,
        [this](ToWorker message) { gate.Do([&] { messages.push_back(std::move(message)); }); },
        std::move(connection));
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    channel = std::move(*made);
  }
  Gate gate;
  std::vector<ToWorker> messages;
  std::unique_ptr<DealerChannel> channel;
};

ToCoordinator Heartbeat(uint64_t seq) {
  ToCoordinator message;
  message.mutable_heartbeat()->set_seq(seq);
  return message;
}

TEST(ChannelTest, MessagesGoBothWaysInOrder) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  Client client(server.endpoint(), keys.pool);
  for (uint64_t i = 0; i < 500; ++i) client.channel->Send(Heartbeat(i));
  ASSERT_TRUE(client.gate.Wait([&] { return client.messages.size() == 500; }));
  for (uint64_t i = 0; i < 500; ++i) {
    ASSERT_EQ(server.messages[i].heartbeat().seq(), i);
    ASSERT_EQ(client.messages[i].heartbeat_ack().seq(), i);
  }
  EXPECT_EQ(server.peers.size(), 1u);
}

TEST(ChannelTest, ManyPeersAreToldApart) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  constexpr int kPeers = 24;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < kPeers; ++i) {
    clients.push_back(std::make_unique<Client>(server.endpoint(), keys.pool));
  }
  for (int i = 0; i < kPeers; ++i) clients[i]->channel->Send(Heartbeat(1000 + i));
  for (int i = 0; i < kPeers; ++i) {
    Client& client = *clients[i];
    ASSERT_TRUE(client.gate.Wait([&] { return client.messages.size() == 1; })) << i;
    EXPECT_EQ(client.messages[0].heartbeat_ack().seq(), 1000u + i);
  }
  EXPECT_EQ(server.peers.size(), size_t{kPeers});
}

TEST(ChannelTest, BigMessagesPassUpToTheLimit) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  Client client(server.endpoint(), keys.pool);
  ToCoordinator put;
  put.mutable_object_put()->set_data(std::string(kMaxMessageBytes - 64, 'x'));
  ASSERT_LE(put.ByteSizeLong(), kMaxMessageBytes);
  client.channel->Send(put);
  ASSERT_TRUE(server.gate.Wait([&] { return server.messages.size() == 1; }));
  EXPECT_EQ(server.messages[0].object_put().data(), put.object_put().data());

  const double before = Drops("oversized");
  put.mutable_object_put()->set_data(std::string(kMaxMessageBytes, 'x'));
  client.channel->Send(put);
  EXPECT_EQ(Drops("oversized"), before + 1);
  client.channel->Send(Heartbeat(5));
  ASSERT_TRUE(server.gate.Wait([&] { return server.messages.size() == 2; }));
  EXPECT_EQ(server.messages[1].heartbeat().seq(), 5u);
}

TEST(ChannelTest, WhatFindsNoPlaceIsNotTaken) {
  const Keys keys = MakeKeys();
  std::string endpoint;
  { endpoint = Server(keys.server).endpoint(); }
  Client client(endpoint, keys.pool);  // nobody is there
  ToCoordinator put;
  put.mutable_object_put()->set_data(std::string(kMaxMessageBytes - 64, 'x'));
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(client.channel->Send(put)) << i;
  EXPECT_FALSE(client.channel->Send(put));
  put.mutable_object_put()->set_data(std::string(kMaxMessageBytes, 'x'));
  EXPECT_TRUE(client.channel->Send(put)) << "it never has a place";
}

TEST(ChannelTest, APortInUseIsRefused) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  const auto second = RouterChannel::Bind(server.endpoint(), keys.server, {});
  EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(second.status().message().find("in use"), std::string::npos);
  EXPECT_EQ(RouterChannel::Bind("nonsense", keys.server, {}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(DealerChannel::Connect("nonsense", keys.pool, {}).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(ChannelTest, AStrangersKeyIsRefusedAndTold) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  const double before = Drops("unauthorized");
  PoolKey stranger = keys.pool;
  stranger.worker = MakeCurveKeyPair();
  Gate gate;
  Status told;
  Client intruder(server.endpoint(), stranger,
                  {.on_connected = {}, .on_rejected = [&](Status status) {
                     gate.Do([&] { told = std::move(status); });
                   }});
  intruder.channel->Send(Heartbeat(1));
  ASSERT_TRUE(gate.Wait([&] { return !told.ok(); }));
  EXPECT_EQ(told.code(), StatusCode::kPermissionDenied) << told.ToString();
  EXPECT_GE(Drops("unauthorized"), before + 1);

  Client friendly(server.endpoint(), keys.pool);
  friendly.channel->Send(Heartbeat(2));
  ASSERT_TRUE(server.gate.Wait([&] { return server.messages.size() == 1; }));
  EXPECT_EQ(server.messages[0].heartbeat().seq(), 2u);
}

TEST(ChannelTest, AWrongServerKeyIsRefusedAndCounted) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  const double before = Drops("handshake");
  PoolKey wrong = keys.pool;
  wrong.server_public = MakeCurveKeyPair().public_key;
  Client client(server.endpoint(), wrong);
  client.channel->Send(Heartbeat(1));
  EXPECT_TRUE(Eventually([&] { return Drops("handshake") > before; }));
  EXPECT_TRUE(server.messages.empty());
}

TEST(ChannelTest, PlainTcpGarbageIsDroppedAndCounted) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  const double before = Drops("handshake");
  const std::string cases[] = {
      "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
      std::string(100'000, '\xff'),
      std::string(64, '\0'),
      std::string("\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL", 16) +
          std::string(48, '\0') + "\x04\x05\x05READY",
  };
  for (const std::string& bytes : cases) {
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(server.channel->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    shutdown(fd.get(), SHUT_WR);
    char sink[256];
    while (recv(fd.get(), sink, sizeof(sink), 0) > 0) {
    }
  }
  EXPECT_TRUE(Eventually([&] { return Drops("handshake") >= before + 4; })) << Drops("handshake");

  Client client(server.endpoint(), keys.pool);
  client.channel->Send(Heartbeat(3));
  ASSERT_TRUE(server.gate.Wait([&] { return server.messages.size() == 1; }));
  EXPECT_EQ(server.messages[0].heartbeat().seq(), 3u);
}

// A member of the pool that speaks CURVE but not our protocol.
class RawPeer {
 public:
  explicit RawPeer(const PoolKey& key)
      : context_(zmq_ctx_new()), socket_(zmq_socket(context_, ZMQ_DEALER)) {
    const int linger = 0;
    zmq_setsockopt(socket_, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(socket_, ZMQ_CURVE_SERVERKEY, key.server_public.data(), 40);
    zmq_setsockopt(socket_, ZMQ_CURVE_PUBLICKEY, key.worker.public_key.data(), 40);
    zmq_setsockopt(socket_, ZMQ_CURVE_SECRETKEY, key.worker.secret_key.data(), 40);
  }
  RawPeer(const std::string& endpoint, const PoolKey& key) : RawPeer(key) { Connect(endpoint); }
  void Connect(const std::string& endpoint) {
    EXPECT_EQ(zmq_connect(socket_, endpoint.c_str()), 0);
  }
  ~RawPeer() {
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }
  void Send(const std::string& bytes, int flags = 0) {
    EXPECT_GE(zmq_send(socket_, bytes.data(), bytes.size(), flags), 0);
  }

 private:
  void* context_;
  void* socket_;
};

TEST(ChannelTest, GarbageFromAMemberIsDroppedAndCounted) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  const double malformed = Drops("malformed"), oversized = Drops("oversized");
  RawPeer peer(server.endpoint(), keys.pool);
  peer.Send("\xff\xff\xff\xff");                             // not protobuf
  peer.Send("");                                             // no body
  peer.Send(Heartbeat(1).SerializeAsString(), ZMQ_SNDMORE);  // two frames
  peer.Send("more");
  peer.Send(std::string(kMaxMessageBytes + 1, 'x'));  // too large
  peer.Send(Heartbeat(7).SerializeAsString());        // a good one
  ASSERT_TRUE(server.gate.Wait([&] { return !server.messages.empty(); }));
  EXPECT_EQ(server.messages.size(), 1u);
  EXPECT_EQ(server.messages[0].heartbeat().seq(), 7u);
  EXPECT_EQ(Drops("malformed"), malformed + 3);
  EXPECT_EQ(Drops("oversized"), oversized + 1);

  // Far over the limit costs the connection; the server goes on.
  peer.Send(std::string(3 * kMaxMessageBytes, 'x'));
  ASSERT_TRUE(server.gate.Wait([&] { return server.gone.size() == 1; }));
  Client client(server.endpoint(), keys.pool);
  client.channel->Send(Heartbeat(8));
  ASSERT_TRUE(server.gate.Wait([&] { return server.messages.size() == 2; }));
}

TEST(ChannelTest, ADepartedPeerIsToldAfterItsLastMessage) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  for (int round = 1; round <= 5; ++round) {
    Client client(server.endpoint(), keys.pool);
    client.channel->Send(Heartbeat(0));
    ASSERT_TRUE(client.gate.Wait([&] { return client.messages.size() == 1; }));
    for (uint64_t i = 1; i < 20; ++i) client.channel->Send(Heartbeat(i));
    client.channel.reset();
    ASSERT_TRUE(server.gate.Wait([&] { return server.gone.size() == size_t(round); })) << round;
    EXPECT_EQ(server.messages.size(), size_t(round) * 20);
  }
}

// A port probe ends, a peer's connection gets its descriptor, and the channel's thread, which has
// many messages to hand on, comes to both at once.
TEST(ChannelTest, APeerIsNotTakenForTheStrangerWhoseDescriptorItGot) {
  const Keys keys = MakeKeys();
  Gate gate;
  std::set<RouterChannel::PeerId> peers;
  std::vector<RouterChannel::PeerId> gone;
  std::atomic<int> handled{0};
  auto bound = RouterChannel::Bind(
      "tcp://127.0.0.1:0", keys.server,
      [&](const RouterChannel::PeerId& peer, ToCoordinator) {
        gate.Do([&] { peers.insert(peer); });
        std::this_thread::sleep_for(std::chrono::microseconds(100));
        ++handled;
      },
      [&](const RouterChannel::PeerId& peer) { gate.Do([&] { gone.push_back(peer); }); });
  ASSERT_TRUE(bound.ok()) << bound.status().ToString();
  const double before = Drops("handshake");
  const uint16_t port = (*bound)->port();
  const std::string endpoint = "tcp://127.0.0.1:" + std::to_string(port);
  constexpr size_t kPeers = 20;
  std::vector<std::unique_ptr<RawPeer>> alive;
  for (size_t i = 0; i < kPeers; ++i) alive.push_back(std::make_unique<RawPeer>(keys.pool));
  RawPeer busy(endpoint, keys.pool);
  std::atomic<bool> done{false};
  std::thread keeps([&] {
    for (int sent = 0; !done;) {
      if (sent - handled > 1000) {  // more than a turn takes
        std::this_thread::sleep_for(milliseconds(1));
      } else {
        busy.Send(Heartbeat(1).SerializeAsString());
        ++sent;
      }
    }
  });
  for (const auto& peer : alive) {
    // Their own ends keep their descriptors, so that those of the server's are free, and no others.
    UniqueFd probes[4];
    for (UniqueFd& probe : probes) probe.Reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (UniqueFd& probe : probes) {
      EXPECT_EQ(connect(probe.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    }
    for (UniqueFd& probe : probes) shutdown(probe.get(), SHUT_RDWR);
    std::this_thread::sleep_for(milliseconds(5));
    peer->Connect(endpoint);
    peer->Send(Heartbeat(2).SerializeAsString());
  }
  EXPECT_TRUE(gate.Wait([&] { return peers.size() == kPeers + 1; }));
  done = true;
  keeps.join();
  EXPECT_TRUE(Eventually([&] { return Drops("handshake") >= before + 4 * kPeers; }));
  gate.Do(
      [&] { EXPECT_TRUE(gone.empty()) << gone.size() << " of the living were taken for gone"; });
  bound->reset();
}

TEST(ChannelTest, SendingToAnUnknownPeerDoesNothing) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  const double before = Drops("unknown_peer");
  ToWorker message;
  message.mutable_drain();
  server.channel->Send("nobody", message);
  EXPECT_TRUE(Eventually([&] { return Drops("unknown_peer") == before + 1; }));
}

TEST(ChannelTest, AWorkerComesBackAfterTheCoordinatorRestarts) {
  const Keys keys = MakeKeys();
  auto server = std::make_unique<Server>(keys.server);
  const std::string endpoint = server->endpoint();
  Gate gate;
  int connections = 0;
  DealerChannel* channel = nullptr;
  Client client(endpoint, keys.pool, {.on_connected = [&] { gate.Do([&] { ++connections; }); }});
  channel = client.channel.get();
  ASSERT_TRUE(gate.Wait([&] { return connections == 1; }));
  channel->Send(Heartbeat(1));
  ASSERT_TRUE(client.gate.Wait([&] { return client.messages.size() == 1; }));

  server.reset();
  // Lost on purpose: a new connection starts with what its on_connected sends.
  std::this_thread::sleep_for(milliseconds(50));
  channel->Send(Heartbeat(2));
  server = std::make_unique<Server>(keys.server, endpoint);
  ASSERT_TRUE(gate.Wait([&] { return connections == 2; }));
  channel->Send(Heartbeat(3));
  ASSERT_TRUE(client.gate.Wait([&] { return client.messages.size() == 2; }));
  EXPECT_EQ(client.messages[1].heartbeat_ack().seq(), 3u);
  EXPECT_EQ(server->messages.size(), 1u);
}

TEST(ChannelTest, ReconnectGivesANewPeerId) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  Client client(server.endpoint(), keys.pool);
  client.channel->Send(Heartbeat(1));
  ASSERT_TRUE(client.gate.Wait([&] { return client.messages.size() == 1; }));
  client.channel->Reconnect("");
  client.channel->Send(Heartbeat(2));
  ASSERT_TRUE(client.gate.Wait([&] { return client.messages.size() == 2; }));
  EXPECT_EQ(server.peers.size(), 2u);
  ASSERT_TRUE(server.gate.Wait([&] { return server.gone.size() == 1; }));
}

// ZeroMQ's own thread tells of a handshake whoever listens: were nobody there any more, it would
// wait for ever, and with it every connection of the channel.
TEST(ChannelTest, ReconnectsAtAnyMomentOfAHandshake) {
  const Keys keys = MakeKeys();
  Server server(keys.server);
  std::atomic<int> connected{0};
  Client client(server.endpoint(), keys.pool, {.on_connected = [&] { ++connected; }});
  for (int i = 0; i < 1000; ++i) {
    client.channel->Reconnect("");
    std::this_thread::sleep_for(std::chrono::microseconds(i * 7919 % 4000));
  }
  const int before = connected;
  client.channel->Reconnect("");
  EXPECT_TRUE(Eventually([&] { return connected > before; })) << before << " connections so far";
}

TEST(ChannelTest, ClosingNeverHangs) {
  const Keys keys = MakeKeys();
  const auto start = RealClock().Now();
  {
    // Nobody listens there, and much waits to be sent.
    Client client("tcp://127.0.0.1:1", keys.pool);
    for (int i = 0; i < 100; ++i) client.channel->Send(Heartbeat(i));
  }
  {
    Server server(keys.server);
    auto client = std::make_unique<Client>(server.endpoint(), keys.pool);
    client->channel->Send(Heartbeat(1));
    ASSERT_TRUE(client->gate.Wait([&] { return !client->messages.empty(); }));
    server.channel.reset();
    ToCoordinator put;
    put.mutable_object_put()->set_data(std::string(1 << 20, 'x'));
    for (int i = 0; i < 10; ++i) client->channel->Send(put);
  }
  EXPECT_LT(RealClock().Now() - start, seconds(3));
}

TEST(ChannelTest, AQueueWithoutAConnectionIsBounded) {
  const Keys keys = MakeKeys();
  const double before = Drops("not_connected");
  Client client("tcp://127.0.0.1:1", keys.pool);
  ToCoordinator put;
  put.mutable_object_put()->set_data(std::string(1 << 20, 'x'));
  for (int i = 0; i < 32; ++i) client.channel->Send(put);
  EXPECT_GE(Drops("not_connected"), before + 16);
}

}  // namespace
}  // namespace lepton::wire
