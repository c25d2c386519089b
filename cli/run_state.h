// What a run without a server leaves in <its folder>/state to go on from after a stop or a kill: a
// coordinator's data folder, which belongs to one run at a time.
// Threads: any.
#pragma once

#include <filesystem>
#include <string>

#include "cli/spec_file.h"
#include "runtime/base/json.h"
#include "runtime/base/status.h"

namespace lepton::cli {

enum class Resume {
  kNo,     // begin anew, also where there is a run already
  kMust,   // go on; there must be a run
  kIfAny,  // go on, or begin where there is none: for batch jobs that are started again
};

// Before the coordinator opens `state`. With kNo what an earlier run left there is set aside in
// `state`/earlier, until the new one's job is accepted (DropEarlier) or not (BringBackEarlier);
// what a run that died before either set aside is brought back first. kFailedPrecondition: another
// run uses it, or it holds what no run made, of which nothing is touched. kNotFound: kMust, and
// there is no run.
Status PrepareState(const std::filesystem::path& state, Resume resume);

// While the caller's coordinator has `state` open.
Status DropEarlier(const std::filesystem::path& state);
// When it is closed. What lies there instead is deleted, if anything was set aside.
Status BringBackEarlier(const std::filesystem::path& state);

// The spec with as many workers as there are, and all slots that each has, unless it says.
nlohmann::json WithWorkers(const SpecFile& file, const nlohmann::json& workers);

// Whether `file` still asks for what the run of `job`, the API's view of it, began with; the
// workers that WithWorkers chose then count as asked for. kFailedPrecondition names the first field
// that differs.
Status CheckSameSpec(const SpecFile& file, const nlohmann::json& job);

// A word as a shell takes it for one: in quotes if need be.
std::string ShellWord(const std::string& word);

}  // namespace lepton::cli
