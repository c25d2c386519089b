// An HTTP/1.1 server on Boost.Beast: keep-alive, chunked bodies, TLS, limits and time-outs.
// Threads: handlers run on the server's I/O threads and must not block for longer than a few
// milliseconds; they answer through the Responder from anywhere.
#pragma once

#include <filesystem>

#include "runtime/http/http.h"

namespace lepton::http {

struct ServerOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 0;  // 0 picks one
  int threads = 2;
  size_t max_body_bytes = size_t{64} << 20;    // over it: 413
  size_t max_header_bytes = size_t{16} << 10;  // over it: 431; bodies of GET and HEAD: 413
  size_t max_connections = 4096;  // over it: 503 and close; fewer where the process may not
                                  // open 2.7 times as many descriptors
  Duration read_timeout = std::chrono::seconds(30);  // whole head or body; over it: 408 and close
  Duration idle_timeout = std::chrono::seconds(120);
  Duration write_timeout = std::chrono::seconds(30);  // a client that does not read is cut off
  std::string tls_certificate_file;                   // PEM; both or neither
  std::string tls_key_file;

  // Refuses a request before its body is read: what would be refused anyway must not fill memory.
  // Asked once the head is there, of requests that have a body; the handler may refuse more.
  std::function<std::optional<Response>(Request& head)> refuse;

  // Which requests' bodies go to a file rather than memory. Asked once the head is there:
  // everything of it but the body. Such a body may be larger, and must not stand still for
  // read_timeout.
  struct ToFile {
    std::filesystem::path folder;  // the file has no name in it
    uint64_t max_bytes = 0;        // over it: 413
  };
  std::function<std::optional<ToFile>(Request& head)> to_file;
};

class Server {
 public:
  // kFailedPrecondition: the port is in use. kInvalidArgument: address or TLS files unusable.
  static Result<std::unique_ptr<Server>> Start(const ServerOptions& options, Handler handler);
  // Stops accepting, lets answers in flight finish for `grace`, then closes everything.
  virtual void Stop(Duration grace) = 0;
  virtual ~Server() = default;  // Stop(0)
  virtual uint16_t port() const = 0;
};

}  // namespace lepton::http
