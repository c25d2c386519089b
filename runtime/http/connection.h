// One connection of a client: connects, then carries one request and its answer after the other.
// Threads: everything on `executor` (a strand, or a single-threaded io_context's). Completions run
// once; Close ends what is outstanding with kUnavailable.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <optional>

#include "runtime/http/client.h"
#include "runtime/http/growing_body.h"
#include "runtime/http/transport.h"

namespace lepton::http {

// The request as bytes.
std::string SerializeRequest(const Request& request, std::string_view host_header);
// "host:port", with brackets around an IPv6 address.
std::string HostHeader(const std::string& host, uint16_t port);

class ClientConnection : public std::enable_shared_from_this<ClientConnection> {
 public:
  struct Answer {
    Status status;  // of the exchange; a non-2xx answer is OK here
    Response response;
    bool any_bytes = false;  // of the answer were received
  };
  using Connected = std::function<void(Status)>;
  using Done = std::function<void(Answer)>;
  // Sees a 2xx answer's body piece by piece; false gives up (kCancelled).
  using OnBytes = std::function<bool(std::string_view)>;

  explicit ClientConnection(asio::any_io_executor executor);
  const asio::any_io_executor& executor() const { return executor_; }

  // `tls` is null for plain HTTP and must outlive the connection.
  void Connect(const std::string& host, uint16_t port, asio::ssl::context* tls, bool verify,
               Connected done);
  void Exchange(std::string request, bool is_head, OnBytes on_bytes, Done done);
  void Close();
  // Open and between two exchanges.
  bool reusable() const { return reusable_; }
  // False when the server has closed (or broken) a connection that was reusable: asks the kernel.
  bool StillOpen();

 private:
  using Parser = boost::beast::http::response_parser<GrowingBody>;
  void OnResolved(ErrorCode error, asio::ip::tcp::resolver::results_type results);
  void OnSocket(ErrorCode error);
  void FinishConnect(Status status);
  void Read();
  void OnRead(ErrorCode error, size_t bytes);
  void Parse();
  bool PassBody();
  void FinishExchange(Status status);
  void ResetParser();

  const asio::any_io_executor executor_;
  asio::ip::tcp::resolver resolver_;
  asio::ip::tcp::socket socket_;
  std::unique_ptr<Transport> transport_;
  std::string host_;
  asio::ssl::context* tls_ = nullptr;
  bool verify_ = true, closed_ = false, reusable_ = false;
  Connected connected_;

  std::string out_;
  bool writing_ = false, is_head_ = false, any_bytes_ = false;
  boost::beast::flat_buffer in_;
  std::optional<Parser> parser_;
  OnBytes on_bytes_;
  Done done_;
};

}  // namespace lepton::http
