#include "cli/run_state.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <vector>

#include "cli/output.h"
#include "runtime/base/file.h"

namespace lepton::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kLock = "LOCK";
constexpr std::string_view kEarlier = "earlier";  // what a run set aside that may not begin yet
constexpr std::string_view kDropped = "dropped";  // the same, which nobody wants any more
// All that a coordinator without an address of its own makes in its data folder, and those.
constexpr std::array<std::string_view, 9> kParts = {
    kLock, "server.key", "pool.key", "metadata", "objects", "tmp", "corrupt", kEarlier, kDropped};

// One of them, or what a death left of its making.
bool IsPart(const std::string& name) {
  return std::any_of(kParts.begin(), kParts.end(), [&](std::string_view part) {
    return name == part || name.starts_with(std::string(part) + ".tmp.");
  });
}

// Whether all of it is a run's: a coordinator begins its folder with the lock.
Status CheckIsRun(const fs::path& state) {
  std::error_code error;
  bool locked = false;
  for (fs::directory_iterator it(state, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    locked = locked || name == kLock;
    if (!IsPart(name)) {
      return FailedPrecondition(it->path().string() +
                                ": no run made this, so nothing in the folder is touched; give the "
                                "run another folder with --out");
    }
  }
  if (error) return FailedPrecondition(state.string() + ": " + error.message());
  if (locked || fs::is_empty(state, error)) return Status::Ok();
  return FailedPrecondition(state.string() + ": no run made this; give another folder with --out");
}

Status Failed(const fs::path& path, const std::error_code& error) {
  return Unavailable(path.string() + ": " + error.message());
}

// A run's parts but for the lock, which is held, and what was set aside.
Result<std::vector<fs::path>> Parts(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> parts;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const bool aside = name == kEarlier || name == kDropped;
    if (IsPart(name) && name != kLock && !aside) parts.push_back(it->path());
  }
  if (error) return Failed(folder, error);
  return parts;
}

// Each part in one step, in place of what has its name there: done again after a death half-way,
// it ends the same.
Status MoveParts(const fs::path& from, const fs::path& to) {
  LEPTON_ASSIGN_OR_RETURN(const std::vector<fs::path> parts, Parts(from));
  std::error_code error;
  for (const fs::path& part : parts) {
    fs::remove_all(to / part.filename(), error);
    if (!error) fs::rename(part, to / part.filename(), error);
    if (error) return Failed(part, error);
  }
  return Status::Ok();
}

// The lock is held.
Status BringBack(const fs::path& state) {
  std::error_code error;
  fs::remove_all(state / kDropped, error);
  if (error) return Failed(state / kDropped, error);
  if (!fs::exists(state / kEarlier, error)) return Status::Ok();
  LEPTON_RETURN_IF_ERROR(MoveParts(state / kEarlier, state));
  fs::remove_all(state / kEarlier, error);
  return error ? Failed(state / kEarlier, error) : Status::Ok();
}

Status SetAside(const fs::path& state) {
  LEPTON_RETURN_IF_ERROR(MakeFolders(state / kEarlier, 0700));
  return MoveParts(state, state / kEarlier);
}

bool IsGang(spec::JobKind kind) {
  return kind == spec::JobKind::kTrain || kind == spec::JobKind::kDistill ||
         kind == spec::JobKind::kBatch;
}

bool SaysResource(const json& document, const char* field) {
  const auto resources = document.find("resources");
  return resources != document.end() && (!resources->is_object() || resources->contains(field));
}

// The slots that every worker has.
int CommonSlots(const json& workers) {
  int slots = std::numeric_limits<int>::max();
  for (const json& worker : workers) slots = std::min(slots, worker.value("slots", 1));
  return workers.empty() ? 1 : std::max(1, slots);
}

// "epochs: 20 now, 10 before" of the first difference; empty if there is none.
std::string Difference(const json& now, const json& before, const std::string& path) {
  if (!now.is_object() || !before.is_object()) {
    return now == before ? "" : path + ": " + now.dump() + " now, " + before.dump() + " before";
  }
  const std::string prefix = path.empty() ? "" : path + ".";
  const auto member = [](const json& object, const std::string& key) {
    const auto it = object.find(key);
    return it == object.end() ? json() : *it;
  };
  for (const auto& [key, value] : now.items()) {
    std::string found = Difference(value, member(before, key), prefix + key);
    if (!found.empty()) return found;
  }
  for (const auto& [key, value] : before.items()) {
    if (!now.contains(key)) return Difference(json(), value, prefix + key);
  }
  return "";
}

}  // namespace

Status DropEarlier(const fs::path& state) {
  std::error_code error;
  if (!fs::exists(state / kEarlier, error)) return Status::Ok();
  // In one step: half of it would be brought back after a death.
  fs::rename(state / kEarlier, state / kDropped, error);
  if (error) return Failed(state / kEarlier, error);
  fs::remove_all(state / kDropped, error);  // what is left goes with the next run's beginning
  return Status::Ok();
}

Status BringBackEarlier(const fs::path& state) {
  std::error_code ignored;
  if (!fs::exists(state / kEarlier, ignored)) return Status::Ok();
  LEPTON_ASSIGN_OR_RETURN(const FileLock lock, FileLock::Acquire(state / kLock));
  return BringBack(state);
}

Status PrepareState(const fs::path& state, Resume resume) {
  std::error_code ignored;
  const bool is_run =
      fs::exists(state / "metadata", ignored) || fs::exists(state / kEarlier / "metadata", ignored);
  if (resume == Resume::kMust && !is_run) {
    return NotFound("--resume: there is no run in " + state.parent_path().string() +
                    " to go on with; name its folder with --out, or leave --resume out to begin");
  }
  if (!fs::exists(state, ignored)) return Status::Ok();
  const bool goes_on = is_run && resume != Resume::kNo;
  if (!goes_on) LEPTON_RETURN_IF_ERROR(CheckIsRun(state));
  const auto lock = FileLock::Acquire(state / kLock);
  if (!lock.ok()) {
    if (lock.status().code() != StatusCode::kFailedPrecondition) return lock.status();
    return lock.status().WithContext("another run uses " + state.parent_path().string() +
                                     "; give this one a folder of its own with --out");
  }
  LEPTON_RETURN_IF_ERROR(BringBack(state));
  return resume == Resume::kNo ? SetAside(state) : Status::Ok();
}

json WithWorkers(const SpecFile& file, const json& workers) {
  json document = file.document;
  if (!IsGang(file.spec.kind)) return document;
  const bool says_workers = SaysResource(document, "max_workers");
  const bool says_slots = SaysResource(document, "slots_per_worker");
  if (!says_workers) document["resources"]["max_workers"] = static_cast<int>(workers.size());
  // A rank has a worker for itself, unless the spec wants more ranks than there are.
  const size_t ranks =
      says_workers ? static_cast<size_t>(file.spec.resources.max_workers) : workers.size();
  if (ranks <= workers.size() && !says_slots) {
    document["resources"]["slots_per_worker"] = CommonSlots(workers);
  }
  return document;
}

Status CheckSameSpec(const SpecFile& file, const json& job) {
  const json stored = job.value("spec", json::object());
  json document = file.document;
  const json chosen = stored.value("resources", json::object());
  for (const char* field : {"max_workers", "slots_per_worker"}) {
    if (IsGang(file.spec.kind) && !SaysResource(document, field) && chosen.contains(field)) {
      document["resources"][field] = chosen[field];
    }
  }
  // Through the parser both, so that an older version's fields have their defaults.
  const auto now = spec::JobSpecFromJson(document);
  const auto before = spec::JobSpecFromJson(stored);
  if (!before.ok()) return before.status().WithContext("the spec of the run to go on with");
  std::string difference = now.ok() ? "" : now.status().message();
  if (now.ok()) {
    difference = Difference(spec::JobSpecToJson(*now), spec::JobSpecToJson(*before), "");
  }
  if (difference.empty()) return Status::Ok();
  return FailedPrecondition("--resume: the run began with another spec (" + difference +
                            "); leave --resume out to begin anew, or give another --out");
}

std::string ShellWord(const std::string& word) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("_-./,:=@%+").find(c) != std::string_view::npos;
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace lepton::cli
