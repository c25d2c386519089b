#include "collectives/transport/tcp_link.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "collectives/communicator.h"
#include "collectives/group_faults.h"
#include "collectives/transport/link_faults.h"
#include "collectives/transport/tcp_figures.h"

namespace lepton::collectives {
namespace {

constexpr size_t kFrameBytes = size_t{256} << 10;
constexpr uint32_t kFrameMark = 0x4C505446;

bool WouldBlock(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

Status Corrupt(const std::string& how) {
  CountCorrupt();
  return DataLoss(std::string(kCorruptBytes) + ": " + how);
}

}  // namespace

Result<size_t> TcpLink::TrySend(const void* data, size_t size) {
  if (LinkFaults::Enabled()) LinkFaults::BeforeSend();
  if (out_left_ == 0) {
    FrameSum sum;
    out_left_ = std::min(size, kFrameBytes);
    sum.Update(data, out_left_);
    out_ = {static_cast<uint32_t>(out_left_), static_cast<uint32_t>(out_left_) ^ kFrameMark,
            sum.Value()};
    out_header_left_ = sizeof(out_);
  }
  if (size < out_left_) return Internal("a transfer was left in the middle of a frame");
  char* const header = reinterpret_cast<char*>(&out_) + sizeof(out_) - out_header_left_;
  iovec parts[] = {{header, out_header_left_}, {const_cast<void*>(data), out_left_}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  const ssize_t sent = sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) {
    if (WouldBlock(errno)) return size_t{0};
    return Unavailable(ErrnoStatus(errno, "send").message());
  }
  const size_t of_header = std::min(static_cast<size_t>(sent), out_header_left_);
  out_header_left_ -= of_header;
  out_left_ -= static_cast<size_t>(sent) - of_header;
  return static_cast<size_t>(sent) - of_header;
}

// The header is whole. A sender makes frames as long as its transfer allows, so one that is shorter
// than `expected`, what this side's transfer allows, is of another call.
Status TcpLink::OpenFrame(size_t expected) {
  in_header_got_ = 0;
  if (in_.bytes == 0 || in_.bytes > kFrameBytes || (in_.bytes ^ kFrameMark) != in_.check) {
    return Corrupt("no frame begins here");
  }
  if (in_.bytes < expected) {
    return Aborted("it sends " + std::to_string(in_.bytes) + " bytes where at least " +
                   std::to_string(expected) + " are due: it is in another operation");
  }
  in_left_ = in_.bytes;
  in_sum_ = FrameSum();
  return {};
}

Status TcpLink::CheckSum() {
  if (in_left_ > 0 || in_sum_.Value() == in_.sum) return {};
  return Corrupt("a frame of " + std::to_string(in_.bytes) + " has another checksum");
}

Result<size_t> TcpLink::TryRecv(void* data, size_t size) {
  const size_t header = in_left_ > 0 ? 0 : sizeof(in_) - in_header_got_;
  const size_t payload = std::min(size, in_left_ > 0 ? in_left_ : kFrameBytes);
  iovec parts[] = {{reinterpret_cast<char*>(&in_) + in_header_got_, header}, {data, payload}};
  msghdr message{};
  message.msg_iov = header > 0 ? parts : parts + 1;
  message.msg_iovlen = header > 0 ? 2 : 1;
  const ssize_t received = recvmsg(socket_.get(), &message, MSG_DONTWAIT);
  if (received == 0) return Unavailable("connection closed");
  if (received < 0) {
    if (WouldBlock(errno)) return size_t{0};
    return Unavailable(ErrnoStatus(errno, "receive").message());
  }
  const size_t of_header = std::min(static_cast<size_t>(received), header);
  in_header_got_ += of_header;
  if (of_header < header) return size_t{0};
  if (header > 0) LEPTON_RETURN_IF_ERROR(OpenFrame(payload));
  const size_t bytes = static_cast<size_t>(received) - of_header;
  if (LinkFaults::Enabled()) LinkFaults::AfterReceive(data, bytes);
  in_sum_.Update(data, bytes);
  in_left_ -= bytes;
  LEPTON_RETURN_IF_ERROR(CheckSum());
  return bytes;
}

LinkLook TcpLink::Look() const {
  return LookAtTcp(socket_.get());
}

}  // namespace lepton::collectives
