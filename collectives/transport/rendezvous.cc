#include "collectives/transport/rendezvous.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <list>
#include <set>

#include "collectives/transport/control_frame.h"
#include "collectives/transport/dial.h"
#include "collectives/transport/lanes.h"

namespace lepton::collectives {
namespace {

constexpr size_t kMaxUnfinished = 64;  // besides the group's own
constexpr int kLivenessMs = 50;
constexpr int kAttempts = 3;  // of a connection, within the link's time-out

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
         TransportChoice transport, const Options& options, Deadline deadline, JoinedGroup* out)
      : group_(group),
        members_(members),
        transport_(transport),
        options_(options),
        deadline_(deadline),
        out_(*out) {
    size_t lanes = 0;
    if (transport != TransportChoice::kNone) {
      for (int peer = 0; peer < group.size; ++peer) {
        if (peer == group.rank) continue;
        out_.data[peer].resize(static_cast<size_t>(LanesBetween(members, group.rank, peer)));
        lanes += out_.data[peer].size();
      }
    }
    max_strangers_ = kMaxUnfinished + std::max(lanes, out_.control.size());
  }

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
  UniqueFd& Slot(int peer, Connection connection) {
    if (connection.kind == ConnectionKind::kControl) return out_.control[peer];
    return out_.data[peer][connection.lane];
  }
  std::vector<Connection> ConnectionsTo(int peer, ConnectionKind kind) const;
  Status AboutPeer(int peer, const Status& status) const {
    std::string who = "rank " + std::to_string(peer);
    if (status.code() == StatusCode::kUnavailable) {
      return Aborted(who + " died or gave up while joining: " + status.message());
    }
    return status.WithContext(who);
  }

  Status ConnectAll(ConnectionKind kind);
  bool limited() const { return options_.link_timeout > Duration{}; }
  Dial::Target TargetOf(int peer) const { return {peer, members_[peer].host, members_[peer].port}; }
  void StartDials(ConnectionKind kind);
  void ProbeMissing();
  void AdvanceDials();
  void OnDialFailed(const Dial& dial);
  void Keep(int peer, Connection connection, UniqueFd socket);
  void Note(Status failure) {
    if (failure_.ok()) failure_ = std::move(failure);
  }
  bool StillFindingOut() const;
  void Sleep();
  void AcceptStrangers();
  void AdvanceStrangers();
  Status CheckAlive() const;
  std::vector<int> Missing(ConnectionKind kind);
  Status ShareMemory();
  Result<bool> OfferMemory(const std::vector<int>& local, const std::string& tag);
  Result<bool> TakeMemory(int leader, int local_ranks, const std::string& tag);
  Status BecomeReady();
  Status TellReady(int* told);
  Status AwaitReady();

  const GroupSpec& group_;
  const std::vector<MemberAddress>& members_;
  TransportChoice transport_;
  const Options& options_;
  Deadline deadline_;
  JoinedGroup& out_;
  std::list<AcceptorHandshake> strangers_;
  size_t max_strangers_ = 0;
  std::set<int> unreachable_;  // that were told
  std::list<Dial> dials_;
  bool probed_ = false;
  Status failure_;  // the first
};

Status Joiner::ConnectAll(ConnectionKind kind) {
  StartDials(kind);
  const MonotonicTime probe_at = RealClock().Now() + options_.link_timeout / 2;
  while (true) {
    AdvanceDials();
    const std::vector<int> missing = Missing(kind);
    if (failure_.ok() && dials_.empty() && missing.empty()) return {};
    // Both ends of each pair that is cut are to know of it, so a meeting that has failed asks on.
    const bool due = !failure_.ok() || RealClock().Now() >= probe_at;
    if (limited() && kind == ConnectionKind::kControl && due && !probed_) ProbeMissing();
    if (!failure_.ok() && !StillFindingOut()) return failure_;
    if (deadline_.Expired()) {
      std::vector<int> late = missing;
      for (const Dial& dial : dials_) {
        if (std::count(late.begin(), late.end(), dial.peer()) == 0) late.push_back(dial.peer());
      }
      std::string who = late.size() == 1 ? "rank" : "ranks";
      for (int peer : late) who += " " + std::to_string(peer);
      who += " did not come in time";
      const auto hindered = std::find_if(dials_.begin(), dials_.end(),
                                         [](const Dial& dial) { return !dial.trouble().empty(); });
      return DeadlineExceeded(hindered == dials_.end() ? who : who + ": " + hindered->trouble());
    }
    Note(CheckAlive());
    Sleep();
    AcceptStrangers();
    AdvanceStrangers();
  }
}

void Joiner::StartDials(ConnectionKind kind) {
  dials_.clear();
  const Duration patience =
      limited() ? std::min(options_.link_timeout, deadline_.Left()) : deadline_.Left();
  for (int peer = 0; peer < group_.rank; ++peer) {
    for (const Connection connection : ConnectionsTo(peer, kind)) {
      dials_.emplace_back(TargetOf(peer), out_.key, connection, patience,
                          limited() ? kAttempts : 1);
    }
  }
}

std::vector<Connection> Joiner::ConnectionsTo(int peer, ConnectionKind kind) const {
  if (!Needs(peer, kind)) return {};
  if (kind == ConnectionKind::kControl) return {{kind}};
  std::vector<Connection> lanes;
  for (size_t lane = 0; lane < out_.data[peer].size(); ++lane) {
    lanes.push_back({kind, static_cast<uint16_t>(lane)});
  }
  return lanes;
}

void Joiner::ProbeMissing() {
  probed_ = true;
  for (const int peer : Missing(ConnectionKind::kControl)) {
    dials_.push_back(Dial::Probe(TargetOf(peer), options_.link_timeout / 2, kAttempts));
  }
}

void Joiner::AdvanceDials() {
  for (auto dial = dials_.begin(); dial != dials_.end();) {
    const bool came = dial->probe() && Slot(dial->peer(), {}).valid();
    const Dial::State state = came ? Dial::State::kDone : dial->Advance();
    if (state == Dial::State::kConnecting || state == Dial::State::kTalking) {
      ++dial;
      continue;
    }
    if (state == Dial::State::kFailed) {
      OnDialFailed(*dial);
    } else if (!dial->probe()) {
      Keep(dial->peer(), dial->connection(), dial->TakeSocket());
    }
    dial = dials_.erase(dial);
  }
}

void Joiner::OnDialFailed(const Dial& dial) {
  if (limited() && dial.unreachable()) {
    const bool told = !unreachable_.insert(dial.peer()).second;  // of another lane
    if (options_.unreachable && !told) {
      options_.unreachable(dial.peer(), dial.status().message());
    }
    Note(Aborted("rank " + std::to_string(dial.peer()) +
                 " cannot be reached: " + dial.status().message()));
  } else if (!dial.probe()) {
    Note(AboutPeer(dial.peer(), dial.status()));
  }  // else a probe was refused: it will not come, or its connection is on the way
}

void Joiner::Keep(int peer, Connection connection, UniqueFd socket) {
  // Not on data: a peer that computes for long reads nothing meanwhile.
  if (limited() && connection.kind == ConnectionKind::kControl) {
    LimitSilence(socket.get(), options_.link_timeout);
  }
  Slot(peer, connection) = std::move(socket);
}

bool Joiner::StillFindingOut() const {
  return limited() && std::any_of(dials_.begin(), dials_.end(), [](const Dial& dial) {
           return dial.state() == Dial::State::kConnecting;
         });
}

void Joiner::Sleep() {
  std::vector<pollfd> fds{{out_.listener.socket.get(), POLLIN, 0}};
  for (const Dial& dial : dials_) fds.push_back(dial.Poll());
  for (auto& stranger : strangers_) fds.push_back({stranger.fd(), POLLIN, 0});
  // Of a meeting that has failed the closed connections are no news.
  for (auto& control : out_.control) {
    if (control.valid() && failure_.ok()) fds.push_back({control.get(), POLLRDHUP, 0});
  }
  poll(fds.data(), fds.size(), deadline_.LeftMs(kLivenessMs));
}

std::vector<int> Joiner::Missing(ConnectionKind kind) {
  std::vector<int> missing;
  for (int peer = group_.rank + 1; peer < group_.size; ++peer) {
    const std::vector<Connection> needed = ConnectionsTo(peer, kind);
    if (std::any_of(needed.begin(), needed.end(),
                    [&](Connection one) { return !Slot(peer, one).valid(); })) {
      missing.push_back(peer);
    }
  }
  return missing;
}

void Joiner::AcceptStrangers() {
  while (true) {
    UniqueFd fd = AcceptFrom(out_.listener.socket);
    if (!fd.valid()) return;
    auto judge = [this](int from, Connection connection) {
      const bool data = connection.kind == ConnectionKind::kData;
      if (data && connection.lane >= out_.data[from].size()) return Verdict::kWrongGroup;
      return Slot(from, connection).valid() ? Verdict::kDuplicate : Verdict::kAccepted;
    };
    strangers_.emplace_back(std::move(fd), out_.key, judge);
    // Who came while this rank was not here yet has said who it is, or has nothing to say.
    if (strangers_.size() > max_strangers_) AdvanceStrangers();
    if (strangers_.size() > max_strangers_) {
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
    if (it->verdict() == Verdict::kAccepted) Keep(it->from(), it->connection(), it->TakeSocket());
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

// Those whom this rank has told may have begun. Where it cannot begin itself they hear why, for its
// connections close now, and that alone means a death.
Status Joiner::BecomeReady() {
  int told = 0;
  Status ready = TellReady(&told);
  if (ready.ok()) ready = AwaitReady();
  if (ready.ok()) return ready;
  const std::string why = EncodeControlFrame(ControlFrame::kAbort, ready.message());
  for (int peer = 0; peer < told; ++peer) {
    if (peer == group_.rank) continue;
    [[maybe_unused]] const ssize_t n =
        send(out_.control[peer].get(), why.data(), why.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  return ready;
}

// `told`: all below that rank.
Status Joiner::TellReady(int* told) {
  for (int& peer = *told; peer < group_.size; ++peer) {
    if (peer == group_.rank) continue;
    Status sent = SendAll(out_.control[peer].get(), &kReady, 1, deadline_);
    if (!sent.ok()) return AboutPeer(peer, sent);
  }
  return {};
}

Status Joiner::AwaitReady() {
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

std::vector<size_t> FindUnreachable(const std::vector<std::string>& addresses, Duration patience) {
  std::list<Dial> dials;
  for (size_t i = 0; i < addresses.size(); ++i) {
    const auto member = MemberAddress::Decode(addresses[i]);
    if (!member.ok()) continue;  // nothing to be said about it
    dials.push_back(
        Dial::Probe({static_cast<int>(i), member->host, member->port}, patience, kAttempts));
  }
  std::vector<size_t> unreachable;
  while (!dials.empty()) {
    for (auto dial = dials.begin(); dial != dials.end();) {
      if (dial->Advance() == Dial::State::kConnecting) {
        ++dial;
        continue;
      }
      if (dial->unreachable()) unreachable.push_back(static_cast<size_t>(dial->peer()));
      dial = dials.erase(dial);
    }
    std::vector<pollfd> fds;
    for (const Dial& dial : dials) fds.push_back(dial.Poll());
    if (!fds.empty()) poll(fds.data(), fds.size(), kLivenessMs);
  }
  std::sort(unreachable.begin(), unreachable.end());
  return unreachable;
}

Result<JoinedGroup> Rendezvous(Listener listener, const GroupSpec& group,
                               const std::vector<MemberAddress>& members, TransportChoice transport,
                               const Options& options, Deadline deadline) {
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
  Joiner joiner(group, members, transport, options, deadline, &out);
  LEPTON_RETURN_IF_ERROR(joiner.Run());
  if (out.local_ranks.empty()) out.local_ranks.push_back(group.rank);
  return out;
}

}  // namespace lepton::collectives
