// How two ranks convince each other that they belong to the same group and epoch. The token never
// travels; each side proves that it knows it for a nonce that the other chose just now.
//
//   connector                                   acceptor
//   Hello{epoch, size, from, to, kind, lane, nonce} ->
//                                             <- Challenge{verdict, nonce, HMAC("acceptor" ...)}
//   Proof{HMAC("connector" ...)} ->
//                                             <- Verdict{accepted}
//
// Both HMAC-SHA256 cover the hello and both nonces. What follows on the connection is neither
// encrypted nor authenticated: the network between workers is trusted not to alter packets, but any
// process on it may try to connect.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "runtime/base/status.h"

namespace lepton::collectives {

enum class ConnectionKind : uint16_t { kControl = 1, kData = 2 };

// Which of the connections between two ranks.
struct Connection {
  ConnectionKind kind = ConnectionKind::kControl;
  uint16_t lane = 0;  // of data (lanes.h)
};

enum class Verdict : uint32_t {
  kAccepted = 1,
  kWrongEpoch,
  kWrongGroup,  // another size, or a rank or lane that cannot be
  kDuplicate,
  kLate,
  kWrongToken,
  kMalformed,
  kBusy,  // too many unfinished handshakes: the connector tries again
};
// "epoch", "token": the `reason` label of lepton_collectives_refused_total.
const char* VerdictName(Verdict verdict);
void CountRefusal(Verdict verdict);

struct GroupKey {
  std::string token;
  uint64_t epoch = 0;
  int size = 0;
  int rank = 0;  // our own
};

// HMAC-SHA256 of `message` under the token: 32 bytes.
std::string Authenticate(const std::string& token, const std::string& message);

struct Hello {
  char magic[8];
  uint64_t epoch;
  uint32_t size;
  uint32_t from;
  uint32_t to;
  uint16_t kind;
  uint16_t lane;
  unsigned char nonce[32];
};
struct Challenge {
  char magic[8];
  uint32_t verdict;
  uint32_t reserved;
  unsigned char nonce[32];
  unsigned char proof[32];
};
struct Proof {
  unsigned char proof[32];
};

// The connector's side as a state machine, on a connected socket that it does not own: a peer that
// has not come to the meeting yet holds up no other.
class ConnectorHandshake {
 public:
  ConnectorHandshake(const GroupKey& key, int peer, Connection connection);
  // Once, as soon as the connection stands.
  Status Begin(int fd);
  // Call when readable. True when done. kPermissionDenied, saying why, when refused or when the
  // acceptor does not know the token; kUnavailable when it goes away.
  Result<bool> Advance(int fd);
  // It was refused for others' sake: another connection may be accepted.
  bool busy() const { return busy_; }

 private:
  Result<bool> Receive(int fd, void* message, size_t size);
  Status OnChallenge(int fd);
  Status Refused(uint32_t verdict);

  const GroupKey& key_;
  const int peer_;
  Hello hello_{};
  Challenge challenge_{};
  uint32_t verdict_ = 0;
  size_t received_ = 0;  // of the current message
  bool proved_ = false;
  bool busy_ = false;
};

// The acceptor's side as a state machine, so that a stranger who connects and keeps silent holds up
// nobody.
class AcceptorHandshake {
 public:
  // `judge` decides on a well-formed hello for this rank and group (duplicates, late comers).
  AcceptorHandshake(UniqueFd socket, const GroupKey& key,
                    std::function<Verdict(int from, Connection connection)> judge);

  int fd() const { return socket_.get(); }
  // Call when readable. False while more must come.
  bool Advance();
  // After Advance() returned true.
  Verdict verdict() const { return verdict_; }
  int from() const { return static_cast<int>(hello_.from); }
  Connection connection() const { return {static_cast<ConnectionKind>(hello_.kind), hello_.lane}; }
  UniqueFd TakeSocket() { return std::move(socket_); }
  // Tells the connector so, counts and closes.
  bool Refuse(Verdict verdict);

 private:
  bool Receive(void* message, size_t size);
  bool OnHello();
  bool OnProof();
  Verdict Judge() const;

  UniqueFd socket_;
  const GroupKey& key_;
  std::function<Verdict(int, Connection)> judge_;
  Hello hello_{};
  Challenge challenge_{};
  Proof proof_{};
  size_t received_ = 0;  // of the current message
  bool challenged_ = false;
  Verdict verdict_ = Verdict::kMalformed;
};

}  // namespace lepton::collectives
