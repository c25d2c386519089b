#include "collectives/transport/tcp_link.h"

#include <sys/socket.h>

#include <cerrno>

namespace lepton::collectives {
namespace {

bool WouldBlock(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

Result<size_t> TcpLink::TrySend(const void* data, size_t size) {
  ssize_t sent = send(socket_.get(), data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0) return static_cast<size_t>(sent);
  if (WouldBlock(errno)) return size_t{0};
  return Unavailable(ErrnoStatus(errno, "send").message());
}

Result<size_t> TcpLink::TryRecv(void* data, size_t size) {
  ssize_t received = recv(socket_.get(), data, size, MSG_DONTWAIT);
  if (received > 0) return static_cast<size_t>(received);
  if (received == 0) return Unavailable("connection closed");
  if (WouldBlock(errno)) return size_t{0};
  return Unavailable(ErrnoStatus(errno, "recv").message());
}

}  // namespace lepton::collectives
