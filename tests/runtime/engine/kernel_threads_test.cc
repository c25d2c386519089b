// Every kernel gives the same bits for any number of threads. The compute pool has one size per
// process, so each size runs in a child: this same program, with the child test selected.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "runtime/base/hash.h"
#include "runtime/base/thread_pool.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::engine_test {
namespace {

constexpr char kThreads[] = "LEPTON_TEST_COMPUTE_THREADS";
constexpr char kDigestFile[] = "LEPTON_TEST_DIGEST_FILE";

// One line per kernel: its name and a digest of its outputs, on sizes with work for several
// threads.
std::string Digests() {
  std::ostringstream lines;
  for (const graph::KernelEntry& entry : kernels::CpuKernels().entries()) {
    if (entry.implementation == "reference" || entry.dtype == DType::kI32) continue;
    std::string bytes;
    for (const auto& [rows, n] : {std::pair{150, 270}, {7, 5000}}) {
      for (OpCase& op_case : CasesFor(entry.op, entry.dtype, rows, n)) {
        if (!CanRun(entry, op_case)) continue;
        for (const HostTensor& output : RunKernel(entry, op_case, {1, 2, 3})) {
          bytes.append(static_cast<const char*>(output.data.data()), output.data.size());
        }
      }
    }
    lines << entry.op << " " << DTypeName(entry.dtype) << " " << entry.implementation << " "
          << Sha256Hex(bytes) << "\n";
  }
  return lines.str();
}

TEST(KernelThreadsChild, WritesItsDigests) {
  const char* threads = std::getenv(kThreads);
  if (threads == nullptr) GTEST_SKIP() << "runs as a child of the next test";
  ThreadPool::SetComputeThreads(std::atoi(threads));
  std::ofstream(std::getenv(kDigestFile)) << Digests();
}

TEST(KernelThreads, AnyNumberGivesTheSameBits) {
  const std::string file = testing::TempDir() + "/kernel_digests." + std::to_string(::getpid());
  std::vector<std::string> digests;
  for (const char* threads : {"1", "2", "5"}) {
    ::setenv(kThreads, threads, 1);
    ::setenv(kDigestFile, file.c_str(), 1);
    const std::string self = std::filesystem::read_symlink("/proc/self/exe");
    const std::string command = self + " --gtest_filter=KernelThreadsChild.* >/dev/null";
    ASSERT_EQ(std::system(command.c_str()), 0);
    std::stringstream text;
    text << std::ifstream(file).rdbuf();
    digests.push_back(text.str());
    std::filesystem::remove(file);
  }
  ::unsetenv(kThreads);
  EXPECT_THAT(digests[0], testing::HasSubstr("attention_grad f32 threaded"));
  EXPECT_EQ(digests[0], digests[1]);
  EXPECT_EQ(digests[0], digests[2]);
}

}  // namespace
}  // namespace lepton::engine_test
