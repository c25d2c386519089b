// One outgoing connection of a meeting, as a state machine: many are under way at once, and one
// whose packets vanish holds up none of the others.
//
//   CONNECTING --stands--> TALKING --proved--> DONE        a probe is DONE as soon as it stands
//    |  ^ tries again while its patience lasts
//    v  |
//   (no way, no answer; the peer is busy)   FAILED: refused by the peer, or unreachable
//
// Threads: one.
#pragma once

#include <poll.h>

#include <optional>
#include <string>
#include <utility>

#include "collectives/transport/handshake.h"
#include "collectives/transport/member_address.h"
#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "runtime/base/status.h"

namespace lepton::collectives {

class Dial {
 public:
  enum class State { kConnecting, kTalking, kDone, kFailed };
  struct Target {
    int peer = 0;
    std::string host;
    uint16_t port = 0;
  };
  // `patience`: how long the network may take to connect, over `attempts`. What follows has the
  // meeting's deadline.
  Dial(Target target, const GroupKey& key, Connection connection, Duration patience, int attempts);
  // Only whether the target can be reached.
  static Dial Probe(Target target, Duration patience, int attempts);

  // Call when Poll() has news, and every now and then.
  State Advance();
  State state() const { return state_; }
  pollfd Poll() const;
  int peer() const { return target_.peer; }
  Connection connection() const { return connection_; }
  bool probe() const { return key_ == nullptr; }
  UniqueFd TakeSocket() { return std::move(socket_); }  // kDone

  // kFailed. kUnavailable: nobody listens there, or it went away. kDeadlineExceeded: no connection
  // came about. kResourceExhausted: no descriptor is left for a socket. Else as of
  // ConnectorHandshake.
  const Status& status() const { return status_; }
  // What hindered the newest attempt; empty if nothing did.
  const std::string& trouble() const { return last_error_; }
  // No connection came about, and nobody refused one.
  bool unreachable() const { return unreachable_; }

 private:
  Dial(Target target, const GroupKey* key, Connection connection, Duration patience, int attempts);
  void TryAgain();
  void OnConnected();
  void OnError(int error);
  void OnBusy(const Status& refused);
  void Fail(Status status);

  Target target_;
  const GroupKey* key_;
  Connection connection_;
  Duration patience_, attempt_;
  MonotonicTime give_up_, next_attempt_{};
  State state_ = State::kConnecting;
  UniqueFd socket_;
  std::optional<ConnectorHandshake> handshake_;
  std::string last_error_;
  Status status_;
  bool unreachable_ = false;
};

}  // namespace lepton::collectives
