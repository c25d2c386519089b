// Apart from other files: the kernel's own header has the newer figures, and none of the C
// library's names beside it.
#include "collectives/transport/tcp_figures.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>

namespace lepton::collectives {
namespace {

// A receiver may put off its acknowledgement of a packet or two.
constexpr unsigned kQueuedPackets = 4;

}  // namespace

LinkLook LookAtTcp(int fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return {};
  LinkLook look;
  look.bytes = info.tcpi_bytes_acked;
  look.busy = std::chrono::microseconds(info.tcpi_busy_time - info.tcpi_rwnd_limited);
  look.queued = info.tcpi_notsent_bytes > 0 || info.tcpi_unacked >= kQueuedPackets;
  return look;
}

}  // namespace lepton::collectives
