#include "worker/child_process.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

extern char** environ;

namespace lepton::worker {
namespace {

constexpr int kFirstFreeFd = ChildProcess::kSocketInChild + 1;

// The child's ends, all above the numbers that they are moved to.
struct ChildEnds {
  UniqueFd socket, output[2], null, error;
};

Result<UniqueFd> Raised(UniqueFd fd) {
  UniqueFd raised(fcntl(fd.get(), F_DUPFD_CLOEXEC, kFirstFreeFd));
  if (!raised.valid()) return ErrnoStatus(errno, "fcntl");
  return raised;
}

Status MakeSocketPair(UniqueFd& ours, UniqueFd& childs) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoStatus(errno, "socketpair");
  }
  ours.Reset(fds[0]);
  LEPTON_ASSIGN_OR_RETURN(childs, Raised(UniqueFd(fds[1])));
  return Status::Ok();
}

Status MakePipe(UniqueFd& ours, UniqueFd& childs) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  ours.Reset(fds[0]);
  LEPTON_ASSIGN_OR_RETURN(childs, Raised(UniqueFd(fds[1])));
  if (fcntl(ours.get(), F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus(errno, "fcntl");
  return Status::Ok();
}

std::vector<std::string> MergedEnvironment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (!added.contains(std::string(text.substr(0, text.find('='))))) merged.emplace_back(text);
  }
  for (const auto& [name, value] : added) merged.push_back(name + "=" + value);
  return merged;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// What of Command the child can use without allocating.
struct ChildPlace {
  explicit ChildPlace(const ChildProcess::Command& command) : has_cpus(!command.cpus.empty()) {
    CPU_ZERO(&cpus);
    for (const int cpu : command.cpus) CPU_SET(cpu, &cpus);
    const int node = command.memory_node;
    if (node >= 0 && node < 64) node_mask = uint64_t{1} << node;
  }
  const bool has_cpus;
  cpu_set_t cpus;
  uint64_t node_mask = 0;
};

// Between fork and exec in a process with threads: async-signal-safe calls only.
[[noreturn]] void BecomeChild(const ChildEnds& ends, const ChildPlace& place, pid_t parent,
                              char** arguments, char** environment) {
  const auto fail = [&] {
    const int error = errno;
    [[maybe_unused]] const ssize_t n = write(ends.error.get(), &error, sizeof(error));
    _exit(127);
  };
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail();
  if (getppid() != parent) _exit(127);  // it died before prctl
  setpgid(0, 0);
  if (place.has_cpus) sched_setaffinity(0, sizeof(place.cpus), &place.cpus);
  if (place.node_mask != 0) {
    // The kernel takes one bit less than it is told.
    syscall(SYS_set_mempolicy, MPOL_PREFERRED, &place.node_mask, 8 * sizeof(place.node_mask) + 1);
  }
  if (dup2(ends.null.get(), 0) < 0 || dup2(ends.output[0].get(), 1) < 0 ||
      dup2(ends.output[1].get(), 2) < 0 ||
      dup2(ends.socket.get(), ChildProcess::kSocketInChild) < 0) {
    fail();
  }
  // Also the descriptors that some library made without O_CLOEXEC.
  close_range(kFirstFreeFd, UINT_MAX, CLOSE_RANGE_CLOEXEC);
  struct sigaction by_default = {};
  by_default.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) sigaction(signal, &by_default, nullptr);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
  execve(arguments[0], arguments, environment);
  fail();
  _exit(127);
}

}  // namespace

Result<ChildProcess> ChildProcess::Start(const Command& command) {
  ChildProcess child;
  ChildEnds ends;
  UniqueFd exec_error;
  LEPTON_RETURN_IF_ERROR(MakeSocketPair(child.socket_, ends.socket));
  for (int stream : {0, 1}) {
    LEPTON_RETURN_IF_ERROR(MakePipe(child.output_[stream], ends.output[stream]));
  }
  LEPTON_RETURN_IF_ERROR(MakePipe(exec_error, ends.error));
  LEPTON_ASSIGN_OR_RETURN(ends.null, Raised(UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC))));
  std::vector<std::string> arguments = command.arguments;
  std::vector<std::string> environment = MergedEnvironment(command.environment);
  const std::vector<char*> argument_pointers = Pointers(arguments);
  const std::vector<char*> environment_pointers = Pointers(environment);

  // No handler of ours may run in the child.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  const pid_t parent = getpid();
  const ChildPlace place(command);
  child.pid_ = fork();
  const int fork_error = errno;
  if (child.pid_ == 0) {
    BecomeChild(ends, place, parent, const_cast<char**>(argument_pointers.data()),
                const_cast<char**>(environment_pointers.data()));
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (child.pid_ < 0) return ErrnoStatus(fork_error, "fork");
  setpgid(child.pid_, child.pid_);  // whichever of the two is first
  ends = ChildEnds();
  child.pidfd_.Reset(static_cast<int>(syscall(SYS_pidfd_open, child.pid_, 0)));
  const int pidfd_error = errno;

  // End of file: exec closed it.
  int error = 0;
  pollfd ready = {exec_error.get(), POLLIN, 0};
  while (poll(&ready, 1, -1) < 0 && errno == EINTR) {
  }
  const ssize_t got = read(exec_error.get(), &error, sizeof(error));
  if (got == sizeof(error)) {
    child.Reap();
    return ErrnoStatus(error, command.arguments[0]);
  }
  if (!child.pidfd_.valid()) {
    child.Signal(SIGKILL);
    child.Reap();
    return ErrnoStatus(pidfd_error, "pidfd_open");
  }
  return child;
}

void ChildProcess::Signal(int signal) const {
  if (pid_ > 0) kill(pid_, signal);
}

ChildProcess::Exit ChildProcess::Reap() {
  Exit exit;
  if (pid_ <= 0) return exit;
  // The zombie keeps the group's number from being used again.
  siginfo_t info;
  while (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  kill(-pid_, SIGKILL);
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) {
    exit.signal = WTERMSIG(status);
  } else if (WIFEXITED(status)) {
    exit.status = WEXITSTATUS(status);
  }
  pid_ = -1;
  return exit;
}

}  // namespace lepton::worker
