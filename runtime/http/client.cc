#include "runtime/http/client.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <charconv>

#include "runtime/base/clock.h"
#include "runtime/http/connection.h"

namespace lepton::http {
namespace {

// Nobody comes to look at a deadline so late who had a turn.
constexpr Duration kStoodStill = std::chrono::seconds(1);

}  // namespace

Result<Url> ParseUrl(std::string_view text) {
  Url url;
  const std::string_view whole = text;
  const auto bad = [whole](std::string_view why) {
    return InvalidArgument("url: " + std::string(whole) + ": " + std::string(why));
  };
  if (text.starts_with("https://")) {
    url.tls = true;
    text.remove_prefix(8);
  } else if (text.starts_with("http://")) {
    text.remove_prefix(7);
  } else if (text.find("://") != text.npos) {
    return bad("must begin with http:// or https://");
  }
  const size_t slash = std::min(text.find('/'), text.size());
  std::string_view authority = text.substr(0, slash);
  url.path_prefix = std::string(text.substr(slash));
  while (url.path_prefix.ends_with('/')) url.path_prefix.pop_back();
  if (url.path_prefix.find_first_of("?# \r\n") != std::string::npos) return bad("no query allowed");
  if (authority.find('@') != authority.npos) return bad("no user name allowed");
  size_t colon = authority.rfind(':');
  if (authority.starts_with('[')) {
    const size_t close = authority.find(']');
    if (close == authority.npos) return bad("unclosed '['");
    url.host = std::string(authority.substr(1, close - 1));
    if (close + 1 < authority.size() && authority[close + 1] != ':') return bad("junk after ']'");
    colon = close + 1 < authority.size() ? close + 1 : authority.npos;
  } else {
    url.host = std::string(authority.substr(0, colon));
  }
  if (url.host.empty() || url.host.find_first_of(" \r\n\t") != std::string::npos) {
    return bad("no host");
  }
  url.port = url.tls ? 443 : 80;
  if (colon != authority.npos) {
    const std::string_view port = authority.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), url.port);
    if (error != std::errc() || end != port.data() + port.size() || url.port == 0) {
      return bad("the port must be 1..65535");
    }
  }
  return url;
}

// An io_context that only runs while a call waits, its TLS set-up and the open connection.
struct Client::Connection {
  asio::io_context io{1};
  std::optional<asio::ssl::context> tls;
  std::shared_ptr<ClientConnection> link;

  ~Connection() {
    if (link) link->Close();
    link.reset();
    io.restart();
    io.poll();
  }

  Status LoadTls(const ClientOptions& options) {
    if (tls) return {};
    asio::ssl::context& context = tls.emplace(asio::ssl::context::tls_client);
    SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
    ErrorCode error;
    context.set_default_verify_paths(error);
    if (!options.ca_file.empty()) {
      context.load_verify_file(options.ca_file, error);
      if (error) {
        tls.reset();
        return InvalidArgument("ca_file: " + options.ca_file + ": " + error.message());
      }
    }
    context.set_verify_mode(options.tls_verify ? asio::ssl::verify_peer : asio::ssl::verify_none,
                            error);
    return {};
  }

  // Runs until `done` or the deadline, which may move meanwhile; then the connection is given up.
  // A process that stood still in between (stopped, suspended) gets a while more, once: what came
  // meanwhile is not late.
  Status RunUntil(const bool& done, const Deadline& deadline, std::string_view what) {
    io.restart();
    MonotonicTime until = deadline.at();
    MonotonicTime due = std::max(until, RealClock().Now());
    while (!done) {
      if (io.run_one_until(until) > 0) {
        if (deadline.at() > until) until = due = deadline.at();
        continue;
      }
      const MonotonicTime now = RealClock().Now();
      if (io.stopped() || now - due < kStoodStill) break;
      until = now + kStoodStill;
      due = MonotonicTime::max();
    }
    if (done) return {};
    link->Close();
    io.restart();
    while (io.poll() > 0) {
    }
    link.reset();
    return DeadlineExceeded(std::string(what) + ": no answer in time");
  }

  Status Open(const Url& url, const ClientOptions& options, const Deadline& deadline) {
    if (url.tls) LEPTON_RETURN_IF_ERROR(LoadTls(options));
    link = std::make_shared<ClientConnection>(io.get_executor());
    // Shared, since a completion may run after the deadline has ended this call.
    auto outcome = std::make_shared<std::pair<bool, Status>>();
    link->Connect(url.host, url.port, url.tls ? &*tls : nullptr, options.tls_verify,
                  [outcome](Status status) {
                    *outcome = {true, std::move(status)};
                  });
    LEPTON_RETURN_IF_ERROR(RunUntil(outcome->first, deadline, HostHeader(url.host, url.port)));
    if (!outcome->second.ok()) link.reset();
    return outcome->second;
  }

  Result<ClientConnection::Answer> Exchange(const Url& url, const std::string& wire, bool is_head,
                                            const Deadline& deadline,
                                            const ClientConnection::OnBytes& on_bytes) {
    auto outcome = std::make_shared<std::pair<bool, ClientConnection::Answer>>();
    link->Exchange(wire, is_head, on_bytes, [outcome](ClientConnection::Answer answer) {
      *outcome = {true, std::move(answer)};
    });
    LEPTON_RETURN_IF_ERROR(RunUntil(outcome->first, deadline, HostHeader(url.host, url.port)));
    return std::move(outcome->second);
  }

  Result<Response> Run(const Url& url, const ClientOptions& options, Request request,
                       const Deadline& deadline, const ClientConnection::OnBytes& on_bytes) {
    request.target = url.path_prefix + request.target;
    if (request.target.find_first_of(" \r\n") != std::string::npos) {
      return InvalidArgument("target: blanks must be percent-encoded");
    }
    if (!options.bearer_token.empty()) {
      request.headers.erase("Authorization");
      request.headers.emplace("Authorization", "Bearer " + options.bearer_token);
    }
    const std::string wire = SerializeRequest(request, HostHeader(url.host, url.port));
    for (bool retried = false;; retried = true) {
      const bool reused = link != nullptr && link->reusable();
      if (!reused) LEPTON_RETURN_IF_ERROR(Open(url, options, deadline));
      auto answer = Exchange(url, wire, request.method == "HEAD", deadline, on_bytes);
      if (!answer.ok()) return answer.status();
      if (answer->status.ok()) return std::move(answer->response);
      link.reset();
      const bool stale = reused && !answer->any_bytes && !retried &&
                         answer->status.code() == StatusCode::kUnavailable;
      if (!stale) return answer->status.WithContext(HostHeader(url.host, url.port));
    }
  }
};

Client::Client(Url url, ClientOptions options)
    : url_(std::move(url)),
      options_(std::move(options)),
      connection_(std::make_unique<Connection>()) {}

Client::~Client() = default;

Result<Response> Client::Call(const Request& request, Deadline deadline) {
  return connection_->Run(url_, options_, request, deadline, nullptr);
}

Status Client::CallStreaming(const Request& request, Deadline deadline,
                             const std::function<bool(std::string_view)>& on_bytes,
                             Duration silence) {
  const auto next = [&] {
    return silence == Duration::max()
               ? deadline
               : Deadline(std::min(deadline.at(), Deadline::In(silence).at()));
  };
  Deadline limit = next();
  LEPTON_ASSIGN_OR_RETURN(const Response response, connection_->Run(url_, options_, request, limit,
                                                                    [&](std::string_view bytes) {
                                                                      limit = next();
                                                                      return on_bytes(bytes);
                                                                    }));
  return StatusFromResponse(response);
}

}  // namespace lepton::http
