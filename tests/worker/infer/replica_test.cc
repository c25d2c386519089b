// A whole replica: a stored model, HTTP in, predictions out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "runtime/http/client.h"
#include "tests/worker/infer/infer_test_support.h"
#include "worker/infer/infer_task.h"
#include "worker/infer/replica_server.h"
#include "worker/infer/row_protocol.h"
#include "worker/infer/tensor_protocol.h"

namespace lepton::worker {
namespace {

using Json = nlohmann::json;
using http::Request;
using http::Response;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr char kInfer[] = "/v2/models/bugs/infer";
constexpr char kPredict[] = "/v1/deployments/bugs-live:predict";

class ReplicaTest : public ::testing::Test {
 protected:
  void Start(const std::string& loss) {
    stored_ = MakeTestModel(loss);
    auto model = LoadedModel::Load(*stored_->objects, stored_->digest);
    ASSERT_TRUE(model.ok()) << model.status().ToString();
    ReplicaOptions options;
    options.token = "secret";
    options.deployment = "bugs-live";
    options.model_name = "bugs";
    options.model_version = "2";
    auto replica = ReplicaServer::Start(options, std::move(*model));
    ASSERT_TRUE(replica.ok()) << replica.status().ToString();
    replica_ = std::move(*replica);
    replica_->SetReady(true);
    http::Url url;
    url.host = "127.0.0.1";
    url.port = replica_->port();
    client_ = std::make_unique<http::Client>(url, http::ClientOptions{.bearer_token = "secret"});
  }
  Response Call(const std::string& method, const std::string& target, const std::string& body = "",
                http::Headers headers = {}) {
    Request request;
    request.method = method;
    request.target = target;
    request.body = body;
    request.headers = std::move(headers);
    auto response = client_->Call(request, Deadline::In(seconds(10)));
    EXPECT_TRUE(response.ok()) << response.status().ToString();
    return response.ok() ? *response : Response{};
  }
  Json Infer(const Json& body, int status = 200) {
    const Response response = Call("POST", kInfer, body.dump());
    EXPECT_EQ(response.status, status) << response.body;
    return Json::parse(response.body, nullptr, false);
  }
  // Raw rows whose normalised values are (0, 0, 0) and (1, 2, 3).
  static Json Tensor(Json data = {1, 2, 3, 3, 10, 27}) {
    return {{"name", "x"}, {"datatype", "FP64"}, {"shape", {2, 3}}, {"data", std::move(data)}};
  }

  std::unique_ptr<TestModel> stored_;
  std::unique_ptr<ReplicaServer> replica_;
  std::unique_ptr<http::Client> client_;
};

TEST_F(ReplicaTest, AnswersTensorsWithEveryOutput) {
  Start("cross_entropy");
  const Json answer = Infer({{"id", "r-7"}, {"inputs", {Tensor()}}});
  EXPECT_EQ(answer["id"], "r-7");
  EXPECT_EQ(answer["model_name"], "bugs");
  EXPECT_EQ(answer["model_version"], "2");
  std::map<std::string, Json> outputs;
  for (const Json& output : answer["outputs"]) outputs[output["name"]] = output;
  EXPECT_EQ(outputs["logits"]["data"], Json({0, 0, 0, 1, 2, 3}));
  EXPECT_EQ(outputs["logits"]["shape"], Json({2, 3}));
  EXPECT_EQ(outputs["logits"]["datatype"], "FP32");
  EXPECT_EQ(outputs["label"]["data"], Json({"ant", "cat"}));
  EXPECT_EQ(outputs["label"]["datatype"], "BYTES");
  EXPECT_EQ(outputs["class"]["data"], Json({0, 2}));
  const double sum = std::exp(-2.0) + std::exp(-1.0) + 1;
  EXPECT_NEAR(outputs["probabilities"]["data"][5].get<double>(), 1 / sum, 1e-6);
  EXPECT_NEAR(outputs["probabilities"]["data"][3].get<double>(), std::exp(-2.0) / sum, 1e-6);
}

TEST_F(ReplicaTest, TakesNestedDataSelectedOutputsAndMissingValues) {
  Start("cross_entropy");
  const Json answer = Infer(
      {{"inputs", {Tensor({{1, nullptr, 3}, {3, 10, 27}})}}, {"outputs", {{{"name", "logits"}}}}});
  ASSERT_EQ(answer["outputs"].size(), 1u);
  EXPECT_EQ(answer["outputs"][0]["data"], Json({0, 0, 0, 1, 2, 3})) << "null is the mean";
  EXPECT_FALSE(answer.contains("id"));
}

TEST_F(ReplicaTest, BinaryTensorsBothWays) {
  Start("cross_entropy");
  const std::vector<float> values = {1, std::nanf(""), 3, 3, 10, 27};
  const std::string header = Json({{"inputs",
                                    {{{"name", "x"},
                                      {"datatype", "FP32"},
                                      {"shape", {2, 3}},
                                      {"parameters", {{"binary_data_size", 24}}}}}},
                                   {"outputs",
                                    {{{"name", "logits"}, {"parameters", {{"binary_data", true}}}},
                                     {{"name", "label"}, {"parameters", {{"binary_data", true}}}},
                                     {{"name", "class"}}}}})
                                 .dump();
  std::string body = header;
  body.append(reinterpret_cast<const char*>(values.data()), 24);
  const Response response = Call(
      "POST", kInfer, body, {{"Inference-Header-Content-Length", std::to_string(header.size())}});
  ASSERT_EQ(response.status, 200) << response.body;
  const size_t json_size =
      std::stoul(response.headers.find("inference-header-content-length")->second);
  const Json answer = Json::parse(response.body.substr(0, json_size));
  EXPECT_EQ(answer["outputs"][0]["parameters"]["binary_data_size"], 24);
  EXPECT_EQ(answer["outputs"][2]["data"], Json({0, 2}));
  float logits[6];
  std::memcpy(logits, response.body.data() + json_size, 24);
  EXPECT_THAT(logits, ::testing::ElementsAre(0, 0, 0, 1, 2, 3));
  EXPECT_EQ(response.body.substr(json_size + 24), std::string("\3\0\0\0ant\3\0\0\0cat", 14));
  body.pop_back();
  EXPECT_EQ(Call("POST", kInfer, body,
                 {{"Inference-Header-Content-Length", std::to_string(header.size())}})
                .status,
            400);
  EXPECT_EQ(Call("POST", kInfer, body, {{"Inference-Header-Content-Length", "99999"}}).status, 400);
  EXPECT_EQ(Call("POST", kInfer, body, {{"Inference-Header-Content-Length", "1x"}}).status, 400);
}

TEST_F(ReplicaTest, BadTensorsAreRefusedByName) {
  Start("cross_entropy");
  const auto with = [](const char* key, Json value) {
    Json tensor = Tensor();
    tensor[key] = std::move(value);
    return Json{{"inputs", {tensor}}};
  };
  const std::vector<std::pair<Json, std::string>> table = {
      {Json::array(), "body: must be a JSON object"},
      {Json::object(), "inputs: must be an array of one tensor"},
      {{{"inputs", Json::array()}}, "inputs: must be an array of one tensor"},
      {{{"inputs", {Tensor(), Tensor()}}}, "inputs: must be an array of one tensor"},
      {{{"inputs", {7}}}, "inputs[0]: must be an object"},
      {with("name", "image"), "inputs[0].name: \"image\" is no input of this model; it has \"x\""},
      {with("name", 3), "inputs[0].name: must be a string"},
      {with("datatype", "FP31"), "inputs[0].datatype: \"FP31\"; it must be one of BOOL, UINT8"},
      {with("datatype", "BYTES"), "inputs[0].datatype"},
      {with("shape", {2, 4}), "inputs[0].shape: [2,4]; it must be [rows, 3]"},
      {with("shape", {6}), "inputs[0].shape: [6]; it must be [rows, 3]"},
      {with("shape", {0, 3}), "inputs[0].shape"},
      {with("shape", {-2, 3}), "inputs[0].shape"},
      {with("shape", {2.5, 3}), "inputs[0].shape"},
      {with("shape", {9000000000000000000, 3}), "inputs[0].shape"},
      {with("shape", {3, 3}), "inputs[0].data: 6 elements, but the shape has 9"},
      {with("shape", {1, 3}), "inputs[0].data: more elements than the shape's 3"},
      {with("data", "1,2,3"), "inputs[0].data: must be an array"},
      {with("data", {1, 2, "3", 4, 5, 6}),
       "inputs[0].data[2]: must be numbers or null, found string"},
      {with("data", {1, 2, true, 4, 5, 6}), "inputs[0].data[2]: must be numbers or null"},
      {with("data", {{{{{{{{{{{{1}}}}}}}}}}}}), "nested too deeply"},
      {{{"inputs", {Tensor()}}, {"outputs", {{{"name", "lables"}}}}},
       "outputs[0].name: \"lables\" is no output of this model; it has logits"},
      {{{"inputs", {Tensor()}},
        {"outputs", {{{"name", "logits"}}, {{"name", "label"}}, {{"name", "logits"}}}}},
       "outputs[2].name: \"logits\" is there twice"},
      {{{"inputs", {Tensor()}}, {"outputs", 3}}, "outputs: must be an array"},
      {{{"inputs", {Tensor()}}, {"id", 3}}, "id: must be a string"},
  };
  for (const auto& [body, message] : table) {
    const Json answer = Infer(body, 400);
    EXPECT_THAT(answer.value("error", ""), HasSubstr(message)) << body.dump();
  }
  Json integers = with("data", {1, 2, 3.5, 4, 5, 6});
  integers["inputs"][0]["datatype"] = "INT64";
  EXPECT_THAT(Infer(integers, 400).value("error", ""), HasSubstr("3.5 is no INT64"));
  Json missing = with("data", 0);
  missing["inputs"][0].erase("data");
  EXPECT_THAT(Infer(missing, 400).value("error", ""), HasSubstr("inputs[0].data: missing"));
  const Response garbage = Call("POST", kInfer, "{\"inputs\": [");
  EXPECT_EQ(garbage.status, 400);
  std::mt19937 random(3);
  const std::string valid = Json{{"inputs", {Tensor()}}}.dump();
  for (int i = 0; i < 300; ++i) {
    std::string bytes = valid;
    for (int flips = 0; flips < 3; ++flips)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    EXPECT_LT(Call("POST", kInfer, bytes).status, 500) << bytes;
  }
}

TEST_F(ReplicaTest, PredictsFromNamedColumns) {
  Start("cross_entropy");
  const Response response = Call(
      "POST", kPredict,
      R"({"rows": [{"depth": 27, "height": 10, "width": 3}, {"width": 5, "height": null, "depth": 3}]})");
  ASSERT_EQ(response.status, 200) << response.body;
  const Json answer = Json::parse(response.body);
  EXPECT_EQ(answer["model"], "bugs@2");
  ASSERT_EQ(answer["predictions"].size(), 2u);
  EXPECT_EQ(answer["predictions"][0]["label"], "cat");
  EXPECT_EQ(answer["predictions"][1]["label"], "ant");
  const double sum = std::exp(2.0) + 2;
  EXPECT_NEAR(answer["predictions"][1]["probability"].get<double>(), std::exp(2.0) / sum, 1e-6);
  EXPECT_NEAR(answer["predictions"][1]["probabilities"]["bee"].get<double>(), 1 / sum, 1e-6);
}

TEST(Answers, ARowWithoutOneHasNoLabel) {
  const float nan = std::nanf("");
  const std::tuple<const char*, const char*, std::vector<float>> table[] = {
      {"cross_entropy", "bee", {1, nan, 2, 0, 3, 1}}, {"binary_cross_entropy", "yes", {nan, 3}}};
  for (const auto& [loss, label, logits] : table) {
    const auto stored = MakeTestModel(loss);
    ServedModel model;
    model.name = "bugs";
    model.version = "2";
    model.manifest = &stored->manifest;
    model.outputs = static_cast<int64_t>(logits.size()) / 2;
    model.numbers = 3;
    const std::string rows = EncodePredictions(model, 2, logits);
    const Json predictions = Json::parse(rows)["predictions"];
    EXPECT_TRUE(predictions[0]["label"].is_null()) << rows;
    EXPECT_TRUE(predictions[0]["probability"].is_null()) << rows;
    for (const Json& one : predictions[0]["probabilities"]) EXPECT_TRUE(one.is_null()) << rows;
    EXPECT_EQ(predictions[1]["label"], label);
    InferRequest request;
    request.rows.rows = 2;
    request.outputs = {{"class"}, {"label"}};
    const Json answer = Json::parse(EncodeInferResponse(model, request, logits).body);
    EXPECT_EQ(answer["outputs"][0]["data"], Json({-1, 1}));
    EXPECT_EQ(answer["outputs"][1]["data"], Json({"", label}));
  }
}

TEST_F(ReplicaTest, BadRowsAreRefusedByName) {
  Start("cross_entropy");
  const std::vector<std::pair<std::string, std::string>> table = {
      {"", "body: not valid JSON"},
      {"{}", "rows: must be an array of at least one row"},
      {R"({"rows": []})", "rows: must be an array of at least one row"},
      {R"({"row": []})", "no field \"row\""},
      {R"({"rows": [3]})", "rows[0]: must be an object"},
      {R"({"rows": [{"width": 1, "height": 1}]})", "rows[0].depth: missing"},
      {R"({"rows": [{"width": 1, "heigth": 1, "depth": 1}]})",
       "rows[0]: no column \"heigth\"; did you mean \"height\"?"},
      {R"({"rows": [{"width": 1, "height": 1, "depth": 1, "kind": "ant"}]})",
       "\"kind\" is what the model predicts"},
      {R"({"rows": [{"width": "1", "height": 1, "depth": 1}]})",
       "rows[0].width: must be a number or null, found string"},
  };
  for (const auto& [body, message] : table) {
    const Response response = Call("POST", kPredict, body);
    EXPECT_EQ(response.status, 400) << body;
    EXPECT_THAT(Json::parse(response.body).value("detail", ""), HasSubstr(message)) << body;
  }
  EXPECT_EQ(Call("POST", "/v1/deployments/other:predict", "{}").status, 404);
}

TEST_F(ReplicaTest, BinaryClassifierAndRegression) {
  Start("binary_cross_entropy");
  Json answer = Json::parse(
      Call("POST", kPredict, R"({"rows": [{"width": 3, "height": 2, "depth": 3}]})").body);
  EXPECT_EQ(answer["predictions"][0]["label"], "yes");
  EXPECT_NEAR(answer["predictions"][0]["probability"].get<double>(), 1 / (1 + std::exp(-1.0)),
              1e-6);
  answer = Infer({{"inputs", {Tensor()}}, {"outputs", {{{"name", "probabilities"}}}}});
  EXPECT_EQ(answer["outputs"][0]["shape"], Json({2, 2}));
  Start("mse");
  answer = Json::parse(
      Call("POST", kPredict, R"({"rows": [{"width": 3, "height": 10, "depth": 27}]})").body);
  EXPECT_EQ(answer["predictions"][0]["value"], 6.5);
  answer = Infer({{"inputs", {Tensor()}}});
  EXPECT_EQ(answer["outputs"][1]["name"], "value");
  EXPECT_EQ(answer["outputs"][1]["data"], Json({0.5, 6.5}));
}

TEST_F(ReplicaTest, DescribesItselfAndDemandsItsToken) {
  Start("cross_entropy");
  const Json metadata = Json::parse(Call("GET", "/v2/models/bugs").body);
  EXPECT_EQ(metadata["inputs"][0]["shape"], Json({-1, 3}));
  EXPECT_EQ(metadata["outputs"].size(), 4u);
  EXPECT_EQ(metadata["parameters"]["classes"], Json({"ant", "bee", "cat"}));
  EXPECT_EQ(Call("GET", "/v2").status, 200);
  EXPECT_EQ(Call("GET", "/v2/models/bugs-live/ready").status, 200) << "by the deployment's name";
  EXPECT_EQ(Call("GET", "/v2/models/bugs/versions/2/ready").status, 200);
  EXPECT_EQ(Call("GET", "/v2/models/bugs/versions/3/ready").status, 404);
  EXPECT_EQ(Call("GET", "/v2/models/bees").status, 404);
  EXPECT_EQ(Call("GET", "/v2/none").status, 404);
  EXPECT_EQ(Call("GET", kInfer).status, 405);
  http::Url url;
  url.host = "127.0.0.1";
  url.port = replica_->port();
  for (const char* token : {"", "wrong", "secret2"}) {
    client_ = std::make_unique<http::Client>(url, http::ClientOptions{.bearer_token = token});
    EXPECT_EQ(Call("GET", "/v2").status, 401);
    EXPECT_EQ(Call("POST", kInfer, "{}").status, 401);
    EXPECT_EQ(Call("POST", kPredict, "{}").status, 401);
    EXPECT_EQ(Call("GET", "/metrics").status, 401);
    EXPECT_EQ(Call("GET", "/v2/health/live").status, 200);
    EXPECT_EQ(Call("GET", "/v2/health/ready").status, 200);
  }
  replica_->SetReady(false);
  EXPECT_EQ(Call("GET", "/v2/health/ready").status, 503);
}

TEST_F(ReplicaTest, ConcurrentClientsGetTheBitsOfALoneOne) {
  Start("cross_entropy");
  LoadedModel& alone = *LoadedModel::Load(*stored_->objects, stored_->digest)->release();
  std::unique_ptr<LoadedModel> owner(&alone);
  std::atomic<int> wrong{0};
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      http::Url url;
      url.host = "127.0.0.1";
      url.port = replica_->port();
      http::Client client(url, {.bearer_token = "secret"});
      for (int i = 0; i < 30; ++i) {
        const std::vector<double> raw = {t * 0.1, i * 0.3, t + i / 7.0};
        std::vector<float> expected(3);
        {
          std::lock_guard lock(mutex);
          ASSERT_TRUE(alone.Run({1, raw, {}}, expected).ok());
        }
        Request request;
        request.method = "POST";
        request.target = kInfer;
        request.body =
            Json{{"inputs",
                  {{{"name", "x"}, {"datatype", "FP64"}, {"shape", {1, 3}}, {"data", raw}}}},
                 {"outputs", {{{"name", "logits"}}}}}
                .dump();
        auto response = client.Call(request, Deadline::In(seconds(10)));
        if (!response.ok() || response->status != 200) {
          ++wrong;
          continue;
        }
        const auto logits =
            Json::parse(response->body)["outputs"][0]["data"].get<std::vector<float>>();
        if (logits != expected) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_THAT(Call("GET", "/metrics").body, HasSubstr("lepton_inference_executions_total"));
}

// ---- the task -----------------------------------------------------------------------------

class FakeContext final : public TaskContext {
 public:
  explicit FakeContext(storage::ObjectStore& objects) : objects_(objects) {}
  const wire::StartTask& start() const override { return start_; }
  const spec::JobSpec& spec() const override { return spec_; }
  storage::ObjectStore& objects() override { return objects_; }
  Result<std::unique_ptr<collectives::Communicator>> JoinGang() override {
    return FailedPrecondition("a replica has no gang");
  }
  Result<std::unique_ptr<collectives::Communicator>> JoinGroup(collectives::Communicator&, int,
                                                               int) override {
    return FailedPrecondition("a replica has no gang");
  }
  void ReportProgress(const wire::TaskProgress&) override {}
  void ReportCheckpoint(const wire::TaskCheckpoint&) override {}
  void ReportCheckpointSlice(const wire::TaskCheckpointSlice&) override {}
  void ReportReady(const std::string&, uint16_t port, double) override { port_ = port; }
  void SetResult(const wire::TaskFinished&) override {}
  bool stop_requested() const override { return stop_; }

  wire::StartTask start_;
  spec::JobSpec spec_;
  storage::ObjectStore& objects_;
  std::atomic<int> port_{0};
  std::atomic<bool> stop_{false};
};

TEST(InferTask, ServesUntilItIsStopped) {
  const auto stored = MakeTestModel("cross_entropy");
  FakeContext context(*stored->objects);
  context.start_.set_spec_json(R"({"name": "bugs-live", "model": "bugs@2"})");
  context.start_.set_model_manifest(stored->digest);
  context.start_.set_replica_token("secret");
  context.start_.set_replica_bind("127.0.0.1");
  context.start_.set_deployment("bugs-live");
  Status status;
  std::thread task([&] { status = RunInfer(context); });
  const Deadline deadline = Deadline::In(seconds(10));
  while (context.port_ == 0 && !deadline.Expired()) std::this_thread::sleep_for(milliseconds(1));
  http::Url url;
  url.host = "127.0.0.1";
  url.port = static_cast<uint16_t>(context.port_.load());
  http::Client client(url, {.bearer_token = "secret"});
  Request request;
  request.method = "POST";
  request.target = kPredict;
  request.body = R"({"rows": [{"width": 3, "height": 10, "depth": 27}]})";
  auto response = client.Call(request, Deadline::In(seconds(5)));
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  EXPECT_EQ(response->status, 200) << response->body;
  context.stop_ = true;
  task.join();
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  EXPECT_FALSE(client.Call(request, Deadline::In(seconds(5))).ok());
}

TEST(InferTask, NamesWhatIsMissing) {
  const auto stored = MakeTestModel("cross_entropy");
  FakeContext context(*stored->objects);
  context.start_.set_spec_json(R"({"name": "bugs-live", "model": "bugs@2"})");
  context.start_.set_model_manifest(stored->digest);
  EXPECT_THAT(RunInfer(context).message(), HasSubstr("replica_token"));
  context.start_.set_replica_token("secret");
  context.start_.set_model_manifest(std::string(64, 'a'));
  EXPECT_EQ(RunInfer(context).code(), StatusCode::kNotFound);
  context.start_.set_spec_json("{");
  EXPECT_EQ(RunInfer(context).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lepton::worker
