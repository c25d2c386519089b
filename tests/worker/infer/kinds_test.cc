// Replicas of models of texts and of pictures: what they take, and what they refuse.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/http/client.h"
#include "tests/storage/pictures.h"
#include "tests/worker/train/fake_task.h"
#include "worker/infer/infer_task.h"
#include "worker/infer/replica_server.h"
#include "worker/infer/text_input.h"
#include "worker/train/train_task.h"

namespace lepton::worker {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using ::testing::HasSubstr;

// Its tokenizer knows more than it has rows for: the other requests of a batch are not to fail.
TEST(EncodeTexts, ATokenThatTheModelHasNoRowForIsItsOwnRequestsFault) {
  const TempFolder folder;
  const auto objects = storage::ObjectStore::Open(folder.path()).value();
  const auto encoder = TextEncoder::Load(*objects, "bytes").value();
  storage::ModelManifest manifest;
  manifest.input = {.kind = "tokens", .vocabulary = 100, .context = 8};
  const ServedModel model{.manifest = &manifest, .encoder = encoder.get()};
  ModelRows rows;
  EXPECT_TRUE(EncodeTexts(model, {"ABC", "c"}, nullptr, &rows).ok());
  const Status status = EncodeTexts(model, {"ABC", "AxC"}, nullptr, &rows);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("row 1: token 120 is none of the model's 100"));
}

std::string ToBase64(const std::string& bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) {
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0);
    }
    for (size_t k = 0; k < 4; ++k) {
      out += i + k > bytes.size() ? '=' : kDigits[bits >> (18 - 6 * k) & 63];
    }
  }
  return out;
}

class KindsTest : public testing::TaskTest {
 protected:
  void Train(const storage::Digest& dataset, const std::string& yaml,
             const std::string& tokenizer = "") {
    start_.set_dataset_manifest(dataset);
    start_.set_tokenizer(tokenizer);
    const auto ranks = RunGang(RunTrain, Spec(yaml), start_);
    ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
    start_.set_model_manifest(ranks[0].task->result.model_manifest());
  }
  void Serve() {
    auto model = LoadedModel::Load(*objects_, start_.model_manifest());
    ASSERT_TRUE(model.ok()) << model.status().ToString();
    ReplicaOptions options;
    options.token = "secret";
    options.deployment = options.model_name = "m";
    options.model_version = "1";
    replica_ = ReplicaServer::Start(options, std::move(*model)).value();
    http::Url url;
    url.host = "127.0.0.1";
    url.port = replica_->port();
    client_ = std::make_unique<http::Client>(url, http::ClientOptions{.bearer_token = "secret"});
  }
  Json Call(const std::string& method, const std::string& target, const std::string& body,
            int status = 200, http::Headers headers = {}) {
    http::Request request;
    request.method = method;
    request.target = target;
    request.body = body;
    request.headers = std::move(headers);
    const auto response = client_->Call(request, Deadline::In(std::chrono::seconds(10)));
    EXPECT_TRUE(response.ok()) << response.status().ToString();
    EXPECT_EQ(response->status, status) << response->body;
    return Json::parse(response->body, nullptr, false);
  }
  Json Infer(const Json& body, int status = 200) {
    return Call("POST", "/v2/models/m/infer", body.dump(), status);
  }
  Json Predict(const Json& rows, int status = 200) {
    return Call("POST", "/v1/deployments/m:predict", Json{{"rows", rows}}.dump(), status);
  }
  static Json Output(const Json& answer, const std::string& name) {
    for (const Json& output : answer["outputs"]) {
      if (output["name"] == name) return output["data"];
    }
    return nullptr;
  }
  // "good ..." is pos, "bad ..." is neg.
  storage::Digest Reviews() {
    std::string csv = "body,target\n";
    for (int i = 0; i < 80; ++i) {
      csv +=
          (i % 2 ? "good film " : "bad movie ") + std::to_string(i) + (i % 2 ? ",pos\n" : ",neg\n");
    }
    return Import(csv);
  }
  storage::Digest Pets() {
    for (int i = 0; i < 40; ++i) {
      const std::vector<uint8_t> pixels(3 * 8 * 8, static_cast<uint8_t>(i % 2 ? 200 + i : 40 + i));
      const fs::path path =
          folder_.path() / "pets" / (i % 2 ? "day" : "night") / (std::to_string(i) + ".png");
      fs::create_directories(path.parent_path());
      std::ofstream(path, std::ios::binary) << pictures::PngOf(8, 8, pixels);
    }
    const fs::path root = folder_.path() / "pets";
    return storage::ImportFolder(*objects_, UniqueFd(::open(root.c_str(), O_RDONLY | O_DIRECTORY)),
                                 {})
        .value()
        .digest;
  }

  wire::StartTask start_;
  std::unique_ptr<ReplicaServer> replica_;
  std::unique_ptr<http::Client> client_;
};

constexpr char kTextJob[] =
    "{kind: train, batch_size: 16, epochs: 30, dataset: {name: data, text: body, context: 32}, "
    "model: {arch: transformer, style: bert, layers: 1, heads: 2, width: 16, pool: mean}, "
    "optimizer: {lr: 0.01}}";

TEST_F(KindsTest, ATextModelTakesTextsInEveryProtocol) {
  Train(Reviews(), kTextJob, "bytes");
  Serve();
  const Json metadata = Call("GET", "/v2/models/m", "");
  EXPECT_EQ(metadata["inputs"], Json({{{"name", "text"}, {"datatype", "BYTES"}, {"shape", {-1}}}}));
  const Json input = {{"name", "text"},
                      {"datatype", "BYTES"},
                      {"shape", {2}},
                      {"data", {"good film 7", "bad movie 8"}}};
  const Json answer = Infer({{"inputs", {input}}});
  EXPECT_EQ(Output(answer, "label"), Json({"pos", "neg"}));
  const Json rows = Predict({{{"body", "bad movie 8"}}, {{"body", ""}}});
  EXPECT_EQ(rows["predictions"][0]["label"], "neg");

  // The same in bytes: each text behind its length.
  const std::string texts =
      std::string("\x0b\0\0\0", 4) + "good film 7" + std::string("\x0b\0\0\0", 4) + "bad movie 8";
  Json header = {{"inputs", {input}}};
  header["inputs"][0].erase("data");
  header["inputs"][0]["parameters"] = {{"binary_data_size", texts.size()}};
  const std::string json = header.dump();
  const Json binary = Call("POST", "/v2/models/m/infer", json + texts, 200,
                           {{"Inference-Header-Content-Length", std::to_string(json.size())}});
  EXPECT_EQ(binary["outputs"], answer["outputs"]);
}

TEST_F(KindsTest, WhatATextModelCannotTakeIsNamed) {
  Train(Reviews(), kTextJob, "bytes");
  Serve();
  const auto error = [&](Json input) {
    return Infer({{"inputs", {std::move(input)}}}, 400)["error"].get<std::string>();
  };
  Json input = {{"name", "text"}, {"datatype", "BYTES"}, {"shape", {1}}, {"data", {"x"}}};
  Json bad = input;
  bad["name"] = "x";
  EXPECT_THAT(error(bad), HasSubstr("\"x\" is no input of this model; it has \"text\""));
  bad = input;
  bad["datatype"] = "FP32";
  EXPECT_THAT(error(bad), HasSubstr("inputs[0].datatype: \"FP32\"; it must be BYTES"));
  bad = input;
  bad["data"] = {1};
  EXPECT_THAT(error(bad), HasSubstr("inputs[0].data[0]: must be a string"));
  bad = input;
  bad["shape"] = {2};
  EXPECT_THAT(error(bad), HasSubstr("1 elements, but the shape has 2"));
  EXPECT_THAT(Infer({{"inputs", {input, input}}}, 400)["error"].get<std::string>(),
              HasSubstr("inputs: must be an array of one tensor, \"text\""));
  EXPECT_THAT(Predict({{{"text", "a"}}}, 400)["detail"].get<std::string>(),
              HasSubstr("no column \"text\""));
  EXPECT_THAT(Predict({{{"body", 3}}}, 400)["detail"].get<std::string>(),
              HasSubstr("rows[0].body: must be a text"));
}

TEST_F(KindsTest, APictureModelTakesPixelsAndFiles) {
  Train(Pets(),
        "{kind: train, batch_size: 16, epochs: 10, dataset: {name: data}, model: {arch: resnet18, "
        "stem: small, stem_width: 4, widths: [4], depths: [1]}, optimizer: {lr: 0.01}}");
  Serve();
  const Json metadata = Call("GET", "/v2/models/m", "");
  EXPECT_EQ(metadata["inputs"][0]["name"], "pixels");
  EXPECT_EQ(metadata["inputs"][0]["shape"], Json({-1, 3, 8, 8}));
  std::vector<float> pixels(2 * 3 * 64, 220 / 255.0f);
  std::fill(pixels.begin() + 192, pixels.end(), 50 / 255.0f);
  const Json answer = Infer(
      {{"inputs",
        {{{"name", "pixels"}, {"datatype", "FP32"}, {"shape", {2, 3, 8, 8}}, {"data", pixels}}}}});
  EXPECT_EQ(Output(answer, "label"), Json({"day", "night"}));
  const std::vector<uint8_t> bright(3 * 20 * 10, 220);
  const Json rows = Predict({{{"image", ToBase64(pictures::PngOf(20, 10, bright))}}});
  EXPECT_EQ(rows["predictions"][0]["label"], "day");
  EXPECT_THAT(Predict({{{"image", "@@"}}}, 400)["detail"].get<std::string>(),
              HasSubstr("rows[0].image: not base64"));
  EXPECT_THAT(Predict({{{"image", ToBase64("hello")}}}, 400)["detail"].get<std::string>(),
              HasSubstr("rows[0].image: neither a PNG nor a JPEG"));
  EXPECT_THAT(
      Infer(
          {{"inputs",
            {{{"name", "pixels"}, {"datatype", "FP32"}, {"shape", {1, 3, 4, 8}}, {"data", {1}}}}}},
          400)["error"]
          .get<std::string>(),
      HasSubstr("it must be [rows, 3, 8, 8]"));
}

TEST_F(KindsTest, ALanguageModelIsNotServedAndSaysSo) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "abcdefgh";
  storage::ImportOptions options{.format = "text"};
  const auto stream =
      storage::ImportFile(*objects_, storage::ByteSource::FromMemory(text), options).value();
  Train(stream.digest,
        "{kind: train, loss: next_token, steps: 2, dataset: {name: data, context: 16}, model: "
        "{arch: transformer, layers: 1, heads: 1, width: 8}}",
        "bytes");
  start_.set_replica_token("secret");
  start_.set_spec_json(R"({"name": "m", "model": "m@1"})");
  const auto ranks = RunGang(RunInfer, spec::JobSpec(), start_);
  EXPECT_EQ(ranks[0].status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(ranks[0].status.message(), HasSubstr("is a language model"));
}

}  // namespace
}  // namespace lepton::worker
