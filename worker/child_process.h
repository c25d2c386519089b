// A child process with a socket to it and its output in pipes. It dies with the thread that started
// it (PR_SET_PDEATHSIG), leads a process group of its own, and inherits no other descriptor.
// Threads: one owner at a time; Start on a thread that outlives the child.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/base/status.h"

namespace lepton::worker {

class ChildProcess {
 public:
  static constexpr int kSocketInChild = 3;

  struct Command {
    std::vector<std::string> arguments;              // the program's path first; no PATH search
    std::map<std::string, std::string> environment;  // added to ours
    // The CPUs that it may run on, and the node whose memory it should use (cpu_shares.h); where
    // the kernel refuses, and empty or -1: as we do.
    std::vector<int> cpus = {};
    int memory_node = -1;
  };
  // kNotFound, kPermissionDenied: the program cannot be run. SIGTERM is blocked in the child until
  // it is ready for it.
  static Result<ChildProcess> Start(const Command& command);

  ChildProcess() = default;
  ChildProcess(ChildProcess&&) = default;
  ChildProcess& operator=(ChildProcess&&) = default;

  pid_t pid() const { return pid_; }
  UniqueFd& socket() { return socket_; }                    // stream
  UniqueFd& output(int stream) { return output_[stream]; }  // 0: stdout, 1: stderr; non-blocking
  int pidfd() const { return pidfd_.get(); }                // readable when the child has ended

  // To the child alone; nothing once it is reaped.
  void Signal(int signal) const;
  struct Exit {
    int status = 0;  // exit status; 0 if killed
    int signal = 0;  // 0 if it exited
  };
  // Waits for the end, kills what is left of its process group, and reaps it.
  Exit Reap();

 private:
  pid_t pid_ = -1;
  UniqueFd pidfd_;
  UniqueFd socket_;
  UniqueFd output_[2];
};

}  // namespace lepton::worker
