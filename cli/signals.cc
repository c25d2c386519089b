#include "cli/signals.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace lepton::cli {

StopSignals::StopSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGINT);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  fd_.Reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

bool StopSignals::Wait(Deadline deadline, int slice_ms) {
  while (!stopped_) {
    pollfd item{fd_.get(), POLLIN, 0};
    if (::poll(&item, 1, deadline.LeftMs(slice_ms)) > 0) {
      signalfd_siginfo info;
      stopped_ = ::read(fd_.get(), &info, sizeof(info)) == sizeof(info);
    }
    if (deadline.Expired()) break;
  }
  return stopped_;
}

}  // namespace lepton::cli
