#include "tests/runtime/http/http_test_support.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <filesystem>

namespace lepton::http {

RawSocket::RawSocket(uint16_t port, int receive_buffer_bytes) {
  fd_.Reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (receive_buffer_bytes > 0) {
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(int));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
}

bool RawSocket::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

std::string RawSocket::ReadUntil(std::string_view marker, Duration timeout) {
  const Deadline deadline = Deadline::In(timeout);
  while (received_.find(marker) == std::string::npos && !closed_) {
    pollfd entry{fd_.get(), POLLIN, 0};
    if (poll(&entry, 1, deadline.LeftMs()) <= 0) break;
    char buffer[65536];
    const ssize_t got = recv(fd_.get(), buffer, sizeof buffer, 0);
    if (got <= 0) {
      closed_ = true;
    } else {
      received_.append(buffer, static_cast<size_t>(got));
    }
  }
  const size_t at = received_.find(marker);
  std::string out = received_.substr(0, at == std::string::npos ? at : at + marker.size());
  received_.erase(0, out.size());
  return out;
}

std::string RawSocket::ReadAll(Duration timeout) {
  // A marker that no answer holds.
  std::string all = ReadUntil(std::string_view("\0\1\2\3 never", 10), timeout);
  EXPECT_TRUE(closed_) << "the server did not close; it sent: " << all.substr(0, 500);
  return all;
}

void RawSocket::Reset() {
  const linger hard{1, 0};
  setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  fd_.Reset();
}

std::unique_ptr<Server> StartServer(Handler handler, ServerOptions options) {
  auto server = Server::Start(options, std::move(handler));
  EXPECT_TRUE(server.ok()) << server.status().ToString();
  return server.ok() ? std::move(*server) : nullptr;
}

void EchoHandler(Request request, const ResponderPtr& responder) {
  responder->Send(Response::Text(200, request.method + " " + request.target + " " + request.body));
}

Request Get(std::string target) {
  Request request;
  request.method = "GET";
  request.target = std::move(target);
  return request;
}

Request Post(std::string target, std::string body) {
  Request request = Get(std::move(target));
  request.method = "POST";
  request.body = std::move(body);
  return request;
}

Client ClientFor(const Server& server) {
  Url url;
  url.host = "127.0.0.1";
  url.port = server.port();
  return Client(url, {});
}

size_t OpenDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

}  // namespace lepton::http
