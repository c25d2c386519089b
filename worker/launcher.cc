// Where a launcher leaves a process's place in its environment: Open MPI 4 and PMIx for mpirun,
// Slurm's job step for srun. Slurm sets its variables for what mpirun starts in an allocation, too,
// so mpirun is looked for first.
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "worker/agent.h"

namespace lepton::worker {
namespace {

std::optional<std::string> Variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

std::optional<uint32_t> Number(const char* name) {
  const std::optional<std::string> text = Variable(name);
  if (!text) return std::nullopt;
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size()) return std::nullopt;
  return value;
}

}  // namespace

LauncherInfo DetectLauncher() {
  LauncherInfo info;
  if (const auto rank = Number("OMPI_COMM_WORLD_RANK")) {
    info.name = "mpirun";
    info.rank = *rank;
    info.size = Number("OMPI_COMM_WORLD_SIZE").value_or(1);
    info.world =
        Variable("PMIX_NAMESPACE").value_or(Variable("OMPI_MCA_ess_base_jobid").value_or(""));
    return info;
  }
  if (const auto rank = Number("SLURM_PROCID"); rank && Variable("SLURM_STEP_ID")) {
    // A batch script is rank 0 of a step of its own, and nobody's sibling.
    const uint32_t size = Number("SLURM_STEP_NUM_TASKS").value_or(1);
    info.name = "srun";
    info.rank = *rank;
    info.size = size;
    info.world = Variable("SLURM_JOB_ID").value_or("") + "." + *Variable("SLURM_STEP_ID");
    return info;
  }
  return info;
}

}  // namespace lepton::worker
