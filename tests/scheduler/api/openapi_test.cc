#include "scheduler/api/openapi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "runtime/spec/job_spec.h"
#include "scheduler/api/auth.h"
#include "scheduler/api/views.h"
#include "tests/scheduler/api/test_cluster.h"

namespace lepton::api {
namespace {

using nlohmann::json;

const std::set<std::string> kMethods = {"get", "put", "post", "delete", "patch", "head"};

// Every "$ref" must lead to a component.
void CheckRefs(const json& node, const json& document) {
  if (node.is_object()) {
    if (const auto ref = node.find("$ref"); ref != node.end() && ref->is_string()) {
      const std::string target = ref->get<std::string>();
      ASSERT_TRUE(target.starts_with("#/")) << target;
      EXPECT_TRUE(document.contains(json::json_pointer(target.substr(1)))) << target;
    }
    for (const auto& [name, value] : node.items()) CheckRefs(value, document);
  } else if (node.is_array()) {
    for (const auto& value : node) CheckRefs(value, document);
  }
}

// What OpenAPI 3.1 demands of an operation.
void CheckOperation(const std::string& path, const std::string& method, const json& operation,
                    std::set<std::string>& ids) {
  SCOPED_TRACE(method + " " + path);
  EXPECT_TRUE(kMethods.contains(method));
  EXPECT_FALSE(operation.value("summary", "").empty());
  EXPECT_TRUE(ids.insert(operation.value("operationId", "")).second) << "operationId is not unique";

  std::set<std::string> in_path, declared;
  const std::regex placeholder("\\{([^}]+)\\}");
  for (auto it = std::sregex_iterator(path.begin(), path.end(), placeholder);
       it != std::sregex_iterator(); ++it) {
    in_path.insert((*it)[1]);
  }
  for (const json& parameter : operation.value("parameters", json::array())) {
    EXPECT_TRUE(parameter.contains("schema"));
    const std::string in = parameter.value("in", "");
    EXPECT_THAT(in, testing::AnyOf("path", "query", "header"));
    if (in != "path") continue;
    EXPECT_TRUE(parameter.value("required", false));
    declared.insert(parameter.value("name", ""));
  }
  EXPECT_EQ(in_path, declared);

  ASSERT_TRUE(operation.contains("responses"));
  ASSERT_FALSE(operation["responses"].empty());
  for (const auto& [code, response] : operation["responses"].items()) {
    EXPECT_TRUE(code == "default" || (code.size() == 3 && code[0] == '2')) << code;
    EXPECT_FALSE(response.value("description", "").empty());
  }
  if (operation.contains("requestBody")) {
    EXPECT_FALSE(operation["requestBody"].value("content", json::object()).empty());
  }
}

TEST(OpenApiTest, TheServedDescriptionIsSoundAndComplete) {
  scheduler::TestCluster cluster;
  const auto answer = cluster.Get("/openapi.json");
  ASSERT_EQ(answer.status, 200);
  const json& document = answer.json;
  EXPECT_TRUE(std::regex_match(document.value("openapi", ""), std::regex("3\\.1\\.\\d+")));
  EXPECT_FALSE(document["info"].value("title", "").empty());
  EXPECT_FALSE(document["info"].value("version", "").empty());
  std::set<std::string> ids;
  for (const auto& [path, item] : document["paths"].items()) {
    EXPECT_TRUE(path.starts_with("/"));
    for (const auto& [method, operation] : item.items()) {
      CheckOperation(path, method, operation, ids);
    }
  }
  CheckRefs(document, document);
  for (const ApiRoute& route : Routes()) {
    std::string method(route.method);
    for (char& c : method) c = static_cast<char>(std::tolower(c));
    EXPECT_TRUE(
        document["paths"].value(std::string(route.pattern), json::object()).contains(method))
        << route.method << " " << route.pattern;
  }
  // The gateway's routes are described too.
  EXPECT_TRUE(document["paths"].contains("/v1/deployments/{name}:predict"));
  EXPECT_TRUE(document["paths"].contains("/v2/models/{model}/infer"));
}

TEST(OpenApiTest, EveryAnswerAndEveryBodyThatThereIsIsDescribed) {
  const json paths = MakeOpenApi(Routes())["paths"];
  const json& submit = paths["/v1/jobs"]["post"]["responses"];
  EXPECT_EQ(submit["200"]["content"]["application/json"]["schema"]["$ref"],
            "#/components/schemas/JobOrPlan");
  EXPECT_TRUE(submit.contains("201"));
  for (const char* path :
       {"/v1/deployments", "/v1/models/{name}/versions", "/v1/datasets/{name}"}) {
    EXPECT_TRUE(paths[path]["post"]["responses"].contains("200")) << path;
  }
  for (const char* feed : {"events", "logs", "metrics"}) {
    const json& content =
        paths[std::string("/v1/jobs/{id}/") + feed]["get"]["responses"]["200"]["content"];
    EXPECT_TRUE(content.contains("text/event-stream")) << feed;
    EXPECT_TRUE(content.contains("application/json")) << feed;
  }
  EXPECT_EQ(paths["/v1/datasets/{name}"]["post"]["requestBody"]["required"], false);
  const json& model = paths["/v1/models/{name}/versions"]["post"]["requestBody"];
  EXPECT_EQ(model["required"], true);
  EXPECT_TRUE(model["content"].contains("application/json"));
  EXPECT_TRUE(model["content"].contains("application/octet-stream"));
}

TEST(OpenApiTest, TheJobSchemaIsTheSpecs) {
  const json schemas = ComponentSchemas();
  EXPECT_EQ(schemas["JobSpec"], spec::JobSpecSchema());
  EXPECT_TRUE(schemas["JobSpec"]["properties"].contains("optimizer"));
}

void ExpectFieldsOf(const std::string& schema, const json& view) {
  const json fields = ComponentSchemas()[schema];
  ASSERT_FALSE(fields["required"].empty()) << schema;
  for (const json& name : fields["required"]) {
    EXPECT_TRUE(view.contains(name.get<std::string>())) << schema << " has no " << name;
  }
}

TEST(ViewTest, EveryViewHasTheFieldsThatItsSchemaDemands) {
  const scheduler::State state;
  scheduler::Job job;
  job.mutable_result();
  const json job_view = JobView(state, job, {}, true);
  ExpectFieldsOf("Job", job_view);
  ExpectFieldsOf("JobResult", job_view["result"]);
  ExpectFieldsOf("Event", EventView({}));
  ExpectFieldsOf("Trial", TrialView({}));
  ExpectFieldsOf("Checkpoint", CheckpointView({}));
  ExpectFieldsOf("Worker", WorkerView(state, {}, std::nullopt));
  ExpectFieldsOf("Deployment", DeploymentView(state, {}));
  ExpectFieldsOf("Model", ModelView({}));
  const json version = ModelVersionView({}, {});
  ExpectFieldsOf("ModelVersion", version);
  ExpectFieldsOf("Dataset", DatasetView({}));
  ExpectFieldsOf("DatasetVersion", DatasetVersionView({}, {}));
  ExpectFieldsOf("Cluster", ClusterView(state, 0));
  ExpectFieldsOf("Key", KeyView({}));
}

}  // namespace
}  // namespace lepton::api
