// The OpenAPI 3.1 description of the API, from the route table and the spec's JSON Schema.
// Threads: any.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <vector>

#include "scheduler/api/routes.h"

namespace lepton::api {

nlohmann::json MakeOpenApi(const std::vector<ApiRoute>& routes);

// The component schemas by name: what the API takes and gives.
nlohmann::json ComponentSchemas();

}  // namespace lepton::api
