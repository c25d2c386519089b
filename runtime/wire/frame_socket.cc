#include <google/protobuf/message_lite.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "runtime/wire/channel.h"

namespace lepton::wire {
namespace {

constexpr size_t kPrefixBytes = 4;
constexpr size_t kReadBytes = size_t{64} << 10;

void PutLength(uint32_t length, char* out) {
  for (size_t i = 0; i < kPrefixBytes; ++i) out[i] = static_cast<char>(length >> (8 * i));
}

uint32_t GetLength(const char* in) {
  uint32_t length = 0;
  for (size_t i = 0; i < kPrefixBytes; ++i) {
    length |= static_cast<uint32_t>(static_cast<unsigned char>(in[i])) << (8 * i);
  }
  return length;
}

Status TooLong(size_t length) {
  return DataLoss("a frame of " + std::to_string(length) + " bytes: the limit is " +
                  std::to_string(kMaxMessageBytes));
}

Status WaitFor(int fd, short events, Deadline deadline) {
  while (true) {
    pollfd item = {fd, events, 0};
    const int ready = poll(&item, 1, deadline.LeftMs());
    if (ready > 0) return Status::Ok();
    if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, "poll");
    if (deadline.Expired()) return DeadlineExceeded("the other side is too slow");
  }
}

Status ReadExactly(int fd, char* out, size_t size, Deadline deadline, size_t* got) {
  *got = 0;
  while (*got < size) {
    const ssize_t n = recv(fd, out + *got, size - *got, MSG_DONTWAIT);
    if (n > 0) {
      *got += static_cast<size_t>(n);
    } else if (n == 0 || errno == ECONNRESET) {
      return Unavailable("the other side closed the connection");
    } else if (errno == EAGAIN) {
      LEPTON_RETURN_IF_ERROR(WaitFor(fd, POLLIN, deadline));
    } else if (errno != EINTR) {
      return ErrnoStatus(errno, "recv");
    }
  }
  return Status::Ok();
}

}  // namespace

std::string EncodeFrame(const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  std::string frame(kPrefixBytes + size, '\0');
  PutLength(static_cast<uint32_t>(size), frame.data());
  message.SerializeToArray(frame.data() + kPrefixBytes, static_cast<int>(size));
  return frame;
}

Status FrameSocket::Send(const google::protobuf::MessageLite& message, Deadline deadline) {
  const size_t size = message.ByteSizeLong();
  if (size > kMaxMessageBytes) return InvalidArgument(TooLong(size).message());
  const std::string frame = EncodeFrame(message);
  size_t sent = 0;
  while (sent < frame.size()) {
    const ssize_t n =
        send(fd_, frame.data() + sent, frame.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      sent += static_cast<size_t>(n);
    } else if (errno == EAGAIN) {
      Status waited = WaitFor(fd_, POLLOUT, deadline);
      if (waited.code() == StatusCode::kDeadlineExceeded && sent > 0) {
        return DataLoss("the other side stopped reading within a frame");
      }
      LEPTON_RETURN_IF_ERROR(waited);
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return Unavailable("the other side closed the connection");
    } else if (errno != EINTR) {
      return ErrnoStatus(errno, "send");
    }
  }
  return Status::Ok();
}

Status FrameSocket::Receive(google::protobuf::MessageLite* message, Deadline deadline) {
  char prefix[kPrefixBytes];
  size_t got = 0;
  if (Status read = ReadExactly(fd_, prefix, sizeof(prefix), deadline, &got); !read.ok()) {
    return got == 0 ? read : DataLoss("a cut frame: " + read.message());
  }
  const uint32_t size = GetLength(prefix);
  if (size > kMaxMessageBytes) return TooLong(size);
  std::string body(size, '\0');
  if (Status read = ReadExactly(fd_, body.data(), size, deadline, &got); !read.ok()) {
    return DataLoss("a cut frame: " + read.message());
  }
  if (!message->ParseFromString(body)) return DataLoss("a malformed frame");
  return Status::Ok();
}

Status FrameReader::Fill(int fd) {
  buffer_.erase(0, std::exchange(consumed_, 0));
  while (true) {
    char chunk[kReadBytes];
    const ssize_t n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);
    if (n > 0) {
      buffer_.append(chunk, static_cast<size_t>(n));
      // Leave the rest for the next turn, so that one task cannot starve the others.
      if (buffer_.size() > kMaxMessageBytes) return Status::Ok();
    } else if (n == 0 || errno == ECONNRESET) {
      return Unavailable("the other side closed the connection");
    } else if (errno == EAGAIN) {
      return Status::Ok();
    } else if (errno != EINTR) {
      return ErrnoStatus(errno, "recv");
    }
  }
}

Result<std::optional<std::string>> FrameReader::Next() {
  const size_t left = buffer_.size() - consumed_;
  if (left < kPrefixBytes) return std::optional<std::string>();
  const uint32_t size = GetLength(buffer_.data() + consumed_);
  if (size > kMaxMessageBytes) return TooLong(size);
  if (left < kPrefixBytes + size) return std::optional<std::string>();
  std::string body = buffer_.substr(consumed_ + kPrefixBytes, size);
  consumed_ += kPrefixBytes + size;
  return std::optional<std::string>(std::move(body));
}

}  // namespace lepton::wire
