#include "collectives/transport/handshake.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "collectives/transport/socket.h"
#include "runtime/base/hash.h"
#include "runtime/base/metrics.h"

namespace lepton::collectives {
namespace {

constexpr char kMagic[9] = "LPTNCOL1";

void Fill(unsigned char (&out)[32], const std::string& bytes) {
  std::memcpy(out, bytes.data(), 32);
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

Status Refused(int peer, uint32_t verdict) {
  return PermissionDenied("rank " + std::to_string(peer) + " refused us: wrong or late " +
                          VerdictName(static_cast<Verdict>(verdict)));
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
  metrics::Counter("lepton_collectives_refused_total",
                   "Connections refused by a group's endpoint, by reason.",
                   {{"reason", VerdictName(verdict)}})
      .Increment();
}

std::string Authenticate(const std::string& token, const std::string& message) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), token.data(), static_cast<int>(token.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), out, &size);
  return std::string(reinterpret_cast<char*>(out), size);
}

Status ConnectorHandshake(int fd, const GroupKey& key, int peer, ConnectionKind kind,
                          Deadline deadline) {
  Hello hello{};
  std::memcpy(hello.magic, kMagic, sizeof(hello.magic));
  hello.epoch = key.epoch;
  hello.size = static_cast<uint32_t>(key.size);
  hello.from = static_cast<uint32_t>(key.rank);
  hello.to = static_cast<uint32_t>(peer);
  hello.kind = static_cast<uint32_t>(kind);
  Fill(hello.nonce, RandomBytes(32));
  LEPTON_RETURN_IF_ERROR(SendAll(fd, &hello, sizeof(hello), deadline));
  Challenge challenge{};
  LEPTON_RETURN_IF_ERROR(ReceiveAll(fd, &challenge, sizeof(challenge), deadline));
  if (std::memcmp(challenge.magic, kMagic, sizeof(challenge.magic)) != 0) {
    return PermissionDenied("rank " + std::to_string(peer) +
                            "'s address answers in another protocol");
  }
  if (challenge.verdict != static_cast<uint32_t>(Verdict::kAccepted)) {
    return Refused(peer, challenge.verdict);
  }
  if (!Equal(challenge.proof, ProofFor(key, "acceptor", hello, challenge.nonce))) {
    return PermissionDenied("rank " + std::to_string(peer) + " does not know the group's token");
  }
  Proof proof{};
  Fill(proof.proof, ProofFor(key, "connector", hello, challenge.nonce));
  LEPTON_RETURN_IF_ERROR(SendAll(fd, &proof, sizeof(proof), deadline));
  uint32_t verdict = 0;
  LEPTON_RETURN_IF_ERROR(ReceiveAll(fd, &verdict, sizeof(verdict), deadline));
  if (verdict != static_cast<uint32_t>(Verdict::kAccepted)) return Refused(peer, verdict);
  return {};
}

AcceptorHandshake::AcceptorHandshake(UniqueFd socket, const GroupKey& key,
                                     std::function<Verdict(int, ConnectionKind)> judge)
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
  // A connector that knows another token hangs up on our proof.
  Refuse(challenged_ ? Verdict::kWrongToken : Verdict::kMalformed);
  return false;
}

Verdict AcceptorHandshake::Judge() const {
  if (std::memcmp(hello_.magic, kMagic, sizeof(hello_.magic)) != 0) return Verdict::kMalformed;
  if (hello_.epoch != key_.epoch) return Verdict::kWrongEpoch;
  bool known_kind = kind() == ConnectionKind::kControl || kind() == ConnectionKind::kData;
  if (!known_kind) return Verdict::kMalformed;
  if (hello_.size != static_cast<uint32_t>(key_.size) ||
      hello_.to != static_cast<uint32_t>(key_.rank) || hello_.from >= hello_.size ||
      hello_.from <= hello_.to) {
    return Verdict::kWrongGroup;
  }
  return judge_(from(), kind());
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
