// A link over one connected TCP socket. Bytes travel in frames, each with a checksum of its own:
// TCP's 16 bits miss one error in some ten thousand, and what a network card or a switch gets wrong
// must not become weights.
//
//   {bytes, bytes ^ kFrameMark, sum} payload   ... at most kFrameBytes each, never beyond one
//   transfer
//
// A frame's payload reaches the caller before its end is there, and so before the checksum is
// known; an operation that moves whole transfers ends only after it was compared.
#pragma once

#include <cstdint>

#include "collectives/transport/frame_sum.h"
#include "collectives/transport/link.h"
#include "runtime/base/file.h"

namespace lepton::collectives {

class TcpLink final : public Link {
 public:
  // `socket` is connected; calls are made non-blocking one by one.
  explicit TcpLink(UniqueFd socket) : socket_(std::move(socket)) {}
  std::string_view transport() const override { return "tcp"; }
  // A transfer that was begun goes on where it was: `data` is what is left of it.
  Result<size_t> TrySend(const void* data, size_t size) override;
  // Header and payload come in one system call. kDataLoss: the bytes are not those that were sent.
  // kAborted: the peer's transfer is shorter than this one.
  Result<size_t> TryRecv(void* data, size_t size) override;
  int fd() const override { return socket_.get(); }
  LinkLook Look() const override;

 private:
  struct Header {
    uint32_t bytes = 0;
    uint32_t check = 0;
    uint64_t sum = 0;
  };
  Status OpenFrame(size_t expected);
  Status CheckSum();

  UniqueFd socket_;
  Header out_{}, in_{};
  size_t out_header_left_ = 0, out_left_ = 0;  // of the frame that is being sent
  size_t in_header_got_ = 0, in_left_ = 0;     // of the one that is being received
  FrameSum in_sum_;
};

}  // namespace lepton::collectives
