// TLS with a certificate made here.
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "tests/runtime/http/http_test_support.h"

namespace lepton::http {
namespace {

using std::chrono::seconds;

// A self-signed certificate for 127.0.0.1, valid for an hour, and its key, as PEM files.
void MakeCertificate(const std::filesystem::path& folder) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  ASSERT_NE(key, nullptr);
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("lepton test"), -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  X509_set_pubkey(certificate, key);
  for (const auto& [id, value] : {std::pair(NID_subject_alt_name, "IP:127.0.0.1"),
                                  std::pair(NID_basic_constraints, "critical,CA:TRUE")}) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, id, value);
    ASSERT_NE(extension, nullptr);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  ASSERT_NE(X509_sign(certificate, key, EVP_sha256()), 0);
  FILE* file = fopen((folder / "cert.pem").c_str(), "w");
  PEM_write_X509(file, certificate);
  fclose(file);
  file = fopen((folder / "key.pem").c_str(), "w");
  PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  fclose(file);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

class HttpTls : public testing::Test {
 protected:
  HttpTls() {
    MakeCertificate(folder_.path());
    options_.tls_certificate_file = folder_.path() / "cert.pem";
    options_.tls_key_file = folder_.path() / "key.pem";
  }
  Url UrlOf(const Server& server) {
    Url url;
    url.tls = true;
    url.host = "127.0.0.1";
    url.port = server.port();
    return url;
  }
  TempFolder folder_;
  ServerOptions options_;
};

TEST_F(HttpTls, CarriesRequestsBothWays) {
  auto server = StartServer(EchoHandler, options_);
  Client client(UrlOf(*server), {.ca_file = options_.tls_certificate_file});
  const std::string body(3'000'000, 'b');
  for (int i = 0; i < 5; ++i) {
    auto response = client.Call(Post("/tls", body), Deadline::In(seconds(10)));
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    EXPECT_EQ(response->body, "POST /tls " + body);
  }
}

TEST_F(HttpTls, StrangersAreRefusedUnlessVerificationIsOff) {
  auto server = StartServer(EchoHandler, options_);
  auto refused = Client(UrlOf(*server), {}).Call(Get("/"), Deadline::In(seconds(5)));
  EXPECT_EQ(refused.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(refused.status().message().find("certificate"), std::string::npos)
      << refused.status().ToString();
  Client trusting(UrlOf(*server), {.tls_verify = false});
  EXPECT_TRUE(trusting.Call(Get("/"), Deadline::In(seconds(5))).ok());
}

TEST_F(HttpTls, AWrongNameIsRefused) {
  auto server = StartServer(EchoHandler, options_);
  Url url = UrlOf(*server);
  url.host = "localhost";  // the certificate is for 127.0.0.1 only
  Client client(url, {.ca_file = options_.tls_certificate_file});
  EXPECT_EQ(client.Call(Get("/"), Deadline::In(seconds(5))).status().code(),
            StatusCode::kUnavailable);
}

TEST_F(HttpTls, PlainTextAndOldVersionsAreRefused) {
  auto server = StartServer(EchoHandler, options_);
  RawSocket plain(server->port());
  plain.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(plain.ReadAll().find("HTTP/1.1 200"), std::string::npos);
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION);
  BIO* bio = BIO_new_ssl_connect(context);
  BIO_set_conn_hostname(bio, ("127.0.0.1:" + std::to_string(server->port())).c_str());
  EXPECT_LE(BIO_do_handshake(bio), 0);
  BIO_free_all(bio);
  SSL_CTX_free(context);
}

TEST_F(HttpTls, SilentHandshakesTimeOutAndStopIsQuick) {
  options_.read_timeout = std::chrono::milliseconds(100);
  auto server = StartServer(EchoHandler, options_);
  RawSocket silent(server->port());
  silent.ReadAll();
  Client client(UrlOf(*server), {.ca_file = options_.tls_certificate_file});
  ASSERT_TRUE(client.Call(Get("/"), Deadline::In(seconds(5))).ok());
  const auto begin = std::chrono::steady_clock::now();
  server->Stop(seconds(5));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(4));
}

TEST_F(HttpTls, BadFilesAreNamed) {
  ServerOptions options = options_;
  options.tls_key_file = "";
  EXPECT_EQ(Server::Start(options, EchoHandler).status().code(), StatusCode::kInvalidArgument);
  options.tls_key_file = folder_.path() / "none.pem";
  const Status status = Server::Start(options, EchoHandler).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("none.pem"), std::string::npos);
}

}  // namespace
}  // namespace lepton::http
