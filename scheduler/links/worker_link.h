// The coordinator's end of the workers' connections: admits workers, keeps their leases, turns what
// they say into inputs of the state loop and sends them what the reactor wants.
//
// A worker has a session from its Hello until its lease runs out (any message renews it), it says
// Goodbye, or the sessions are dropped. A broken connection shortens the lease to
// `reconnect_grace`: a dead process is lost soon, a worker that reconnects loses nothing. What
// comes from a peer without a session is ignored and not acknowledged, which makes the worker say
// Hello again. A second process that claims the id of a connected worker with a living lease is
// refused; the same process (incarnation) may reconnect at any time.
//
// Threads: any. Handlers run on the channel's thread and never block.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "runtime/base/clock.h"
#include "runtime/base/ids.h"
#include "runtime/wire/channel.h"
#include "scheduler/links/object_server.h"
#include "scheduler/loop/state_loop.h"

namespace lepton::scheduler {

struct WorkerLinkOptions {
  std::string endpoint = "tcp://127.0.0.1:0";
  Duration lease = std::chrono::seconds(5);
  Duration reconnect_grace = std::chrono::milliseconds(500);
};

class WorkerLink {
 public:
  // Binds and starts. All references must outlive this, and `loop` must be stopped before this is
  // destroyed. kFailedPrecondition: the port is in use.
  static Result<std::unique_ptr<WorkerLink>> Start(WorkerLinkOptions options,
                                                   const wire::ServerKey& key, StateLoop& loop,
                                                   storage::ObjectStore& objects);
  ~WorkerLink();
  uint16_t port() const { return channel_->port(); }

  // The reactor's effects; to a worker without a session they go nowhere, and its next Hello tells
  // the reactor what it missed.
  void Welcome(const WorkerId& worker, const wire::Welcome& welcome);
  void StartTask(const WorkerId& worker, const wire::StartTask& start);
  void SendGroup(const WorkerId& worker, const wire::TaskGroup& group);
  void SendShards(const WorkerId& worker, const wire::TaskShards& shards);
  void StopTask(const WorkerId& worker, const wire::StopTask& stop);
  void Ack(const WorkerId& worker, const wire::ReportAck& ack);
  void Drain(const WorkerId& worker, const wire::Drain& drain);
  // After the state was rebuilt: every worker has to say Hello again.
  void DropSessions();

  // What the last heartbeat said. Not durable, so not in the state.
  struct Vitals {
    int64_t last_seen_ms = 0;
    double load_average = 0;
    uint64_t memory_used_bytes = 0;
  };
  std::optional<Vitals> VitalsOf(const WorkerId& worker) const;

 private:
  using PeerId = wire::RouterChannel::PeerId;
  struct Session {
    PeerId peer;
    std::string incarnation;
    MonotonicTime expires;
    bool connected = true;
    bool leaving = false;
    Vitals vitals;
  };

  WorkerLink(WorkerLinkOptions options, StateLoop& loop, storage::ObjectStore& objects)
      : options_(std::move(options)), loop_(loop), objects_(objects) {}

  void OnMessage(const PeerId& peer, wire::ToCoordinator message);
  void OnDisconnect(const PeerId& peer);
  void OnHello(const PeerId& peer, wire::Hello hello);
  Status CheckHello(const wire::Hello& hello) const;  // mutex_ held
  void Renew(Session& session) const;
  void OnHeartbeat(const WorkerId& worker, Session& session, const wire::Heartbeat& heartbeat);
  void Refuse(const PeerId& peer, const Status& status);
  void EndSession(const WorkerId& worker, const std::string& reason);  // mutex_ held
  void ForgetPeer(const PeerId& peer);                                 // mutex_ held
  // `stall`: how long this process stood still (a full disk's fsync, SIGSTOP, a paused machine).
  // It heard nobody then, so that time counts against no lease.
  void CheckLeases(Duration stall);
  void ArmLeaseTimer();
  void SendTo(const WorkerId& worker, const wire::ToWorker& message);

  const WorkerLinkOptions options_;
  StateLoop& loop_;
  storage::ObjectStore& objects_;
  mutable std::mutex mutex_;
  bool stopping_ = false;
  std::map<WorkerId, Session> sessions_;
  std::map<PeerId, WorkerId> worker_of_;
  std::unique_ptr<wire::RouterChannel> channel_;
  std::unique_ptr<ObjectServer> transfers_;
};

}  // namespace lepton::scheduler
