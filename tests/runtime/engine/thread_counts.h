// What a test's code gives with several sizes of the compute pool, which has one per process: each
// size runs in a child, this same program with a test selected that does the work.
// Threads: one caller.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/base/thread_pool.h"

namespace lepton {

inline constexpr char kThreadsVariable[] = "LEPTON_TEST_COMPUTE_THREADS";
inline constexpr char kTextVariable[] = "LEPTON_TEST_TEXT_FILE";

// The child's test: writes text() for its parent. Elsewhere it is skipped.
template <typename Text>
void WriteForParent(const Text& text) {
  const char* threads = std::getenv(kThreadsVariable);
  if (threads == nullptr) GTEST_SKIP() << "runs as a child of another test";
  ThreadPool::SetComputeThreads(std::atoi(threads));
  std::ofstream(std::getenv(kTextVariable)) << text();
}

// What the test `child` ("Suite.Name") wrote with each number of threads.
inline std::vector<std::string> WithThreads(const std::string& child,
                                            std::initializer_list<int> counts) {
  const std::string file = testing::TempDir() + "/with_threads." + std::to_string(::getpid());
  std::vector<std::string> texts;
  for (const int count : counts) {
    ::setenv(kThreadsVariable, std::to_string(count).c_str(), 1);
    ::setenv(kTextVariable, file.c_str(), 1);
    const std::string self = std::filesystem::read_symlink("/proc/self/exe");
    const std::string command = self + " --gtest_filter=" + child + " >" + file + ".log 2>&1";
    std::stringstream text, log;
    if (std::system(command.c_str()) != 0) {
      log << std::ifstream(file + ".log").rdbuf();
      ADD_FAILURE() << child << " with " << count << " threads: " << log.str();
    }
    text << std::ifstream(file).rdbuf();
    texts.push_back(text.str());
    std::filesystem::remove(file);
    std::filesystem::remove(file + ".log");
  }
  ::unsetenv(kThreadsVariable);
  ::unsetenv(kTextVariable);
  return texts;
}

}  // namespace lepton
