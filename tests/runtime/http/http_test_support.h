// What the tests of runtime/http share: a raw socket that can misbehave, and a server whose handler
// is a lambda.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>

#include "runtime/base/file.h"
#include "runtime/http/client.h"
#include "runtime/http/server.h"

namespace lepton::http {

// A blocking TCP connection to 127.0.0.1 that sends any bytes.
class RawSocket {
 public:
  explicit RawSocket(uint16_t port, int receive_buffer_bytes = 0);
  // False once the peer has closed.
  bool Send(std::string_view bytes);
  // Until `marker` has come, the peer closes or `timeout` passes; all bytes so far.
  std::string ReadUntil(std::string_view marker, Duration timeout = std::chrono::seconds(5));
  // Until the peer closes; fails the test after `timeout`.
  std::string ReadAll(Duration timeout = std::chrono::seconds(5));
  bool closed() const { return closed_; }
  void Close() { fd_.Reset(); }
  // Ends the connection with a TCP reset.
  void Reset();

 private:
  UniqueFd fd_;
  std::string received_;
  bool closed_ = false;
};

std::unique_ptr<Server> StartServer(Handler handler, ServerOptions options = {});
// Answers "METHOD path?query body" with status 200.
void EchoHandler(Request request, const ResponderPtr& responder);
Request Get(std::string target);
Request Post(std::string target, std::string body);
Client ClientFor(const Server& server);
// File descriptors open in this process.
size_t OpenDescriptors();

}  // namespace lepton::http
