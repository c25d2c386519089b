#include "collectives/transport/link_mesh.h"

#include <algorithm>
#include <set>
#include <utility>

#include "collectives/transport/lanes.h"

namespace lepton::collectives {
namespace {

// How long the watcher thread may take on a busy machine to read why a connection closed.
constexpr Duration kWatcherDelay = std::chrono::milliseconds(20);

bool AllDone(std::span<const Transfer> transfers) {
  return std::all_of(transfers.begin(), transfers.end(),
                     [](const Transfer& t) { return t.done == t.bytes; });
}

// A stretch of each on every lane.
void Deal(const Transfer& t, int lanes, std::vector<Transfer>& dealt) {
  const size_t stretch = StretchBytes(t.bytes, lanes);
  int lane = 0;
  for (size_t at = 0; at < t.bytes; at += stretch, ++lane) {
    dealt.push_back({.peer = t.peer,
                     .send = t.send,
                     .data = static_cast<char*>(t.data) + at,
                     .bytes = std::min(stretch, t.bytes - at),
                     .lane = lane});
  }
}

}  // namespace

LinkMesh::LinkMesh(std::vector<std::vector<std::unique_ptr<Link>>> links,
                   std::shared_ptr<Failure> failure, Waiter waiter, bool blind)
    : lanes_(links.size()), failure_(std::move(failure)), waiter_(std::move(waiter)) {
  if (!blind) alarm_.push_back({failure_->fd(), POLLIN, 0});
  for (size_t peer = 0; peer < links.size(); ++peer) {
    most_lanes_ = std::max(most_lanes_, links[peer].size());
    for (auto& link : links[peer]) lanes_[peer].push_back({std::move(link)});
  }
}

std::string Stragglers(std::span<const Transfer> transfers) {
  std::set<int> ranks;
  for (const Transfer& t : transfers) {
    if (t.done < t.bytes) ranks.insert(t.peer);
  }
  std::string names;
  for (const int rank : ranks) {
    names += (names.empty() ? "rank " : ", rank ") + std::to_string(rank);
  }
  return names;
}

Status LinkMesh::Run(std::span<Transfer> transfers, Deadline deadline) {
  if (most_lanes_ == 1) return Drive(transfers, deadline);
  dealt_.clear();
  for (const Transfer& t : transfers) {
    Deal(t, static_cast<int>(lanes_[t.peer].size()), dealt_);
  }
  LEPTON_RETURN_IF_ERROR(Drive(dealt_, deadline));
  for (Transfer& t : transfers) t.done = t.bytes;
  return {};
}

Status LinkMesh::Drive(std::span<Transfer> transfers, Deadline deadline) {
  int idle = 0;
  Yields yields = waiter_.yields();
  while (!AllDone(transfers)) {
    LEPTON_ASSIGN_OR_RETURN(bool moved, Progress(transfers));
    if (moved) {
      Activity::Moved();
      idle = 0;
      yields = waiter_.yields();
      continue;
    }
    if (failure_->raised()) return failure_->cause();
    if (++idle <= waiter_.spins()) {
      CpuRelax();
    } else if (!yields.Again()) {
      LEPTON_RETURN_IF_ERROR(Sleep(transfers, deadline));
    }
  }
  return {};
}

Result<bool> LinkMesh::Progress(std::span<Transfer> transfers) {
  bool moved = false;
  ++look_;
  for (Transfer& t : transfers) {
    if (t.done == t.bytes) continue;
    Lane& lane = lanes_[t.peer][t.lane];
    if (lane.taken_in[t.send] == look_) continue;  // an earlier one's bytes come first
    char* at = static_cast<char*>(t.data) + t.done;
    Result<size_t> bytes = t.send ? lane.link->TrySend(at, t.bytes - t.done)
                                  : lane.link->TryRecv(at, t.bytes - t.done);
    if (!bytes.ok()) return NamePeer(*failure_, t.peer, bytes.status());
    t.done += *bytes;
    moved |= *bytes > 0;
    if (t.done < t.bytes) lane.taken_in[t.send] = look_;
  }
  return moved;
}

Status LinkMesh::Sleep(std::span<Transfer> transfers, Deadline deadline) {
  if (deadline.Expired())
    return DeadlineExceeded("no answer in time from " + Stragglers(transfers));
  poll_ = alarm_;
  bool use_bell = false;
  ++look_;
  for (const Transfer& t : transfers) {
    if (t.done == t.bytes) continue;
    Lane& lane = lanes_[t.peer][t.lane];
    if (std::exchange(lane.taken_in[t.send], look_) == look_) continue;
    int fd = lane.link->fd();
    if (fd < 0) {
      use_bell = true;
    } else {
      poll_.push_back({fd, static_cast<short>(t.send ? POLLOUT : POLLIN), 0});
    }
  }
  Status error;
  waiter_.SleepOnce(
      poll_, use_bell,
      [&] {
        auto moved = Progress(transfers);
        error = moved.status();
        return !moved.ok() || *moved;
      },
      deadline);
  return error;
}

std::vector<LinkLook> LinkMesh::LookAtLinks() const {
  std::vector<LinkLook> looks(lanes_.size());
  for (size_t peer = 0; peer < lanes_.size(); ++peer) {
    for (const Lane& lane : lanes_[peer]) {
      const LinkLook one = lane.link->Look();
      looks[peer].bytes += one.bytes;
      looks[peer].busy = std::max(looks[peer].busy, one.busy);
      looks[peer].queued = looks[peer].queued || one.queued;
    }
  }
  return looks;
}

Status NamePeer(const Failure& failure, int peer, const Status& error) {
  if (failure.raised()) return failure.cause();
  std::string who = "rank " + std::to_string(peer);
  // The group is lost, not the ranks: the next one moves the same bytes again.
  if (error.code() == StatusCode::kDataLoss) return Aborted("from " + who + ": " + error.message());
  if (error.code() != StatusCode::kUnavailable) return error.WithContext(who);
  if (!failure.HasLeft(peer) && failure.WaitRaised(kWatcherDelay)) return failure.cause();
  return Aborted(who + " is gone: " + error.message());
}

}  // namespace lepton::collectives
