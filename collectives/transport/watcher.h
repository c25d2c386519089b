// One thread per communicator that notices what no operation would: a peer's death or goodbye, a
// peer's abort, a cut cable, and late comers at the endpoint. It sleeps in poll(2), so a death is
// seen as soon as the kernel closes the dead process's sockets or signals its pidfd. With
// Options::link_timeout it writes a pulse to every peer, several times within that time, so that
// the kernel finds out when one does not arrive. Threads: Abort from any thread; the rest from the
// owner.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "collectives/failure.h"
#include "collectives/transport/rendezvous.h"

namespace lepton::collectives {

class Watcher {
 public:
  // Takes over the group's control connections and listener, and starts the thread.
  static Result<std::unique_ptr<Watcher>> Start(JoinedGroup& group,
                                                std::shared_ptr<Failure> failure,
                                                const Options& options = {});
  // Says goodbye to the peers, or why the group failed, and stops the thread.
  ~Watcher();

  // Makes every peer's group fail with kAborted and this message.
  void TellAbort(const std::string& message);

 private:
  struct Peer {
    UniqueFd control;
    UniqueFd pidfd;
    std::string input;
  };
  Watcher(JoinedGroup& group, std::shared_ptr<Failure> failure, const Options& options,
          UniqueFd stop);
  void Loop();
  int SendPulse();
  void OnControl(int rank);
  void OnFrames(int rank);
  void OnGone(int rank, const std::string& why);
  void OnUnreachable(int rank, const std::string& why);
  void Forget(int rank);
  void Break(const std::string& message);
  void OnListener();
  void Send(int type, const std::string& payload);

  GroupKey key_;
  Listener listener_;
  std::vector<Peer> peers_;
  std::shared_ptr<Failure> failure_;
  const Duration pulse_every_;  // 0: never
  MonotonicTime next_pulse_{};
  UniqueFd stop_;
  std::atomic<bool> told_{false};  // the peers know why the group failed
  std::mutex send_mutex_;
  std::list<AcceptorHandshake> late_;
  std::thread thread_;
};

}  // namespace lepton::collectives
