// A port on this host whose connections are never answered, as those to a host behind a cut link:
// its queue of connections is full, so that Linux drops what comes further (tcp(7), listen(2)).
// Needs no route, since what becomes of packets to an address that nobody has differs from network
// to network. Threads: none of its own.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

namespace lepton::testing_support {

class SilentPort {
 public:
  SilentPort() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    const int listener = Open(0);
    EXPECT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener, 0), 0);
    EXPECT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    constexpr int kMost = 16, kAnsweredMs = 100;
    for (int i = 0; i < kMost; ++i) {
      const int socket = Open(SOCK_NONBLOCK);
      ::connect(socket, reinterpret_cast<sockaddr*>(&address), size);
      pollfd answer{socket, POLLOUT, 0};
      if (::poll(&answer, 1, kAnsweredMs) == 0) return;
    }
    ADD_FAILURE() << "the port still answers";
  }
  ~SilentPort() {
    for (const int socket : sockets_) ::close(socket);
  }
  SilentPort(const SilentPort&) = delete;
  SilentPort& operator=(const SilentPort&) = delete;

  uint16_t port() const { return port_; }

 private:
  int Open(int flags) {
    sockets_.push_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
    return sockets_.back();
  }

  std::vector<int> sockets_;
  uint16_t port_ = 0;
};

}  // namespace lepton::testing_support
