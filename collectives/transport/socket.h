// TCP sockets with deadlines and Status errors. All are close-on-exec and without Nagle's delay.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <string>

#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "runtime/base/status.h"

namespace lepton::collectives {

struct Listener {
  UniqueFd socket;  // non-blocking
  std::string host;
  uint16_t port = 0;
};

// `host`: an IPv4 or IPv6 address of this machine. kInvalidArgument when it is not one.
Result<Listener> ListenOn(const std::string& host);
// On its way: writable once it stands, or has failed (ConnectionError).
Result<UniqueFd> StartConnecting(const std::string& host, uint16_t port);
// An errno; 0 while all is well.
int ConnectionError(int fd);
// The connection fails with ETIMEDOUT when what was sent on it is not acknowledged for so long. The
// peer's kernel does that, however busy (or stopped) its process is; but both must send often.
void LimitSilence(int fd, Duration limit);
// kUnavailable when nobody listens there.
Result<UniqueFd> ConnectTo(const std::string& host, uint16_t port, Deadline deadline);
// One waiting connection, or an invalid descriptor when there is none.
UniqueFd AcceptFrom(const UniqueFd& listener);

// All of it. kUnavailable when the other side is gone, kDeadlineExceeded.
Status SendAll(int fd, const void* data, size_t size, Deadline deadline);
Status ReceiveAll(int fd, void* data, size_t size, Deadline deadline);

}  // namespace lepton::collectives
