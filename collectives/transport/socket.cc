#include "collectives/transport/socket.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace lepton::collectives {
namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

Result<Address> ParseAddress(const std::string& host, uint16_t port) {
  Address address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.size = sizeof(sockaddr_in);
    return address;
  }
  if (inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address.size = sizeof(sockaddr_in6);
    return address;
  }
  return InvalidArgument("'" + host + "' is not a numeric IPv4 or IPv6 address");
}

void SetUp(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

Status WaitFor(int fd, short events, Deadline deadline, const char* what) {
  while (true) {
    pollfd poll_fd{fd, events, 0};
    int ready = poll(&poll_fd, 1, deadline.LeftMs(1000));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, what);
    if (deadline.Expired()) return DeadlineExceeded(std::string(what) + ": no answer in time");
  }
}

bool Retry(int error) {
  return error == EINTR || error == EAGAIN || error == EWOULDBLOCK;
}

}  // namespace

Result<Listener> ListenOn(const std::string& host) {
  LEPTON_ASSIGN_OR_RETURN(Address address, ParseAddress(host, 0));
  Listener listener;
  listener.socket.Reset(
      socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.socket.valid()) return ErrnoStatus(errno, "socket");
  int fd = listener.socket.get();
  if (bind(fd, address.get(), address.size) != 0) {
    return InvalidArgument(ErrnoStatus(errno, "cannot listen on " + host).message());
  }
  if (listen(fd, 1024) != 0) return ErrnoStatus(errno, "listen on " + host);
  if (getsockname(fd, address.get(), &address.size) != 0) return ErrnoStatus(errno, "getsockname");
  uint16_t port = address.storage.ss_family == AF_INET
                      ? reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port
                      : reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_port;
  listener.port = ntohs(port);
  listener.host = host;
  return listener;
}

Result<UniqueFd> StartConnecting(const std::string& host, uint16_t port) {
  const std::string what = "connecting to " + host + ":" + std::to_string(port);
  LEPTON_ASSIGN_OR_RETURN(Address address, ParseAddress(host, port));
  UniqueFd fd(socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return ErrnoStatus(errno, what);
  SetUp(fd.get());
  if (connect(fd.get(), address.get(), address.size) != 0 && errno != EINPROGRESS) {
    return ErrnoStatus(errno, what);
  }
  return fd;
}

int ConnectionError(int fd) {
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

void LimitSilence(int fd, Duration limit) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(limit).count();
  const auto value = static_cast<unsigned>(std::max<int64_t>(1, ms));
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, sizeof(value));
}

Result<UniqueFd> ConnectTo(const std::string& host, uint16_t port, Deadline deadline) {
  const std::string what = "connecting to " + host + ":" + std::to_string(port);
  LEPTON_ASSIGN_OR_RETURN(UniqueFd fd, StartConnecting(host, port));
  LEPTON_RETURN_IF_ERROR(WaitFor(fd.get(), POLLOUT, deadline, what.c_str()));
  if (const int error = ConnectionError(fd.get()); error != 0) return ErrnoStatus(error, what);
  return fd;
}

UniqueFd AcceptFrom(const UniqueFd& listener) {
  UniqueFd fd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.valid()) SetUp(fd.get());
  return fd;
}

Status SendAll(int fd, const void* data, size_t size, Deadline deadline) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    ssize_t sent = send(fd, at, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      at += sent;
      size -= static_cast<size_t>(sent);
    } else if (Retry(errno)) {
      LEPTON_RETURN_IF_ERROR(WaitFor(fd, POLLOUT, deadline, "send"));
    } else {
      return Unavailable(ErrnoStatus(errno, "send").message());
    }
  }
  return {};
}

Status ReceiveAll(int fd, void* data, size_t size, Deadline deadline) {
  char* at = static_cast<char*>(data);
  while (size > 0) {
    ssize_t received = recv(fd, at, size, MSG_DONTWAIT);
    if (received > 0) {
      at += received;
      size -= static_cast<size_t>(received);
    } else if (received == 0) {
      return Unavailable("connection closed");
    } else if (Retry(errno)) {
      LEPTON_RETURN_IF_ERROR(WaitFor(fd, POLLIN, deadline, "receive"));
    } else {
      return Unavailable(ErrnoStatus(errno, "receive").message());
    }
  }
  return {};
}

}  // namespace lepton::collectives
