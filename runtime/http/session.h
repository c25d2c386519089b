// One connection of the server.
//
//   kHandshake -> kHead -> kBody -> kHandling -> kWriting --keep--> kHead
//                   |        |          |            |
//                   |        |          +-> kStreaming (chunked body, open end)
//                   +--------+---- error answers ----+--close--> kLingering -> kClosed
//
// A read is outstanding in every state (unless much is read ahead), so that a client's disconnect
// is seen while its request is being handled. Lingering reads and drops what the client still
// sends, so that the last answer is not lost to a TCP reset. Threads: everything on the socket's
// strand, but Post* from any thread.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <deque>
#include <mutex>
#include <optional>

#include "runtime/http/body_file.h"
#include "runtime/http/growing_body.h"
#include "runtime/http/server_core.h"
#include "runtime/http/transport.h"

namespace lepton::http {

class SessionResponder;
class SessionStream;

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<ServerCore> core, std::unique_ptr<Transport> transport, std::string peer);
  // `reject`: answer 503 and close.
  void Start(bool reject);

  // Any thread. `exchange` numbers the requests of a connection: late calls for an older one do
  // nothing.
  void PostResponse(uint64_t exchange, Response response);
  void PostStreamHead(uint64_t exchange, int status, Headers headers,
                      std::shared_ptr<SessionStream> stream);
  void PostStreamBytes(uint64_t exchange, std::string bytes);
  void PostStreamEnd(uint64_t exchange);
  void PostClose();
  // The server is stopping: close when idle.
  void PostDrain();

 private:
  enum class State {
    kHandshake,
    kHead,
    kBody,
    kHandling,
    kWriting,
    kStreaming,
    kLingering,
    kClosed
  };
  struct Output {
    std::string bytes;
    size_t written = 0;
    size_t accounted = 0;                // stream bytes to give back when written
    std::shared_ptr<BodySource> source;  // more bytes, when these are written
    uint64_t left = 0;                   // in the source
  };
  using Parser = boost::beast::http::request_parser<GrowingBody>;

  template <typename Work>
  void Post(Work&& work);
  void BeginRequest();
  void Read();
  void OnRead(ErrorCode error, size_t bytes);
  void OnReadError(ErrorCode error);
  void Advance();
  bool CheckHead();
  bool CheckAllowed();
  bool CheckBodySize();
  bool SpoolBody();
  void Dispatch();
  void RefuseParse(ErrorCode error);
  void Refuse(int status, std::string_view code, std::string_view detail);
  void Refuse(Response response);
  void Respond(Response response);
  std::string Head(int status, const Headers& headers, std::optional<uint64_t> content_length,
                   bool chunked) const;
  void Enqueue(std::string bytes, size_t accounted = 0);
  bool Refill(Output& output);
  void WriteNext();
  void OnWritten(ErrorCode error, size_t bytes);
  void EndExchange();
  void Linger();
  void Close();
  void NotifyDisconnect();
  void ArmRead(Duration timeout);
  void ArmWrite();
  void OnReadTimeout();

  const std::shared_ptr<ServerCore> core_;
  const std::unique_ptr<Transport> transport_;
  const std::string peer_;
  boost::asio::steady_timer read_timer_, write_timer_;
  State state_ = State::kHandshake;
  std::array<char, 16 << 10> chunk_;
  boost::beast::flat_buffer in_;  // read and not yet parsed
  std::optional<Parser> parser_;
  Request request_;
  std::shared_ptr<BodyFile> file_;  // the body goes here
  uint64_t body_limit_ = 0;
  bool reading_ = false, eof_ = false;
  bool head_started_ = false, head_done_ = false, has_body_ = false;
  bool keep_alive_ = false, is_head_ = false, http10_ = false, chunked_ = false, end_seen_ = false;
  size_t lingered_ = 0;
  std::deque<Output> out_;
  bool writing_ = false;
  uint64_t exchange_ = 0;
  std::weak_ptr<SessionResponder> responder_;
  std::weak_ptr<SessionStream> stream_;
};

// The Stream of a chunked answer. Dropping the last reference ends the answer like Close.
class SessionStream final : public Stream {
 public:
  SessionStream(std::shared_ptr<Session> session, uint64_t exchange)
      : session_(std::move(session)), exchange_(exchange) {}
  ~SessionStream() override;
  bool Write(std::string_view bytes) override;
  void Close() override;
  bool open() const override { return open_; }
  size_t pending() const override { return pending_; }

 private:
  friend class Session;
  friend class SessionResponder;
  const std::shared_ptr<Session> session_;
  const uint64_t exchange_;
  std::atomic<bool> open_{true};
  std::atomic<size_t> pending_{0};
};

class SessionResponder final : public Responder {
 public:
  SessionResponder(std::shared_ptr<Session> session, uint64_t exchange)
      : session_(std::move(session)), exchange_(exchange) {}
  ~SessionResponder() override;
  void Send(Response response) override;
  std::shared_ptr<Stream> StartStream(int status, Headers headers) override;
  bool cancelled() const override { return cancelled_; }
  void OnCancel(std::function<void()> callback) override;

 private:
  friend class Session;
  bool TakeAnswer();  // true the first time
  void Disconnected();

  const std::shared_ptr<Session> session_;
  const uint64_t exchange_;
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  bool answered_ = false;
  std::function<void()> on_cancel_;
};

}  // namespace lepton::http
