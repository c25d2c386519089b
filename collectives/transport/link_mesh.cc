#include "collectives/transport/link_mesh.h"

#include <algorithm>

namespace lepton::collectives {
namespace {

// How long the watcher thread may take on a busy machine to read why a connection closed.
constexpr Duration kWatcherDelay = std::chrono::milliseconds(20);

bool AllDone(std::span<const Transfer> transfers) {
  return std::all_of(transfers.begin(), transfers.end(),
                     [](const Transfer& t) { return t.done == t.bytes; });
}

// An earlier one with the same peer in the same direction has not ended: its bytes come first.
bool Waits(std::span<const Transfer> transfers, const Transfer& t) {
  return std::any_of(transfers.data(), &t, [&t](const Transfer& before) {
    return before.peer == t.peer && before.send == t.send && before.done < before.bytes;
  });
}

}  // namespace

std::string Stragglers(std::span<const Transfer> transfers) {
  std::string ranks;
  for (const Transfer& t : transfers) {
    std::string name = "rank " + std::to_string(t.peer);
    if (t.done == t.bytes || ranks.find(name) != std::string::npos) continue;
    ranks += (ranks.empty() ? "" : ", ") + name;
  }
  return ranks;
}

Status LinkMesh::Run(std::span<Transfer> transfers, Deadline deadline) {
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
  for (Transfer& t : transfers) {
    if (t.done == t.bytes || Waits(transfers, t)) continue;
    char* at = static_cast<char*>(t.data) + t.done;
    Link& link = *links_[t.peer];
    Result<size_t> bytes =
        t.send ? link.TrySend(at, t.bytes - t.done) : link.TryRecv(at, t.bytes - t.done);
    if (!bytes.ok()) return NamePeer(*failure_, t.peer, bytes.status());
    t.done += *bytes;
    moved |= *bytes > 0;
  }
  return moved;
}

Status LinkMesh::Sleep(std::span<Transfer> transfers, Deadline deadline) {
  if (deadline.Expired())
    return DeadlineExceeded("no answer in time from " + Stragglers(transfers));
  poll_.assign(1, pollfd{failure_->fd(), POLLIN, 0});
  bool use_bell = false;
  for (const Transfer& t : transfers) {
    if (t.done == t.bytes || Waits(transfers, t)) continue;
    int fd = links_[t.peer]->fd();
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
