// Every kernel, and of the general ones every type and function, gives the same bits for any number
// of threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "runtime/base/hash.h"
#include "runtime/kernels/general/general_kernels.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "tests/runtime/engine/absent_kernels.h"
#include "tests/runtime/engine/general_cases.h"
#include "tests/runtime/engine/op_cases.h"
#include "tests/runtime/engine/thread_counts.h"

namespace lepton::engine_test {
namespace {

std::string NameOf(const graph::KernelEntry& entry) {
  std::ostringstream name;
  name << entry.op << " " << DTypeName(entry.dtype) << " " << entry.implementation;
  return name.str();
}

// References run on the caller's thread alone.
std::vector<graph::KernelEntry> ThreadedKernels() {
  std::vector<graph::KernelEntry> entries;
  for (const graph::KernelEntry& entry : kernels::CpuKernels().entries()) {
    if (entry.implementation != "reference") entries.push_back(entry);
  }
  return entries;
}

// Of a kernel's outputs for all cases that it takes.
class Digest {
 public:
  void Add(const graph::KernelEntry& entry, OpCase& op_case) {
    if (!CanRun(entry, op_case)) return;
    auto outputs = RunKernel(entry, op_case, {1, 2, 3});
    for (HostTensor& output : outputs) {
      const std::string_view bytes(output.data.as<char>(), output.data.size());
      hashes_ += std::to_string(std::hash<std::string_view>()(bytes)) + " ";
    }
    ++count_;
  }
  // The number of cases, and what they gave.
  std::string text() const { return std::to_string(count_) + " " + Sha256Hex(hashes_); }

 private:
  std::string hashes_;
  int count_ = 0;
};

// One line per kernel, on sizes with work for several threads: name, number of cases, digest.
std::string Digests() {
  std::ostringstream lines;
  for (const graph::KernelEntry& entry : ThreadedKernels()) {
    Digest digest;
    for (const auto& [rows, n] : {std::pair{150, 270}, {7, 5000}}) {
      for (OpCase& op_case : CasesFor(entry.op, entry.dtype, rows, n)) digest.Add(entry, op_case);
    }
    lines << NameOf(entry) << ": " << digest.text() << "\n";
  }
  for (const graph::KernelEntry& entry : kernels::general::GeneralKernels()) {
    Digest digest;
    // Loops do not depend on the type but for its size, and whether it is floating.
    const bool small = entry.dtype == DType::kBF16 || entry.dtype == DType::kI16 ||
                       entry.dtype == DType::kU16 || entry.dtype == DType::kU32 ||
                       entry.dtype == DType::kI8 || entry.dtype == DType::kU64;
    for (OpCase& op_case : GeneralCasesFor(entry.op, entry.dtype, small ? 15 : 150, 440)) {
      digest.Add(entry, op_case);
    }
    lines << "general " << NameOf(entry) << ": " << digest.text() << "\n";
  }
  return lines.str();
}

TEST(KernelThreadsChild, WritesItsDigests) {
  WriteForParent(Digests);
}

// By kernel.
std::map<std::string, std::string> ByName(const std::string& lines) {
  std::map<std::string, std::string> digests;
  std::istringstream stream(lines);
  for (std::string line; std::getline(stream, line);) {
    digests[line.substr(0, line.find(": "))] = line.substr(line.find(": ") + 2);
  }
  return digests;
}

TEST(KernelThreads, AnyNumberGivesTheSameBits) {
  const auto lines = WithThreads("KernelThreadsChild.WritesItsDigests", {1, 2, 3, 5});
  auto one = ByName(lines[0]);
  for (size_t i = 1; i < lines.size(); ++i) {
    for (const auto& [name, digest] : ByName(lines[i])) EXPECT_EQ(digest, one[name]) << name;
    EXPECT_EQ(lines[i].size(), lines[0].size());
  }
  const auto runs = [&](const std::string& name) {
    return one.contains(name) && !one[name].starts_with("0 ");
  };
  for (const graph::KernelEntry& entry : ThreadedKernels()) {
    if (ReasonToSkip(entry).empty()) {
      EXPECT_TRUE(runs(NameOf(entry))) << "no case for " << NameOf(entry);
    }
  }
  for (const graph::KernelEntry& entry : kernels::general::GeneralKernels()) {
    const bool has_type = !GeneralCasesFor(entry.op, entry.dtype, 1, 1).empty();
    EXPECT_EQ(runs("general " + NameOf(entry)), has_type) << NameOf(entry);
    EXPECT_FALSE(GeneralCasesFor(entry.op, DType::kI64, 1, 1).empty()) << entry.op;
  }
}

}  // namespace
}  // namespace lepton::engine_test
