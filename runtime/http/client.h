// An HTTP/1.1 client. Blocking calls for the CLI; asynchronous ones with connection reuse for the
// gateway.
#pragma once

#include "runtime/http/http.h"

namespace lepton::http {

struct Url {
  bool tls = false;
  std::string host;
  uint16_t port = 0;
  std::string path_prefix;  // "" or "/lepton"
};
Result<Url> ParseUrl(std::string_view url);

struct ClientOptions {
  std::string bearer_token;  // sent as Authorization: Bearer
  std::string ca_file;       // trusts this PEM besides the system's
  bool tls_verify = true;
};

// Threads: one call at a time per Client; keeps its connection open between calls.
class Client {
 public:
  Client(Url url, ClientOptions options);
  ~Client();
  // Only method, target, headers and body of `request` count. A non-2xx answer is a Response too.
  // Repeats the request once, silently, when the kept connection turns out to be closed before any
  // byte of the answer.
  // kUnavailable: could not connect or the connection broke. kDeadlineExceeded.
  Result<Response> Call(const Request& request, Deadline deadline);
  // Streams a response's body to `on_bytes` until it ends (OK), on_bytes returns false (kCancelled)
  // or the deadline passes, or nothing comes for `silence` (kDeadlineExceeded). A non-2xx answer is
  // returned as its Status.
  Status CallStreaming(const Request& request, Deadline deadline,
                       const std::function<bool(std::string_view)>& on_bytes,
                       Duration silence = Duration::max());

 private:
  struct Connection;
  Url url_;
  ClientOptions options_;
  std::unique_ptr<Connection> connection_;
};

// Splits an SSE byte stream into events. Threads: one.
class SseParser {
 public:
  struct Event {
    std::string id, event, data;
  };
  std::vector<Event> Feed(std::string_view bytes);

 private:
  std::string buffer_;
};

// Many outstanding calls to a few plain-HTTP servers, with pooled keep-alive connections (at most
// `max_idle_per_host` idle). A pooled connection that turns out closed before any byte of the
// response is replaced once by a fresh one. `done` runs once, on an I/O thread, and may start
// further calls. The destructor gives up on what is outstanding (kCancelled); never run it from a
// `done`. Threads: any.
class AsyncClient {
 public:
  using Done = std::function<void(Result<Response>)>;
  using Cancel = std::function<void()>;
  static std::unique_ptr<AsyncClient> Make(int threads = 1, size_t max_idle_per_host = 64);
  virtual ~AsyncClient() = default;
  // kUnavailable: could not connect, so nothing was sent; kAborted: the connection broke before the
  // whole answer had come; kDeadlineExceeded. The returned function gives up: closes the
  // connection, done gets kCancelled; nothing happens if the call is over. Any thread, any time,
  // even after the client is gone.
  virtual Cancel Call(const std::string& host, uint16_t port, Request request, Duration timeout,
                      Done done) = 0;
};

}  // namespace lepton::http
