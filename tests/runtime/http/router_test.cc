#include "runtime/http/router.h"

#include <nlohmann/json.hpp>

#include "tests/runtime/http/http_test_support.h"

namespace lepton::http {
namespace {

class FakeResponder final : public Responder {
 public:
  void Send(Response response) override { answer = std::move(response); }
  std::shared_ptr<Stream> StartStream(int, Headers) override { return nullptr; }
  bool cancelled() const override { return false; }
  void OnCancel(std::function<void()>) override {}
  Response answer;
};

Route Row(std::string method, std::string pattern) {
  const std::string name = method + " " + pattern;
  return {std::move(method),
          std::move(pattern),
          "",
          "",
          "",
          [name](Request request, ResponderPtr responder) {
            std::string text = name;
            for (const auto& [key, value] : request.params) text += " " + key + "=" + value;
            responder->Send(Response::Text(200, text));
          }};
}

Response Ask(const Router& router, const std::string& method, const std::string& target) {
  Request request = Get(target);
  request.method = method;
  EXPECT_TRUE(ParseTarget(request).ok());
  auto responder = std::make_shared<FakeResponder>();
  router.Handle(std::move(request), responder);
  return responder->answer;
}

TEST(HttpRouter, FindsTheMostSpecificRow) {
  const Router router({Row("GET", "/"), Row("GET", "/v1/jobs"), Row("POST", "/v1/jobs"),
                       Row("GET", "/v1/jobs/{id}"), Row("POST", "/v1/jobs/{id}:cancel"),
                       Row("GET", "/v1/jobs/newest"), Row("GET", "/v1/jobs/{id}/events"),
                       Row("GET", "/assets/{path...}"),
                       Row("GET", "/v2/models/{m}/versions/{v}/ready")});
  const std::vector<std::array<std::string, 3>> table = {
      {"GET", "/", "GET /"},
      {"GET", "/v1/jobs?state=RUNNING", "GET /v1/jobs"},
      {"POST", "/v1/jobs", "POST /v1/jobs"},
      {"GET", "/v1/jobs/j1", "GET /v1/jobs/{id} id=j1"},
      {"HEAD", "/v1/jobs/j1", "GET /v1/jobs/{id} id=j1"},
      {"GET", "/v1/jobs/a%2Fb%20c", "GET /v1/jobs/{id} id=a/b c"},
      {"GET", "/v1/jobs/newest", "GET /v1/jobs/newest"},
      {"POST", "/v1/jobs/j1:cancel", "POST /v1/jobs/{id}:cancel id=j1"},
      {"GET", "/v1/jobs/j1/events?after=3", "GET /v1/jobs/{id}/events id=j1"},
      {"GET", "/assets/css/a.css", "GET /assets/{path...} path=css/a.css"},
      {"GET", "/v2/models/m/versions/3/ready", "GET /v2/models/{m}/versions/{v}/ready m=m v=3"},
  };
  for (const auto& [method, target, expected] : table) {
    const Response response = Ask(router, method, target);
    EXPECT_EQ(response.status, 200) << target;
    EXPECT_EQ(response.body, expected) << target;
  }
}

TEST(HttpRouter, KnowsAMissingPathFromAMissingMethod) {
  const Router router({Row("GET", "/v1/jobs/{id}"), Row("DELETE", "/v1/jobs/{id}")});
  for (const char* target : {"/", "/v1", "/v1/jobs", "/v1/jobs/", "/v1/jobs/a/b", "/V1/jobs/a"}) {
    EXPECT_EQ(Ask(router, "GET", target).status, 404) << target;
  }
  const Response response = Ask(router, "PUT", "/v1/jobs/a");
  EXPECT_EQ(response.status, 405);
  EXPECT_EQ(response.headers.find("Allow")->second, "DELETE, GET");
}

TEST(HttpRouter, TheGuardSeesTheRowAndMayRefuse) {
  Route secret = Row("GET", "/secret");
  secret.scope = "admin";
  const Router router({secret, Row("GET", "/open")},
                      [](const Route& route, Request& request) -> std::optional<Response> {
                        request.principal = "somebody";
                        if (route.scope.empty()) return std::nullopt;
                        return HttpProblem(401, "PERMISSION_DENIED", "a key is needed");
                      });
  EXPECT_EQ(Ask(router, "GET", "/secret").status, 401);
  EXPECT_EQ(Ask(router, "GET", "/open").status, 200);
  EXPECT_EQ(Ask(router, "GET", "/none").status, 404);
}

TEST(HttpRouterDeathTest, BadTablesAreOurOwnBugs) {
  EXPECT_DEATH(Router({Row("GET", "/a/{x}"), Row("GET", "/a/{y}")}), "two rows");
  EXPECT_DEATH(Router({Row("GET", "relative")}), "relative");
  EXPECT_DEATH(Router({Row("GET", "/{a...}/b")}), "last part");
}

TEST(HttpProblems, GoThereAndBack) {
  const auto check = [](const Status& status, int http_status, const char* field) {
    const Response response = Problem(status);
    EXPECT_EQ(response.status, http_status);
    EXPECT_EQ(response.headers.find("content-type")->second, "application/problem+json");
    const auto document = nlohmann::json::parse(response.body);
    EXPECT_EQ(document["status"], http_status);
    EXPECT_EQ(document.value("field", "-"), field);
    EXPECT_EQ(StatusFromResponse(response), status);
  };
  check(InvalidArgument("optimizer.lr: -1 is out of range"), 400, "optimizer.lr");
  check(InvalidArgument("rows[3].x: not a number"), 400, "rows[3].x");
  check(InvalidArgument("job j1: cannot do"), 400, "-");
  check(InvalidArgument("no field here"), 400, "-");
  check(NotFound("x: gone"), 404, "-");
  check(AlreadyExists("a"), 409, "-");
  check(FailedPrecondition("a"), 409, "-");
  check(Aborted("a"), 409, "-");
  check(PermissionDenied("a"), 403, "-");
  check(ResourceExhausted("a"), 429, "-");
  check(DeadlineExceeded("a"), 504, "-");
  check(Unavailable("a"), 503, "-");
  check(Cancelled("a"), 499, "-");
  check(Internal("a"), 500, "-");
  EXPECT_NE(Problem(Internal("bytes \xff that are no text")).body, "");
}

TEST(HttpProblems, StatusOfForeignAnswers) {
  EXPECT_EQ(StatusFromResponse(Response::Json(400, R"({"error": "bad shape"})")),
            InvalidArgument("bad shape"));
  EXPECT_EQ(StatusFromResponse(Response::Text(502, "<html>")).code(), StatusCode::kUnavailable);
  EXPECT_TRUE(StatusFromResponse(Response::Text(204, "")).ok());
}

TEST(HttpTarget, EncodesWhatItDecodes) {
  std::string all;
  for (int c = 1; c < 256; ++c) all += static_cast<char>(c);
  EXPECT_EQ(PercentDecode(PercentEncode(all)), all);
  EXPECT_EQ(PercentEncode("digits@3/a b"), "digits%403%2Fa%20b");
  EXPECT_EQ(PercentDecode("%4"), std::nullopt);
  EXPECT_EQ(PercentDecode("a+b", true), "a b");
}

}  // namespace
}  // namespace lepton::http
