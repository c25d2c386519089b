// HTTP/1.1 for the coordinator's API, its gateway and the replicas: what all of them share, in
// plain types. Boost.Beast appears in .cc files only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"

namespace lepton::http {

class BodyFile;

// Header names compare without regard to case.
struct CaseLess {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const;
};
using Headers = std::multimap<std::string, std::string, CaseLess>;

struct Request {
  std::string method;                         // "GET"
  std::string target;                         // as sent: "/v1/jobs?state=RUNNING"
  std::string path;                           // decoded, without the query: "/v1/jobs"
  std::map<std::string, std::string> query;   // decoded
  std::map<std::string, std::string> params;  // from the route's {placeholders}, decoded
  Headers headers;
  std::string body;
  std::shared_ptr<const BodyFile> file;  // the body, and `body` is empty: ServerOptions::to_file
  std::string peer;                      // "127.0.0.1:51234"
  std::string principal;  // who is calling, set by the server's authoriser; "" if anonymous
  std::string Header(std::string_view name) const;  // "" if absent
};

// A body that may be larger than memory: read as it is sent. Threads: one at a time.
class BodySource {
 public:
  virtual ~BodySource() = default;
  virtual uint64_t size() const = 0;
  // The next bytes, at most so many, at least one; called until size() have come, on an I/O thread,
  // which may wait for a disk. After an error the connection breaks off, so that the client sees
  // that its body is not whole.
  virtual Result<std::string> Next(size_t max_bytes) = 0;
};

struct Response {
  int status = 200;
  Headers headers;
  std::string body;
  std::shared_ptr<BodySource> source;  // of a server: the body, and `body` is empty

  static Response Json(int status, std::string body);
  static Response Text(int status, std::string body,
                       std::string_view type = "text/plain; charset=utf-8");
};

// A response whose body comes piece by piece (SSE). Threads: any. The connection's own strand does
// the writing; Write never blocks and returns false once the client is gone or has let more than
// 1 MiB pile up (then it is cut off).
class Stream {
 public:
  virtual ~Stream() = default;
  virtual bool Write(std::string_view bytes) = 0;
  virtual void Close() = 0;
  virtual bool open() const = 0;
  // Bytes that were written and have not left yet: who has much to say waits until there are none.
  virtual size_t pending() const = 0;
};

// How a handler answers, once, from any thread, now or later.
class Responder {
 public:
  virtual ~Responder() = default;
  virtual void Send(Response response) = 0;
  // Sends the head with chunked encoding and gives the body's stream.
  virtual std::shared_ptr<Stream> StartStream(int status, Headers headers) = 0;
  // True once the client has disconnected: stop working for it.
  virtual bool cancelled() const = 0;
  // Called once, on disconnect before an answer; at once if that has happened.
  virtual void OnCancel(std::function<void()> callback) = 0;
};
using ResponderPtr = std::shared_ptr<Responder>;
using Handler = std::function<void(Request, ResponderPtr)>;

// Percent-decodes; nullopt for a broken escape. With `plus`, '+' means a space (query strings).
std::optional<std::string> PercentDecode(std::string_view text, bool plus = false);
// Escapes all but unreserved characters: for one path segment or one query value.
std::string PercentEncode(std::string_view text);
// file:///a/b%20c of an absolute path.
std::string FileUri(const std::filesystem::path& path);
// Fills path and query from target. kInvalidArgument for a target that is no origin-form path.
Status ParseTarget(Request& request);

// RFC 9457 problem document for a Status:
//   {"type":"about:blank","title":"Bad Request","status":400,"code":"INVALID_ARGUMENT",
//    "detail":"optimizer.lr: ...","field":"optimizer.lr"}
// `field` is the part of an invalid-argument message before the first ": " when it looks like a
// path.
Response Problem(const Status& status);
// The same for an HTTP status that has no StatusCode of its own (401, 405, 413).
Response HttpProblem(int status, std::string_view code, std::string_view detail);
// 400 invalid, 404, 409 exists/precondition, 403, 429 exhausted, 504, 503, 409 aborted, 499
// cancelled, 500.
int HttpStatus(StatusCode code);
// The reverse, for clients: the Status in a problem document, or one made from the status line.
Status StatusFromResponse(const Response& response);

}  // namespace lepton::http
