// A byte stream over TCP, with or without TLS, behind one interface, so that sessions and clients
// are compiled once.
// Threads: all calls and completions on the socket's executor (a strand). At most one read and one
// write may be outstanding. The caller keeps the transport alive until its completions have run.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <memory>
#include <string>

namespace boost::asio::ssl {
class context;
}

namespace lepton::http {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;

class Transport {
 public:
  using Done = std::function<void(ErrorCode, size_t)>;
  virtual ~Transport() = default;
  virtual asio::ip::tcp::socket& socket() = 0;
  virtual void Handshake(Done done) = 0;
  virtual void ReadSome(asio::mutable_buffer buffer, Done done) = 0;
  virtual void WriteAll(asio::const_buffer buffer, Done done) = 0;
  // Tells the peer that nothing more will be written.
  virtual void ShutdownSend() = 0;
  // Ends outstanding operations with an error.
  void Close();
};

std::unique_ptr<Transport> MakePlainTransport(asio::ip::tcp::socket socket);
// `host`: for a client, the name to send (SNI) and, if `verify`, to find in the certificate.
std::unique_ptr<Transport> MakeTlsTransport(asio::ip::tcp::socket socket,
                                            asio::ssl::context& context, bool server,
                                            const std::string& host = "", bool verify = false);

}  // namespace lepton::http
