#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "cli/api_client.h"
#include "cli/launch.h"
#include "cli/output.h"
#include "collectives/communicator.h"
#include "collectives/tune.h"
#include "runtime/base/file.h"
#include "runtime/kernels/cpu/bf16_sums.h"
#include "runtime/kernels/cpu/cpu_isa.h"
#include "runtime/kernels/cuda/cuda_device.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

bool CpuHas(const std::string& flag) {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("flags", 0) == 0)
      return (line + " ").find(" " + flag + " ") != std::string::npos;
  }
  return false;
}

json Check(const std::string& name, const std::string& state, const std::string& detail) {
  return {{"check", name}, {"state", state}, {"detail", detail}};
}

json CheckCpu() {
  std::string features;
  for (const char* flag : {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8"}) {
    if (CpuHas(flag)) features += (features.empty() ? "" : " ") + std::string(flag);
  }
  std::string detail = std::to_string(std::thread::hardware_concurrency()) + " cores, " +
                       (features.empty() ? "no AVX2: kernels run scalar" : features) +
                       "; bf16 sums by " +
                       std::string(kernels::Bf16SumsName(kernels::NativeBf16Sums()));
  const char* limit = std::getenv(kernels::kCpuIsaVariable);
  if (limit != nullptr) {
    detail += "; kernels use no more than " + std::string(kernels::kCpuIsaVariable) + "=" + limit;
  }
  const Status named = kernels::CheckCpuIsa();
  if (!named.ok()) return Check("cpu", "warn", named.message());
  return Check("cpu", CpuHas("avx2") && limit == nullptr ? "ok" : "warn", detail);
}

json Examine(const Globals& globals) {
  json checks = json::array();
  checks.push_back(CheckCpu());
  struct sysinfo memory {};
  ::sysinfo(&memory);
  const double total = static_cast<double>(memory.totalram) * memory.mem_unit;
  checks.push_back(Check("memory", total > 1e9 ? "ok" : "warn", Bytes(total)));
  struct statvfs disk {};
  if (::statvfs(".", &disk) == 0) {
    const double free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
    checks.push_back(Check("disk", free > 1e9 ? "ok" : "warn", Bytes(free) + " free here"));
  }
  if (::statvfs("/dev/shm", &disk) == 0) {
    const double free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
    checks.push_back(Check("shared memory", free > 64e6 ? "ok" : "warn", Bytes(free)));
  }
  const auto gpus = kernels::cuda::ListCudaDevices();
  if (!gpus.ok()) checks.push_back(Check("gpu", "off", gpus.status().message()));
  for (size_t i = 0; gpus.ok() && i < gpus->size(); ++i) {
    const kernels::cuda::CudaDeviceInfo& gpu = (*gpus)[i];
    const bool new_enough = gpu.compute_major >= 8;
    checks.push_back(Check("gpu " + std::to_string(i), new_enough ? "ok" : "off",
                           gpu.name + ", " + Bytes(static_cast<double>(gpu.memory_bytes)) +
                               ", compute capability " + std::to_string(gpu.compute_major) + "." +
                               std::to_string(gpu.compute_minor) +
                               (new_enough ? "" : ": 8.0 or later is needed")));
  }
  for (const collectives::Backend* backend : collectives::Backends()) {
    const Status available = backend->Available();
    checks.push_back(Check("collectives " + std::string(backend->name()),
                           available.ok() ? "ok" : "off",
                           available.ok() ? "available" : available.message()));
  }
  const Launch launch = DetectLaunch();
  checks.push_back(Check("launcher", "ok",
                         launch.info.name + ", rank " + std::to_string(launch.info.rank) + " of " +
                             std::to_string(launch.info.size)));
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) {
    checks.push_back(Check("coordinator", "warn", client.status().message()));
  } else {
    const Result<json> cluster = (*client)->Get("/v1/cluster", std::chrono::seconds(3));
    checks.push_back(Check("coordinator", cluster.ok() ? "ok" : "off",
                           cluster.ok()
                               ? (*client)->url() + ", " + Text(*cluster, "slots.total") + " slots"
                               : cluster.status().message()));
  }
  return checks;
}

}  // namespace

namespace {

// Prints what it measures, and keeps the table for later groups on this machine.
int TuneCollectives(const std::string& path) {
  if (path.empty()) {
    std::fputs("lepton: no home folder to keep the table in: name one with --table\n", stderr);
    return kExitFailed;
  }
  collectives::TuneOptions options;
  options.progress = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  const auto table = collectives::Tune(options);
  Status status = table.status();
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (status.ok()) status = WriteFileAtomic(path, table->ToText());
  if (!status.ok()) {
    std::fprintf(stderr, "lepton: --tune-collectives: %s\n", status.ToString().c_str());
    return kExitFailed;
  }
  std::fputs(table->ToText().c_str(), stdout);
  std::fprintf(stderr, "kept in %s\n", path.c_str());
  return kExitOk;
}

struct DoctorFlags {
  bool tune = false;
  std::string table = collectives::TuningTable::DefaultPath();
};

}  // namespace

void AddDoctor(CLI::App& app, Globals& globals) {
  auto flags = std::make_shared<DoctorFlags>();
  CLI::App* doctor = AddAction(
      app, globals, "doctor", "Look at this machine and at the coordinator", [&globals, flags] {
        if (flags->tune) return TuneCollectives(flags->table);
        const json checks = Examine(globals);
        if (globals.output != "table") {
          std::fputs(Document(checks, globals.output).c_str(), stdout);
          return kExitOk;
        }
        Table table({"CHECK", "STATE", "DETAIL"});
        for (const json& check : checks) {
          table.Row({Text(check, "check"), Text(check, "state"), Text(check, "detail")});
        }
        std::fputs(table.ToString().c_str(), stdout);
        return kExitOk;
      });
  doctor->add_flag("--tune-collectives", flags->tune,
                   "Measure every all-reduce of 2 and 4 ranks on this machine (a minute, best when "
                   "it is idle) and keep a table of the fastest, which later groups use");
  doctor->add_option("--table", flags->table,
                     "Where to keep it; LEPTON_COLLECTIVES_TABLE names one that is elsewhere");
}

}  // namespace lepton::cli
