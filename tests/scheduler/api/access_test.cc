// Who gets in: keys, scopes, origins, binds and the data folder's lock.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "scheduler/api/routes.h"
#include "tests/scheduler/api/test_cluster.h"

namespace lepton::scheduler {
namespace {

using nlohmann::json;
using testing::HasSubstr;

http::Headers Bearer(const std::string& key) {
  return {{"Authorization", "Bearer " + key}};
}

// A path that reaches the route: every placeholder becomes "x".
std::string PathOf(std::string_view pattern) {
  std::string path;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '{') {
      path += "x";
      i = pattern.find('}', i);
    } else {
      path += pattern[i];
    }
  }
  return path;
}

// The status of the answer to these bytes, which are sent one `pause` after the other; empty: none
// came within 5 s.
std::string StatusOf(TestCluster& cluster, const std::string& head, const std::string& body = "",
                     Duration pause = {}) {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(cluster.coordinator().http_port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return "";
  const timeval patience{5, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  EXPECT_TRUE(WriteAll(fd.get(), head + "\r\n\r\n").ok());
  for (const char c : body) {
    std::this_thread::sleep_for(pause);
    if (::send(fd.get(), &c, 1, MSG_NOSIGNAL) != 1) break;
  }
  std::string answer(12, '\0');
  const ssize_t got = ::recv(fd.get(), answer.data(), answer.size(), MSG_WAITALL);
  return got == 12 ? answer.substr(9) : "";
}

// The status of GET /v1/jobs with this Host header.
std::string StatusWithHost(TestCluster& cluster, const std::string& host) {
  return StatusOf(cluster, "GET /v1/jobs HTTP/1.1\r\nHost: " + host + "\r\nConnection: close");
}

std::string NewKey(TestCluster& cluster, const std::vector<std::string>& scopes,
                   const std::string& admin = "", const std::string& ttl = "") {
  json body = {{"name", "test"}, {"scopes", scopes}};
  if (!ttl.empty()) body["ttl"] = ttl;
  const Answer answer = cluster.Call("POST", "/v1/keys", body.dump(),
                                     admin.empty() ? http::Headers() : Bearer(admin));
  EXPECT_EQ(answer.status, 201) << answer.body;
  return answer.Text("key");
}

TEST(AccessTest, EveryRouteButTheOpenOnesNeedsAKeyOnceOneExists) {
  TestCluster cluster;
  EXPECT_EQ(cluster.Get("/v1/jobs").status, 200);
  NewKey(cluster, {"admin"});
  std::set<std::string> open;
  for (const api::ApiRoute& route : api::Routes()) {
    const Answer answer = cluster.Call(std::string(route.method), PathOf(route.pattern));
    if (route.scope == api::Scope::kNone) {
      EXPECT_EQ(answer.status, 200) << route.pattern;
      open.insert(std::string(route.pattern));
      continue;
    }
    EXPECT_EQ(answer.status, 401) << route.method << " " << route.pattern;
    EXPECT_THAT(answer.Header("WWW-Authenticate"), HasSubstr("Bearer"));
    EXPECT_EQ(answer.Text("code"), "UNAUTHENTICATED");
  }
  EXPECT_THAT(open, testing::UnorderedElementsAre("/", "/healthz", "/readyz", "/openapi.json",
                                                  "/v2/health/live", "/v2/health/ready"));
  // The gateway's rows go through the same door.
  EXPECT_EQ(cluster.Call("POST", "/v1/deployments/x:predict", "{}").status, 401);
  EXPECT_EQ(cluster.Call("POST", "/v2/models/x/infer", "{}").status, 401);
}

TEST(AccessTest, AScopeThatDoesNotReachIsNamed) {
  TestCluster cluster;
  const std::string admin = NewKey(cluster, {"admin"});
  const std::string reader = NewKey(cluster, {"read"}, admin);
  const std::string submitter = NewKey(cluster, {"submit"}, admin);
  const std::string predictor = NewKey(cluster, {"predict"}, admin);
  EXPECT_EQ(cluster.Call("GET", "/v1/jobs", "", Bearer(reader)).status, 200);
  EXPECT_EQ(cluster.Call("GET", "/v1/jobs", "", Bearer(submitter)).status, 200);
  EXPECT_EQ(cluster.Call("GET", "/v1/keys", "", Bearer(admin)).status, 200);
  const Answer write = cluster.Call("POST", "/v1/jobs", "{}", Bearer(reader));
  EXPECT_EQ(write.status, 403);
  EXPECT_THAT(write.Text("detail"), HasSubstr("scope submit"));
  EXPECT_EQ(cluster.Call("GET", "/v1/jobs", "", Bearer(predictor)).status, 403);
  EXPECT_EQ(cluster.Call("GET", "/v1/keys", "", Bearer(submitter)).status, 403);
  // Allowed, and so answered by the gateway.
  EXPECT_EQ(cluster.Call("POST", "/v1/deployments/x:predict", "{}", Bearer(predictor)).status, 404);
}

TEST(AccessTest, KeysAreListedWithoutSecretsAndCanBeRevokedAndExpire) {
  TestCluster cluster;
  const std::string admin = NewKey(cluster, {"admin"});
  const std::string brief = NewKey(cluster, {"read"}, admin, "1ms");
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(cluster.Call("GET", "/v1/jobs", "", Bearer(brief)).status, 401);
  const Answer list = cluster.Call("GET", "/v1/keys", "", Bearer(admin));
  ASSERT_EQ(list.json["items"].size(), 2u);
  EXPECT_EQ(list.body.find(admin.substr(12)), std::string::npos);
  for (const json& key : list.json["items"]) {
    EXPECT_FALSE(key.contains("hash"));
    EXPECT_FALSE(key.contains("key"));
  }
  const std::string id = brief.substr(3, 8);
  EXPECT_EQ(cluster.Call("DELETE", "/v1/keys/" + id, "", Bearer(admin)).status, 200);
  EXPECT_EQ(cluster.Call("DELETE", "/v1/keys/" + id, "", Bearer(admin)).status, 404);
  // Not the last that may make others: without a key all would be open.
  const std::string own = "/v1/keys/" + admin.substr(3, 8);
  const Answer last = cluster.Call("DELETE", own, "", Bearer(admin));
  EXPECT_EQ(last.status, 409) << last.body;
  EXPECT_THAT(last.Text("detail"), HasSubstr("make another first"));
  EXPECT_EQ(cluster.Get("/v1/jobs").status, 401);
  const std::string next = NewKey(cluster, {"admin"}, admin);
  EXPECT_EQ(cluster.Call("DELETE", own, "", Bearer(next)).status, 200);
  EXPECT_EQ(cluster.Call("GET", "/v1/jobs", "", Bearer(admin)).status, 401);
  cluster.Restart();
  EXPECT_EQ(cluster.Get("/v1/jobs").status, 401);
  EXPECT_EQ(cluster.Call("GET", "/v1/jobs", "", Bearer(next)).status, 200);
}

TEST(AccessTest, BadKeyRequestsNameTheField) {
  TestCluster cluster;
  EXPECT_EQ(cluster.Call("POST", "/v1/keys", R"({"scopes":["read"]})").status, 409);
  for (const auto& [body, field] :
       std::map<std::string, std::string>{{R"({"scopes":["root"]})", "scopes"},
                                          {R"({"scopes":"admin"})", "scopes"},
                                          {R"({"scopes":["admin"],"ttl":5})", "ttl"},
                                          {R"({"scopes":["admin"],"ttl":"soon"})", "ttl"},
                                          {R"({"scopes":["admin"],"expires":1})", "expires"}}) {
    const Answer answer = cluster.Call("POST", "/v1/keys", body);
    EXPECT_EQ(answer.status, 400) << body;
    EXPECT_EQ(answer.Text("field"), field) << answer.body;
  }
  EXPECT_EQ(cluster.Call("POST", "/v1/keys", "not json").status, 400);
}

TEST(AccessTest, RequireAuthClosesTheApiBeforeTheFirstKey) {
  TestCluster cluster([](CoordinatorOptions& options) { options.require_auth = true; });
  EXPECT_EQ(cluster.Get("/v1/jobs").status, 401);
  EXPECT_EQ(cluster.Get("/healthz").status, 200);
}

TEST(AccessTest, PagesOfOtherOriginsAndReboundNamesAreRefused) {
  TestCluster cluster;
  EXPECT_EQ(cluster.Call("GET", "/v1/jobs", "", {{"Origin", "https://evil.example"}}).status, 403);
  const std::string host = "127.0.0.1:" + std::to_string(cluster.coordinator().http_port());
  EXPECT_EQ(cluster.Call("GET", "/v1/jobs", "", {{"Origin", "http://" + host}}).status, 200);
  // The client sends the Host that it connects to, so these are sent by hand.
  EXPECT_EQ(StatusWithHost(cluster, "evil.example"), "403");
  EXPECT_EQ(StatusWithHost(cluster, "127.0.0.1.evil.example:80"), "403");
  EXPECT_EQ(StatusWithHost(cluster, "localhost:1"), "200");
  EXPECT_EQ(StatusWithHost(cluster, "[::1]:1"), "200");
}

TEST(AccessTest, OfflineKeysWorkAndAreRefusedWhileACoordinatorRuns) {
  TempFolder folder;
  const auto key = CreateApiKey(folder.path() / "data", {.name = "ci", .scopes = {"admin"}});
  ASSERT_TRUE(key.ok()) << key.status().ToString();
  EXPECT_EQ(
      CreateApiKey(folder.path() / "data", {.name = "ci", .scopes = {"root"}}).status().code(),
      StatusCode::kInvalidArgument);
  TestCluster cluster([&](CoordinatorOptions& o) { o.data_dir = folder.path() / "data"; });
  EXPECT_EQ(cluster.Get("/v1/jobs").status, 401);
  EXPECT_EQ(cluster.Call("GET", "/v1/jobs", "", Bearer(*key)).status, 200);
  const auto second = CreateApiKey(folder.path() / "data", {.name = "x", .scopes = {"read"}});
  EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.status().message(), HasSubstr("POST /v1/keys"));
}

TEST(AccessTest, ASecondCoordinatorOnAFolderIsRefused) {
  TestCluster cluster;
  CoordinatorOptions options = cluster.options();
  const auto second = Coordinator::Start(options);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.status().message(), HasSubstr("another coordinator uses the data folder"));
}

TEST(AccessTest, APortInUseIsRefused) {
  TestCluster cluster;
  TempFolder folder;
  for (const bool http : {true, false}) {
    CoordinatorOptions options;
    options.data_dir = folder.path() / (http ? "a" : "b");
    (http ? options.http_port : options.link_port) =
        http ? cluster.coordinator().http_port() : cluster.coordinator().link_port();
    const auto second = Coordinator::Start(options);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition)
        << second.status().ToString();
  }
}

TEST(AccessTest, BeyondLoopbackKeysAndTlsAreDemanded) {
  TempFolder folder;
  CoordinatorOptions options;
  options.data_dir = folder.path();
  options.http_address = "0.0.0.0";
  const auto keyless = Coordinator::Start(options);
  ASSERT_FALSE(keyless.ok());
  EXPECT_EQ(keyless.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(keyless.status().message(), HasSubstr("lepton key create"));
  ASSERT_TRUE(CreateApiKey(folder.path(), {.name = "ci", .scopes = {"admin"}}).ok());
  const auto plain = Coordinator::Start(options);
  ASSERT_FALSE(plain.ok());
  EXPECT_THAT(plain.status().message(), HasSubstr("--tls-cert"));
}

TEST(AccessTest, UnknownPathsAndMethodsAreProblems) {
  TestCluster cluster;
  const Answer unknown = cluster.Get("/v1/nothing");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.Header("Content-Type"), "application/problem+json");
  const Answer method = cluster.Call("PUT", "/v1/jobs");
  EXPECT_EQ(method.status, 405);
  EXPECT_THAT(method.Header("Allow"), HasSubstr("POST"));
}

TEST(AccessTest, ABodyOverTheLimitIs413) {
  TestCluster cluster([](CoordinatorOptions& options) { options.max_body_bytes = 1000; });
  EXPECT_EQ(cluster.Call("POST", "/v1/datasets/x", std::string(2000, 'a')).status, 413);
}

TEST(AccessTest, WhoHasNoKeyIsToldBeforeTheBodyIsRead) {
  TestCluster cluster;
  const std::string reader = NewKey(cluster, {"admin", "read"});
  const std::string predictor = NewKey(cluster, {"predict"}, reader);
  const auto status = [&](const std::string& line, const std::string& headers) {
    return StatusOf(cluster, line + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000" + headers);
  };
  EXPECT_EQ(status("POST /v1/jobs", ""), "401");
  EXPECT_EQ(status("POST /v1/datasets/x", "\r\nExpect: 100-continue"), "401");
  EXPECT_EQ(status("POST /v1/jobs", "\r\nAuthorization: Bearer lk_0_1"), "401");
  EXPECT_EQ(status("POST /v1/jobs", "\r\nAuthorization: Bearer " + predictor), "403");
  EXPECT_EQ(status("POST /v2/models/x/infer", ""), "401");
  EXPECT_EQ(status("POST /v1/nothing", ""), "404");
  EXPECT_EQ(status("PUT /v1/jobs", ""), "405");
  EXPECT_EQ(status("GET /healthz", ""), "413");
  EXPECT_EQ(
      status("POST /v1/datasets/x", "\r\nExpect: 100-continue\r\nAuthorization: Bearer " + reader),
      "100");
  EXPECT_THAT(cluster.Call("GET", "/metrics", "", Bearer(reader)).body,
              HasSubstr("lepton_http_requests_total{code=\"403\",method=\"POST\","
                        "route=\"/v1/jobs\"}"));
}

TEST(AccessTest, AnUploadMayTakeItsTimeAsLongAsItMoves) {
  TestCluster cluster([](CoordinatorOptions& options) {
    options.http_read_timeout = std::chrono::milliseconds(300);
  });
  const std::string csv = "a,b\n1,x\n2,y\n";
  const std::string length = "\r\nContent-Length: " + std::to_string(csv.size());
  const std::string head = "POST /v1/datasets/x?format=csv HTTP/1.1\r\nHost: localhost" + length;
  EXPECT_EQ(StatusOf(cluster, head, csv, std::chrono::milliseconds(50)), "201");
  EXPECT_EQ(StatusOf(cluster, head, "a,b"), "408");
  EXPECT_EQ(StatusOf(cluster, "POST /v1/jobs HTTP/1.1\r\nHost: localhost" + length, csv,
                     std::chrono::milliseconds(50)),
            "408");
}

TEST(AccessTest, TheDataFolderIsNotReadForAnybody) {
  TestCluster cluster;
  const std::string data = "file://" + cluster.options().data_dir.string();
  for (const char* file : {"/server.key", "/pool.key", "/metadata/CURRENT", "/missing"}) {
    const Answer answer =
        cluster.Call("POST", "/v1/datasets/x?format=text&uri=" + data + file, "", {});
    EXPECT_EQ(answer.status, 403) << file << ": " << answer.body;
  }
}

TEST(AccessTest, MethodsThatNoRouteHasAreCountedTogether) {
  TestCluster cluster;
  const auto series = [&] {
    const std::string text = cluster.Get("/metrics").body;
    size_t count = 0;
    for (size_t at = 0; (at = text.find("lepton_http_requests_total{", at)) != text.npos; ++at) {
      ++count;
    }
    return count;
  };
  series();
  const size_t before = series();
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(cluster.Call("M" + std::to_string(i), "/v1/jobs").status, 405);
  }
  EXPECT_LE(series(), before + 1);
}

TEST(AccessTest, ThePageAndTheMetricsAreServed) {
  TestCluster cluster;
  const Answer page = cluster.Get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_THAT(page.Header("Content-Type"), HasSubstr("text/html"));
  EXPECT_THAT(page.Header("Content-Security-Policy"), HasSubstr("default-src 'none'"));
  EXPECT_THAT(page.body, HasSubstr("</html>"));
  cluster.Get("/v1/jobs");
  const Answer metrics = cluster.Get("/metrics");
  EXPECT_EQ(metrics.status, 200);
  EXPECT_THAT(metrics.body, HasSubstr("lepton_http_requests_total{code=\"200\",method=\"GET\","
                                      "route=\"/v1/jobs\"}"));
  EXPECT_THAT(metrics.body, HasSubstr("lepton_jobs{state=\"RUNNING\"} 0"));
  EXPECT_THAT(metrics.body, HasSubstr("lepton_slots 0"));
}

}  // namespace
}  // namespace lepton::scheduler
