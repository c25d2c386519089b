// A link over one connected TCP socket.
#pragma once

#include "collectives/transport/link.h"
#include "runtime/base/file.h"

namespace lepton::collectives {

class TcpLink final : public Link {
 public:
  // `socket` is connected; calls are made non-blocking one by one.
  explicit TcpLink(UniqueFd socket) : socket_(std::move(socket)) {}
  std::string_view transport() const override { return "tcp"; }
  Result<size_t> TrySend(const void* data, size_t size) override;
  Result<size_t> TryRecv(void* data, size_t size) override;
  int fd() const override { return socket_.get(); }

 private:
  UniqueFd socket_;
};

}  // namespace lepton::collectives
