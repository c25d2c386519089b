#include "collectives/transport/watcher.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "runtime/base/config.h"
#include "runtime/base/freeze.h"
#include "runtime/base/named_thread.h"
#include "runtime/base/progress.h"

namespace lepton::collectives {
namespace {

constexpr int kPulsesInTime = 5;  // within the link's time-out
constexpr size_t kMaxLate = 16;

struct Pulse {
  uint64_t ticks;  // all that shows that it moves
  uint64_t begun;  // operations
  uint32_t computing;
  uint32_t reserved;
};

// When this process last saw anybody move, itself or a peer in any of its groups. Ranks of one
// group may wait for one that waits in another, where somebody moves whom they do not see: the
// groups of a split, of which the parent sees all.
std::atomic<int64_t> newest_move_ns{0};

void SawMove(MonotonicTime now) {
  newest_move_ns.store(now.time_since_epoch().count(), std::memory_order_relaxed);
}

MonotonicTime NewestMove() {
  return MonotonicTime(Duration(newest_move_ns.load(std::memory_order_relaxed)));
}

}  // namespace

Result<std::unique_ptr<Watcher>> Watcher::Start(JoinedGroup& group,
                                                std::shared_ptr<Failure> failure,
                                                const Options& options, Links links) {
  UniqueFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop.valid()) return ErrnoStatus(errno, "eventfd");
  std::unique_ptr<Watcher> watcher(
      new Watcher(group, std::move(failure), options, std::move(links), std::move(stop)));
  watcher->thread_ = NamedThread("peer-watch", [w = watcher.get()] { w->Loop(); });
  return watcher;
}

Watcher::Watcher(JoinedGroup& group, std::shared_ptr<Failure> failure, const Options& options,
                 Links links, UniqueFd stop)
    : key_(group.key),
      listener_(std::move(group.listener)),
      peers_(group.control.size()),
      failure_(std::move(failure)),
      pulse_every_(options.link_timeout / kPulsesInTime),
      patience_(options.timeout),
      mesh_(links.mesh),
      looks_(group.control.size()),
      rates_(key_.rank, std::move(links.hosts)),
      next_pulse_(RealClock().Now()),
      stop_(std::move(stop)) {
  for (size_t rank = 0; rank < peers_.size(); ++rank) {
    peers_[rank].control = std::move(group.control[rank]);
    // Where there is none, the closed connection alone tells.
    if (group.pids[rank] != 0) {
      peers_[rank].pidfd.Reset(static_cast<int>(syscall(SYS_pidfd_open, group.pids[rank], 0)));
    }
  }
}

Watcher::~Watcher() {
  // The last word on every connection says why it closes: a connection that closes without one is a
  // death, and must not be mistaken for the retreat of a rank that heard of a death first.
  if (!failure_->raised()) {
    Send(ControlFrame::kGoodbye, "");
  } else if (!told_.load()) {
    Send(ControlFrame::kAbort, failure_->cause().message());
  }
  eventfd_write(stop_.get(), 1);
  thread_.join();
}

void Watcher::TellAbort(const std::string& message) {
  told_.store(true);
  Send(ControlFrame::kAbort, message);
}

void Watcher::Send(ControlFrame type, const std::string& payload) {
  const std::string frame = EncodeControlFrame(type, payload);
  std::lock_guard lock(send_mutex_);
  for (Peer& peer : peers_) {
    // A peer whose watcher has not read for so long that its buffer is full of pulses gets no more:
    // it learns that the group is over as the connection closes, as one does that has died.
    if (!peer.control.valid() || peer.full) continue;
    const ssize_t sent =
        send(peer.control.get(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    peer.full = sent > 0 && static_cast<size_t>(sent) < frame.size();
  }
}

void Watcher::Loop() {
  std::vector<pollfd> fds;
  while (true) {
    fds.assign({{stop_.get(), POLLIN, 0}, {listener_.socket.get(), POLLIN, 0}});
    for (const Peer& peer : peers_) {  // poll ignores negative descriptors
      fds.push_back({peer.control.get(), POLLIN | POLLRDHUP, 0});
      fds.push_back({peer.pidfd.get(), POLLIN, 0});
    }
    for (auto& stranger : late_) fds.push_back({stranger.fd(), POLLIN, 0});
    if (poll(fds.data(), fds.size(), SendPulse()) < 0) continue;
    if (fds[0].revents != 0) return;
    for (size_t rank = 0; rank < peers_.size(); ++rank) {
      int r = static_cast<int>(rank);
      bool exited = fds[3 + 2 * rank].revents != 0;
      if (fds[2 + 2 * rank].revents != 0 || exited) OnControl(r);
      if (exited) OnGone(r, "its process ended");
    }
    OnListener();
  }
}

// When due; returns the milliseconds until the next one, -1 for never.
int Watcher::SendPulse() {
  if (pulse_every_ <= Duration{}) return -1;
  const MonotonicTime now = RealClock().Now();
  if (now >= next_pulse_) {
    // The peers were frozen with it, most likely, and none of their pulses has been read.
    if (WasFrozen(next_pulse_, now, patience_)) {
      SawMove(now);
      const std::lock_guard lock(looks_mutex_);
      rates_.Restart();
    }
    next_pulse_ = now + pulse_every_;
    const progress::Look look = progress::Now();
    const Activity& activity = failure_->activity();
    const Pulse pulse{look.ticks + look.moves, activity.begun(), look.computing ? 1u : 0u, 0};
    Send(ControlFrame::kPulse, std::string(reinterpret_cast<const char*>(&pulse), sizeof(pulse)));
    See(key_.rank, pulse.ticks, pulse.begun, look.computing);
    CheckMoving();
    LookAtLinks(now);
  }
  return std::max(1, Deadline(next_pulse_).LeftMs());
}

void Watcher::LookAtLinks(MonotonicTime now) {
  if (mesh_ == nullptr) return;
  const std::vector<LinkLook> looks = mesh_->LookAtLinks();
  std::string row;
  {
    const std::lock_guard lock(looks_mutex_);
    if (!rates_.Look(looks, now)) return;
    row = rates_.row();
  }
  Send(ControlFrame::kRates, row);
}

void Watcher::OnPulse(int rank, const std::string& payload) {
  Pulse pulse;
  if (payload.size() != sizeof(pulse)) return;
  std::memcpy(&pulse, payload.data(), sizeof(pulse));
  See(rank, pulse.ticks, pulse.begun, pulse.computing != 0);
}

void Watcher::See(int rank, uint64_t ticks, uint64_t begun, bool computing) {
  std::lock_guard lock(looks_mutex_);
  Look& look = looks_[static_cast<size_t>(rank)];
  const bool still = look.ticks == ticks && look.begun == begun && look.moved != MonotonicTime{};
  const MonotonicTime now = RealClock().Now();
  if (!still) SawMove(now);
  look = {ticks, begun, computing, still ? look.moved : now};
}

// A rank that is stuck is killed by its agent, and one that is slow moves, as does a disk: what is
// left are groups in which all wait for each other, or for a disk that hangs.
void Watcher::CheckMoving() {
  const std::optional<MonotonicTime> since = failure_->activity().since();
  if (!since || failure_->raised()) return;
  MonotonicTime moved = std::max(*since, NewestMove());
  {
    std::lock_guard lock(looks_mutex_);
    for (const Look& look : looks_) moved = std::max(moved, look.moved);
  }
  if (RealClock().Now() - moved < patience_) return;
  std::string who;
  for (const Straggler& straggler : Stragglers()) {
    who += (who.empty() ? "" : ", ") + ("rank " + std::to_string(straggler.rank));
  }
  const std::string message = "no answer from " + (who.empty() ? "the peers" : who) +
                              ", and nobody in the group has moved for " +
                              FormatDuration(patience_);
  if (failure_->Raise(DeadlineExceeded(message))) TellAbort(message);
}

std::vector<Straggler> Watcher::Stragglers() const {
  const Activity& activity = failure_->activity();
  const std::optional<MonotonicTime> since = activity.since();
  std::vector<Straggler> behind;
  if (!since || pulse_every_ <= Duration{}) return behind;
  const Duration waited = RealClock().Now() - *since;
  std::lock_guard lock(looks_mutex_);
  for (size_t rank = 0; rank < looks_.size(); ++rank) {
    const Look& look = looks_[rank];
    if (static_cast<int>(rank) == key_.rank || look.begun >= activity.begun()) continue;
    behind.push_back({static_cast<int>(rank), waited, look.computing});
  }
  return behind;
}

std::vector<SlowLink> Watcher::SlowLinks() const {
  const std::lock_guard lock(looks_mutex_);
  return rates_.Slow();
}

void Watcher::OnControl(int rank) {
  Peer& peer = peers_[rank];
  char buffer[4096];
  while (peer.control.valid()) {
    ssize_t got = recv(peer.control.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got > 0) {
      peer.input.append(buffer, static_cast<size_t>(got));
      OnFrames(rank);
    } else if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
      return;
    } else if (got < 0 && errno != ECONNRESET) {
      return OnUnreachable(rank, std::strerror(errno));
    } else {
      return OnGone(rank, "its connection closed");
    }
  }
}

void Watcher::OnFrames(int rank) {
  std::string& input = peers_[rank].input;
  ControlFrameHeader header;
  while (input.size() >= sizeof(header)) {
    std::memcpy(&header, input.data(), sizeof(header));
    if (header.bytes > kMaxControlPayload) return OnGone(rank, "it sent a malformed frame");
    if (input.size() < sizeof(header) + header.bytes) return;
    if (header.type == ControlFrame::kGoodbye) {
      failure_->MarkLeft(rank);
    } else if (header.type == ControlFrame::kPulse) {
      OnPulse(rank, input.substr(sizeof(header), header.bytes));
    } else if (header.type == ControlFrame::kRates) {
      const std::lock_guard lock(looks_mutex_);
      rates_.SetRow(rank, std::string_view(input).substr(sizeof(header), header.bytes));
    } else if (header.type == ControlFrame::kAbort) {
      failure_->Raise(Aborted(input.substr(sizeof(header), header.bytes)));
    }
    input.erase(0, sizeof(header) + header.bytes);
  }
}

void Watcher::OnGone(int rank, const std::string& why) {
  Forget(rank);
  if (failure_->HasLeft(rank)) return;
  Break("rank " + std::to_string(rank) + " died: " + why);
}

// It may well live: the network says no.
void Watcher::OnUnreachable(int rank, const std::string& why) {
  Forget(rank);
  Break("rank " + std::to_string(rank) + " cannot be reached any more: " + why);
}

void Watcher::Forget(int rank) {
  std::lock_guard lock(send_mutex_);
  peers_[rank].control.Reset();
  peers_[rank].pidfd.Reset();
}

void Watcher::Break(const std::string& message) {
  if (failure_->Raise(Aborted(message))) TellAbort(message);
}

void Watcher::OnListener() {
  while (true) {
    UniqueFd fd = AcceptFrom(listener_.socket);
    if (!fd.valid()) break;
    late_.emplace_back(std::move(fd), key_, [](int, Connection) { return Verdict::kLate; });
    if (late_.size() > kMaxLate) AdvanceLate();
    if (late_.size() > kMaxLate) {
      late_.front().Refuse(Verdict::kBusy);
      late_.pop_front();
    }
  }
  AdvanceLate();
}

void Watcher::AdvanceLate() {
  late_.remove_if([](AcceptorHandshake& stranger) { return stranger.Advance(); });
}

}  // namespace lepton::collectives
