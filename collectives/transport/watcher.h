// One thread per communicator that notices what no operation would: a peer's death or goodbye, a
// peer's abort, a cut cable, a group that stands still, and late comers at the endpoint. It sleeps
// in poll(2), so a death is seen as soon as the kernel closes the dead process's sockets or signals
// its pidfd. With Options::link_timeout it writes a pulse to every peer, several times within that
// time:
//   - so that the kernel finds out when one does not arrive;
//   - with what its process has done and how many operations it has begun. A rank that waits gives
//   up
//     when nobody in the group has moved for Options::timeout, and knows who is behind.
// And it looks at the links, by which those that are slow are known (link_rates.h).
// Threads: TellAbort, Stragglers and SlowLinks from any thread; the rest from the owner.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "collectives/failure.h"
#include "collectives/transport/control_frame.h"
#include "collectives/transport/mesh.h"
#include "collectives/transport/rendezvous.h"

namespace lepton::collectives {

class Watcher {
 public:
  // What moves the group's bytes, for its links' rates: it outlives the watcher. `hosts` as of
  // LinkRates. Null: nobody looks.
  struct Links {
    const Mesh* mesh = nullptr;
    std::vector<int> hosts = {};
  };
  // Takes over the group's control connections and listener, and starts the thread.
  static Result<std::unique_ptr<Watcher>> Start(JoinedGroup& group,
                                                std::shared_ptr<Failure> failure,
                                                const Options& options, Links links);
  // Says goodbye to the peers, or why the group failed, and stops the thread.
  ~Watcher();

  // Makes every peer's group fail with kAborted and this message.
  void TellAbort(const std::string& message);
  // Who has not come to the operation in which this rank waits.
  std::vector<Straggler> Stragglers() const;
  // Which of this rank's links have been slow.
  std::vector<SlowLink> SlowLinks() const;

 private:
  // A rank as its newest pulse shows it.
  struct Look {
    uint64_t ticks = 0, begun = 0;
    bool computing = false;
    MonotonicTime moved{};  // when any of it last changed
  };
  struct Peer {
    UniqueFd control;
    UniqueFd pidfd;
    std::string input;
    bool full = false;  // a frame was cut short: what follows would not be understood
  };
  Watcher(JoinedGroup& group, std::shared_ptr<Failure> failure, const Options& options, Links links,
          UniqueFd stop);
  void Loop();
  int SendPulse();
  void OnPulse(int rank, const std::string& payload);
  void See(int rank, uint64_t ticks, uint64_t begun, bool computing);
  void CheckMoving();
  void LookAtLinks(MonotonicTime now);
  void OnControl(int rank);
  void OnFrames(int rank);
  void OnGone(int rank, const std::string& why);
  void OnUnreachable(int rank, const std::string& why);
  void Forget(int rank);
  void Break(const std::string& message);
  void OnListener();
  void AdvanceLate();
  void Send(ControlFrame type, const std::string& payload);

  GroupKey key_;
  Listener listener_;
  std::vector<Peer> peers_;
  std::shared_ptr<Failure> failure_;
  const Duration pulse_every_;  // 0: never
  const Duration patience_;     // with a group that stands still
  const Mesh* const mesh_;      // may be null
  mutable std::mutex looks_mutex_;
  std::vector<Look> looks_;  // by rank, our own too
  LinkRates rates_;          // with looks_mutex_
  MonotonicTime next_pulse_;
  UniqueFd stop_;
  std::atomic<bool> told_{false};  // the peers know why the group failed
  std::mutex send_mutex_;
  std::list<AcceptorHandshake> late_;
  std::thread thread_;
};

}  // namespace lepton::collectives
