#include "collectives/transport/handshake.h"

#include <netdb.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "collectives/group_faults.h"
#include "collectives/transport/socket.h"
#include "runtime/base/hash.h"
#include "runtime/base/logging.h"

namespace lepton::collectives {
namespace {

constexpr char kMagic[9] = "LPTNCOL2";

void Fill(unsigned char (&out)[32], const std::string& bytes) {
  std::memcpy(out, bytes.data(), 32);
}

std::string PeerOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    (void)getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host, sizeof(host), port,
                      sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
  }
  return std::string(host) + ":" + port;
}

std::string ProofFor(const GroupKey& key, const char* role, const Hello& hello,
                     const unsigned char (&acceptor_nonce)[32]) {
  std::string message(role);
  message.append(reinterpret_cast<const char*>(&hello), sizeof(hello));
  message.append(reinterpret_cast<const char*>(acceptor_nonce), 32);
  return Authenticate(key.token, message);
}

bool Equal(const unsigned char (&proof)[32], const std::string& expected) {
  return expected.size() == 32 && CRYPTO_memcmp(proof, expected.data(), 32) == 0;
}

// A fresh connection's buffer takes a handshake's few bytes at once.
Status SendWhole(int fd, const void* data, size_t size) {
  const ssize_t sent = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent == static_cast<ssize_t>(size)) return {};
  return Unavailable(ErrnoStatus(sent < 0 ? errno : EPIPE, "send").message());
}

const char* WhyRefused(uint32_t verdict) {
  switch (static_cast<Verdict>(verdict)) {
    case Verdict::kWrongEpoch:
      return "another epoch: the coordinator has formed a newer group, or this rank is ahead";
    case Verdict::kWrongGroup:
      return "another group: it counts other ranks, or lanes, than this one does";
    case Verdict::kDuplicate:
      return "duplicate: a process with this rank is connected already";
    case Verdict::kLate:
      return "late: its group has met";
    case Verdict::kWrongToken:
      return "wrong token: its group is another job's, or another attempt's";
    case Verdict::kBusy:
      return "busy: too many connections to its port prove nothing; keep other programs, a port "
             "scanner perhaps, from the ports of tasks";
    default:
      return "malformed: it understood nothing, as if of another version of this program";
  }
}

}  // namespace

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kAccepted:
      return "accepted";
    case Verdict::kWrongEpoch:
      return "epoch";
    case Verdict::kWrongGroup:
      return "group";
    case Verdict::kDuplicate:
      return "duplicate";
    case Verdict::kLate:
      return "late";
    case Verdict::kWrongToken:
      return "token";
    case Verdict::kMalformed:
      return "malformed";
    case Verdict::kBusy:
      return "busy";
  }
  return "unknown";
}

void CountRefusal(Verdict verdict) {
  CountRefused(VerdictName(verdict));
}

std::string Authenticate(const std::string& token, const std::string& message) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), token.data(), static_cast<int>(token.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), out, &size);
  return std::string(reinterpret_cast<char*>(out), size);
}

ConnectorHandshake::ConnectorHandshake(const GroupKey& key, int peer, Connection connection)
    : key_(key), peer_(peer) {
  std::memcpy(hello_.magic, kMagic, sizeof(hello_.magic));
  hello_.epoch = key.epoch;
  hello_.size = static_cast<uint32_t>(key.size);
  hello_.from = static_cast<uint32_t>(key.rank);
  hello_.to = static_cast<uint32_t>(peer);
  hello_.kind = static_cast<uint16_t>(connection.kind);
  hello_.lane = connection.lane;
  Fill(hello_.nonce, RandomBytes(32));
}

Status ConnectorHandshake::Begin(int fd) {
  return SendWhole(fd, &hello_, sizeof(hello_));
}

Result<bool> ConnectorHandshake::Advance(int fd) {
  if (!proved_) {
    LEPTON_ASSIGN_OR_RETURN(const bool whole, Receive(fd, &challenge_, sizeof(challenge_)));
    if (whole) LEPTON_RETURN_IF_ERROR(OnChallenge(fd));
    return false;
  }
  LEPTON_ASSIGN_OR_RETURN(const bool whole, Receive(fd, &verdict_, sizeof(verdict_)));
  if (!whole) return false;
  if (verdict_ != static_cast<uint32_t>(Verdict::kAccepted)) return Refused(verdict_);
  return true;
}

Status ConnectorHandshake::OnChallenge(int fd) {
  if (std::memcmp(challenge_.magic, kMagic, sizeof(challenge_.magic)) != 0) {
    return PermissionDenied("rank " + std::to_string(peer_) +
                            "'s address answers in another protocol");
  }
  if (challenge_.verdict != static_cast<uint32_t>(Verdict::kAccepted)) {
    return Refused(challenge_.verdict);
  }
  if (!Equal(challenge_.proof, ProofFor(key_, "acceptor", hello_, challenge_.nonce))) {
    return PermissionDenied("rank " + std::to_string(peer_) + " does not know the group's token");
  }
  Proof proof{};
  Fill(proof.proof, ProofFor(key_, "connector", hello_, challenge_.nonce));
  proved_ = true;
  return SendWhole(fd, &proof, sizeof(proof));
}

Status ConnectorHandshake::Refused(uint32_t verdict) {
  busy_ = verdict == static_cast<uint32_t>(Verdict::kBusy);
  return PermissionDenied("rank " + std::to_string(peer_) + " refused us: " + WhyRefused(verdict));
}

// True when the message is complete.
Result<bool> ConnectorHandshake::Receive(int fd, void* message, size_t size) {
  const ssize_t got =
      recv(fd, static_cast<char*>(message) + received_, size - received_, MSG_DONTWAIT);
  if (got == 0) return Unavailable("connection closed");
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return false;
  if (got < 0) return Unavailable(ErrnoStatus(errno, "receive").message());
  received_ += static_cast<size_t>(got);
  if (received_ < size) return false;
  received_ = 0;
  return true;
}

AcceptorHandshake::AcceptorHandshake(UniqueFd socket, const GroupKey& key,
                                     std::function<Verdict(int, Connection)> judge)
    : socket_(std::move(socket)), key_(key), judge_(std::move(judge)) {}

bool AcceptorHandshake::Advance() {
  if (!challenged_) {
    if (!Receive(&hello_, sizeof(hello_))) return !socket_.valid();
    return OnHello();
  }
  if (!Receive(&proof_, sizeof(proof_))) return !socket_.valid();
  return OnProof();
}

// True when the message is complete; closes the socket when the stranger is gone.
bool AcceptorHandshake::Receive(void* message, size_t size) {
  ssize_t got =
      recv(socket_.get(), static_cast<char*>(message) + received_, size - received_, MSG_DONTWAIT);
  if (got > 0) {
    received_ += static_cast<size_t>(got);
    if (received_ < size) return false;
    received_ = 0;
    return true;
  }
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return false;
  if (got == 0 && received_ == 0 && !challenged_) {  // a probe: nothing was asked
    socket_.Reset();
    return false;
  }
  // A connector that knows another token hangs up on our proof.
  Refuse(challenged_ ? Verdict::kWrongToken : Verdict::kMalformed);
  return false;
}

Verdict AcceptorHandshake::Judge() const {
  if (std::memcmp(hello_.magic, kMagic, sizeof(hello_.magic)) != 0) return Verdict::kMalformed;
  if (hello_.epoch != key_.epoch) return Verdict::kWrongEpoch;
  const auto [kind, lane] = connection();
  const bool known =
      kind == ConnectionKind::kData || (kind == ConnectionKind::kControl && lane == 0);
  if (!known) return Verdict::kMalformed;
  if (hello_.size != static_cast<uint32_t>(key_.size) ||
      hello_.to != static_cast<uint32_t>(key_.rank) || hello_.from >= hello_.size ||
      hello_.from <= hello_.to) {
    return Verdict::kWrongGroup;
  }
  return judge_(from(), connection());
}

bool AcceptorHandshake::OnHello() {
  Verdict verdict = Judge();
  if (verdict != Verdict::kAccepted) return Refuse(verdict);
  std::memcpy(challenge_.magic, kMagic, sizeof(challenge_.magic));
  challenge_.verdict = static_cast<uint32_t>(Verdict::kAccepted);
  Fill(challenge_.nonce, RandomBytes(32));
  Fill(challenge_.proof, ProofFor(key_, "acceptor", hello_, challenge_.nonce));
  challenged_ = true;
  // A fresh connection's buffer takes these bytes at once.
  ssize_t sent = send(socket_.get(), &challenge_, sizeof(challenge_), MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent == sizeof(challenge_) ? false : Refuse(Verdict::kMalformed);
}

bool AcceptorHandshake::OnProof() {
  if (!Equal(proof_.proof, ProofFor(key_, "connector", hello_, challenge_.nonce))) {
    return Refuse(Verdict::kWrongToken);
  }
  Verdict verdict = Judge();  // again: the same rank may have come twice meanwhile
  if (verdict != Verdict::kAccepted) return Refuse(verdict);
  verdict_ = Verdict::kAccepted;
  uint32_t answer = static_cast<uint32_t>(verdict_);
  ssize_t sent = send(socket_.get(), &answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent == sizeof(answer) ? true : Refuse(Verdict::kMalformed);
}

bool AcceptorHandshake::Refuse(Verdict verdict) {
  verdict_ = verdict;
  CountRefusal(verdict);
  // Late comers and those of another epoch are what a recovery leaves behind; these are strangers.
  if (verdict == Verdict::kWrongToken || verdict == Verdict::kMalformed) {
    LOG_EVERY_T(WARNING, 1) << "refused a connection from " << PeerOf(socket_.get())
                            << " to this rank's group (" << VerdictName(verdict) << ")";
  }
  uint32_t answer = static_cast<uint32_t>(verdict);
  if (challenged_) {
    (void)!send(socket_.get(), &answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL);
  } else {
    Challenge challenge{};
    std::memcpy(challenge.magic, kMagic, sizeof(challenge.magic));
    challenge.verdict = answer;
    (void)!send(socket_.get(), &challenge, sizeof(challenge), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  socket_.Reset();
  return true;
}

}  // namespace lepton::collectives
