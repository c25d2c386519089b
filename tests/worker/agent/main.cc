#include <gtest/gtest.h>

#include <string_view>

#include "runtime/base/logging.h"
#include "tests/worker/agent/test_tasks.h"

int main(int argc, char** argv) {
  const std::string_view verb = argc > 1 ? argv[1] : "";
  if (verb == "task") return lepton::worker::RunAsTask(argc, argv);
  if (verb == "agent") return lepton::worker::RunAsAgent(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  lepton::InitLogging({.role = "test", .min_level = 1});
  return RUN_ALL_TESTS();
}
