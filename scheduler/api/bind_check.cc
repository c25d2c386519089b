#include "scheduler/api/bind_check.h"

#include <arpa/inet.h>
#include <fmt/format.h>

namespace lepton::api {

bool IsLoopback(const std::string& address) {
  if (address == "localhost") return true;
  in_addr v4{};
  if (::inet_pton(AF_INET, address.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  if (::inet_pton(AF_INET6, address.c_str(), &v6) != 1) return false;
  return IN6_IS_ADDR_LOOPBACK(&v6);
}

Status CheckBind(const std::string& address, bool has_keys, bool has_tls) {
  if (IsLoopback(address)) return Status::Ok();
  std::string missing;
  if (!has_keys) {
    missing +=
        "API keys are needed: make the first one with `lepton key create --data-dir DIR "
        "--scope admin`";
  }
  if (!has_tls) {
    missing += std::string(missing.empty() ? "" : "; ") +
               "TLS is needed: give --tls-cert FILE and --tls-key FILE (for a test: openssl req "
               "-x509 -newkey rsa:3072 -nodes -keyout key.pem -out cert.pem -days 365 -subj "
               "/CN=$(hostname))";
  }
  if (missing.empty()) return Status::Ok();
  return FailedPrecondition(
      fmt::format("http.address: {} can be reached from other machines, so {}", address, missing));
}

}  // namespace lepton::api
