#include "collectives/transport/rendezvous.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <list>

namespace lepton::collectives {
namespace {

constexpr size_t kMaxUnfinished = 64;
constexpr int kLivenessMs = 50;

// Step 2's messages, and step 4's.
struct SegmentOffer {
  int32_t pid;  // 0: there is none
  int32_t fd;
};
constexpr char kYes = 'Y';
constexpr char kNo = 'N';
constexpr char kReady = 'R';

class Joiner {
 public:
  Joiner(const GroupSpec& group, const std::vector<MemberAddress>& members,
         TransportChoice transport, Deadline deadline, JoinedGroup* out)
      : group_(group), members_(members), transport_(transport), deadline_(deadline), out_(*out) {}

  Status Run() {
    LEPTON_RETURN_IF_ERROR(ConnectAll(ConnectionKind::kControl));
    LEPTON_RETURN_IF_ERROR(ShareMemory());
    LEPTON_RETURN_IF_ERROR(ConnectAll(ConnectionKind::kData));
    return BecomeReady();
  }

 private:
  bool SameHost(int peer) const {
    return members_[peer].host_identity == members_[group_.rank].host_identity;
  }
  bool Needs(int peer, ConnectionKind kind) const {
    if (kind == ConnectionKind::kControl) return true;
    if (transport_ == TransportChoice::kNone) return false;
    const auto& local = out_.local_ranks;
    return std::find(local.begin(), local.end(), peer) == local.end();
  }
  UniqueFd& Slot(int peer, ConnectionKind kind) {
    return kind == ConnectionKind::kControl ? out_.control[peer] : out_.data[peer];
  }
  Status AboutPeer(int peer, const Status& status) const {
    std::string who = "rank " + std::to_string(peer);
    if (status.code() == StatusCode::kUnavailable) {
      return Aborted(who + " died or gave up while joining: " + status.message());
    }
    return status.WithContext(who);
  }

  Status ConnectAll(ConnectionKind kind);
  Status AcceptAll(ConnectionKind kind);
  void AcceptStrangers();
  void AdvanceStrangers();
  Status CheckAlive() const;
  std::vector<int> Missing(ConnectionKind kind);
  Status ShareMemory();
  Result<bool> OfferMemory(const std::vector<int>& local, const std::string& tag);
  Result<bool> TakeMemory(int leader, int local_ranks, const std::string& tag);
  Status BecomeReady();

  const GroupSpec& group_;
  const std::vector<MemberAddress>& members_;
  TransportChoice transport_;
  Deadline deadline_;
  JoinedGroup& out_;
  std::list<AcceptorHandshake> strangers_;
};

Status Joiner::ConnectAll(ConnectionKind kind) {
  for (int peer = 0; peer < group_.rank; ++peer) {
    if (!Needs(peer, kind)) continue;
    auto fd = ConnectTo(members_[peer].host, members_[peer].port, deadline_);
    if (!fd.ok()) return AboutPeer(peer, fd.status());
    Status status = ConnectorHandshake(fd->get(), out_.key, peer, kind, deadline_);
    if (!status.ok()) return AboutPeer(peer, status);
    Slot(peer, kind) = std::move(*fd);
  }
  return AcceptAll(kind);
}

std::vector<int> Joiner::Missing(ConnectionKind kind) {
  std::vector<int> missing;
  for (int peer = group_.rank + 1; peer < group_.size; ++peer) {
    if (Needs(peer, kind) && !Slot(peer, kind).valid()) missing.push_back(peer);
  }
  return missing;
}

Status Joiner::AcceptAll(ConnectionKind kind) {
  for (auto missing = Missing(kind); !missing.empty(); missing = Missing(kind)) {
    if (deadline_.Expired()) {
      std::string who = missing.size() == 1 ? "rank" : "ranks";
      for (int peer : missing) who += " " + std::to_string(peer);
      return DeadlineExceeded(who + " did not come in time");
    }
    LEPTON_RETURN_IF_ERROR(CheckAlive());
    std::vector<pollfd> fds{{out_.listener.socket.get(), POLLIN, 0}};
    for (auto& stranger : strangers_) fds.push_back({stranger.fd(), POLLIN, 0});
    for (auto& control : out_.control) {
      if (control.valid()) fds.push_back({control.get(), POLLRDHUP, 0});
    }
    poll(fds.data(), fds.size(), deadline_.LeftMs(kLivenessMs));
    AcceptStrangers();
    AdvanceStrangers();
  }
  return {};
}

void Joiner::AcceptStrangers() {
  while (true) {
    UniqueFd fd = AcceptFrom(out_.listener.socket);
    if (!fd.valid()) return;
    auto judge = [this](int from, ConnectionKind kind) {
      return Slot(from, kind).valid() ? Verdict::kDuplicate : Verdict::kAccepted;
    };
    strangers_.emplace_back(std::move(fd), out_.key, judge);
    if (strangers_.size() > kMaxUnfinished) {
      strangers_.front().Refuse(Verdict::kBusy);
      strangers_.pop_front();
    }
  }
}

void Joiner::AdvanceStrangers() {
  for (auto it = strangers_.begin(); it != strangers_.end();) {
    if (!it->Advance()) {
      ++it;
      continue;
    }
    if (it->verdict() == Verdict::kAccepted) Slot(it->from(), it->kind()) = it->TakeSocket();
    it = strangers_.erase(it);
  }
}

// Nobody waits out the deadline for a rank that is known to be dead.
Status Joiner::CheckAlive() const {
  for (int peer = 0; peer < group_.size; ++peer) {
    if (peer == group_.rank) continue;
    if (out_.control[peer].valid()) {
      pollfd closed{out_.control[peer].get(), POLLRDHUP, 0};
      if (poll(&closed, 1, 0) > 0) return AboutPeer(peer, Unavailable("connection closed"));
    } else if (SameHost(peer) && kill(members_[peer].pid, 0) != 0 && errno == ESRCH) {
      return AboutPeer(peer, Unavailable("its process is gone"));
    }
  }
  return {};
}

Status Joiner::ShareMemory() {
  std::vector<int> local;
  for (int peer = 0; peer < group_.size; ++peer) {
    if (SameHost(peer)) local.push_back(peer);
  }
  if (transport_ == TransportChoice::kShm && static_cast<int>(local.size()) < group_.size) {
    return InvalidArgument(
        "LEPTON_COLLECTIVES_TRANSPORT=shm, but not all ranks are on one host: use auto");
  }
  bool wanted = transport_ == TransportChoice::kAuto || transport_ == TransportChoice::kShm;
  if (!wanted || local.size() < 2) return {};
  // Not the token itself, and different for every group.
  std::string tag = Authenticate(group_.token, "segment " + std::to_string(group_.epoch));
  auto shared = local.front() == group_.rank
                    ? OfferMemory(local, tag)
                    : TakeMemory(local.front(), static_cast<int>(local.size()), tag);
  LEPTON_RETURN_IF_ERROR(shared.status());
  if (*shared) {
    out_.local_ranks = local;
    return {};
  }
  out_.segment.reset();
  if (transport_ == TransportChoice::kAuto) return {};
  return Unavailable("LEPTON_COLLECTIVES_TRANSPORT=shm, but not all ranks could map the memory");
}

Result<bool> Joiner::OfferMemory(const std::vector<int>& local, const std::string& tag) {
  auto segment = SharedSegment::Create(static_cast<int>(local.size()), tag);
  SegmentOffer offer{0, 0};
  if (segment.ok()) offer = {getpid(), (*segment)->fd()};
  bool all = segment.ok();
  for (int peer : local) {
    if (peer == group_.rank) continue;
    Status sent = SendAll(out_.control[peer].get(), &offer, sizeof(offer), deadline_);
    if (!sent.ok()) return AboutPeer(peer, sent);
  }
  for (int peer : local) {
    if (peer == group_.rank) continue;
    char answer = kNo;
    Status got = ReceiveAll(out_.control[peer].get(), &answer, 1, deadline_);
    if (!got.ok()) return AboutPeer(peer, got);
    all &= answer == kYes;
  }
  for (int peer : local) {
    if (peer == group_.rank) continue;
    Status sent = SendAll(out_.control[peer].get(), all ? &kYes : &kNo, 1, deadline_);
    if (!sent.ok()) return AboutPeer(peer, sent);
  }
  if (all) out_.segment = std::move(*segment);
  return all;
}

Result<bool> Joiner::TakeMemory(int leader, int local_ranks, const std::string& tag) {
  int control = out_.control[leader].get();
  SegmentOffer offer{};
  Status status = ReceiveAll(control, &offer, sizeof(offer), deadline_);
  if (!status.ok()) return AboutPeer(leader, status);
  bool mapped = false;
  if (offer.pid != 0) {
    auto segment = SharedSegment::Open(offer.pid, offer.fd, local_ranks, tag);
    mapped = segment.ok();
    if (mapped) out_.segment = std::move(*segment);
  }
  status = SendAll(control, mapped ? &kYes : &kNo, 1, deadline_);
  char verdict = kNo;
  if (status.ok()) status = ReceiveAll(control, &verdict, 1, deadline_);
  if (!status.ok()) return AboutPeer(leader, status);
  return verdict == kYes;
}

Status Joiner::BecomeReady() {
  for (int peer = 0; peer < group_.size; ++peer) {
    if (peer == group_.rank) continue;
    Status sent = SendAll(out_.control[peer].get(), &kReady, 1, deadline_);
    if (!sent.ok()) return AboutPeer(peer, sent);
  }
  for (int peer = 0; peer < group_.size; ++peer) {
    if (peer == group_.rank) continue;
    char ready = 0;
    Status got = ReceiveAll(out_.control[peer].get(), &ready, 1, deadline_);
    if (!got.ok()) return AboutPeer(peer, got);
    if (ready != kReady) return Internal("rank " + std::to_string(peer) + ": bad ready byte");
  }
  return {};
}

}  // namespace

Result<JoinedGroup> Rendezvous(Listener listener, const GroupSpec& group,
                               const std::vector<MemberAddress>& members, TransportChoice transport,
                               Deadline deadline) {
  JoinedGroup out;
  out.key = {group.token, group.epoch, group.size, group.rank};
  out.listener = std::move(listener);
  out.control.resize(static_cast<size_t>(group.size));
  out.data.resize(static_cast<size_t>(group.size));
  const std::string& here = members[group.rank].host_identity;
  for (const auto& member : members) {
    bool local = member.host_identity == here && member.pid != getpid();
    out.pids.push_back(local ? member.pid : 0);
  }
  Joiner joiner(group, members, transport, deadline, &out);
  LEPTON_RETURN_IF_ERROR(joiner.Run());
  if (out.local_ranks.empty()) out.local_ranks.push_back(group.rank);
  return out;
}

}  // namespace lepton::collectives
