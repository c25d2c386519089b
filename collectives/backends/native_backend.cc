#include "collectives/backends/native_backend.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <map>
#include <mutex>

#include "collectives/backends/mesh_communicator.h"
#include "collectives/backends/native_transports.h"
#include "collectives/transport/lanes.h"
#include "runtime/base/hash.h"
#include "runtime/base/logging.h"

namespace lepton::collectives {
namespace {

// All ranks must choose alike: a table counts when all have it, an algorithm that was named when
// all were told it, and a host without enough cores when there is one.
Status AgreeOnChoices(MeshCommunicator& communicator, bool crowded, const NativeOptions& native) {
  if (communicator.size() == 1) return {};
  struct Facts {
    uint64_t table, crowded, algorithm;
  };
  const Facts mine{native.table == nullptr ? 0 : native.table->digest(), crowded,
                   native.algorithm.empty()
                       ? 0
                       : std::stoull(Sha256Hex(native.algorithm).substr(0, 16), nullptr, 16)};
  std::vector<Facts> all(static_cast<size_t>(communicator.size()));
  LEPTON_RETURN_IF_ERROR(
      communicator.AllGather(&mine, all.data(), sizeof(Facts) / sizeof(uint64_t), DataType::kInt64)
          .WithContext("how to choose algorithms"));
  if (std::any_of(all.begin(), all.end(), [](const Facts& f) { return f.crowded != 0; })) {
    communicator.SetCrowded();
  }
  if (std::all_of(all.begin(), all.end(),
                  [&](const Facts& f) { return f.algorithm == all[0].algorithm; })) {
    communicator.UseAlgorithm(native.algorithm);
  } else {
    LOG(WARNING) << "not used: LEPTON_COLLECTIVES_ALGORITHM is not the same on all ranks, here '"
                 << native.algorithm << "'";
  }
  const bool alike =
      std::all_of(all.begin(), all.end(), [&](const Facts& f) { return f.table == mine.table; });
  if (mine.table != 0 && alike) communicator.UseTable(native.table);
  return {};
}

// 0 where it is left open.
Result<int> LanesInEnvironment() {
  const char* const text = std::getenv("LEPTON_COLLECTIVES_LANES");
  const std::string_view choice = text == nullptr ? "auto" : text;
  if (choice == "auto") return 0;
  int lanes = 0;
  const auto [end, error] = std::from_chars(choice.begin(), choice.end(), lanes);
  if (error == std::errc() && end == choice.end() && lanes >= 1 && lanes <= kMaxLanes) return lanes;
  return InvalidArgument("LEPTON_COLLECTIVES_LANES: '" + std::string(choice) +
                         "' is not auto or a number from 1 to " + std::to_string(kMaxLanes));
}

// Once a process: a bad table in the default place is old, not a reason to stop.
std::shared_ptr<const TuningTable> TableInDefaultPlace(const std::string& path) {
  static std::mutex mutex;
  static auto* known = new std::map<std::string, std::shared_ptr<const TuningTable>>;
  std::lock_guard lock(mutex);
  const auto [at, fresh] = known->try_emplace(path);
  if (fresh) {
    Result<TuningTable> table = TuningTable::Load(path);
    if (table.ok()) {
      at->second = std::make_shared<TuningTable>(*std::move(table));
    } else if (table.status().code() != StatusCode::kNotFound) {
      LOG(WARNING) << "not used: " << table.status().message();
    }
  }
  return at->second;
}

}  // namespace

Result<std::unique_ptr<Endpoint>> NativeBackend::Listen(const std::string& bind_address) const {
  // Before anybody counts on this rank.
  LEPTON_ASSIGN_OR_RETURN(const NativeOptions native, Resolve());
  return ListenForPeers(name(), "", bind_address, native.host, native.lanes);
}

Result<std::unique_ptr<Communicator>> NativeBackend::Join(std::unique_ptr<Endpoint> endpoint,
                                                          const GroupSpec& group,
                                                          const Options& options,
                                                          Deadline deadline) const {
  LEPTON_ASSIGN_OR_RETURN(NativeOptions native, Resolve());
  LEPTON_ASSIGN_OR_RETURN(ControlPlane control, MeetPeers(std::move(endpoint), group, name(),
                                                          native.transport, options, deadline));
  NativeTransports transports;
  if (group.size > 1) transports = MakeNativeTransports(group, control);
  LEPTON_ASSIGN_OR_RETURN(auto communicator, MeshCommunicator::Make(name(), group, options, control,
                                                                    std::move(transports.mesh),
                                                                    std::move(transports.window)));
  LEPTON_RETURN_IF_ERROR(AgreeOnChoices(*communicator, transports.crowded, native));
  return std::unique_ptr<Communicator>(std::move(communicator));
}

Result<NativeOptions> NativeBackend::Resolve() const {
  if (fixed_) return options_;
  NativeOptions out;
  const char* algorithm = std::getenv("LEPTON_COLLECTIVES_ALGORITHM");
  if (algorithm != nullptr) out.algorithm = algorithm;
  const char* host = std::getenv("LEPTON_COLLECTIVES_HOST");
  if (host != nullptr) out.host = host;
  if (out.host.find('|') != std::string::npos) {
    return InvalidArgument("LEPTON_COLLECTIVES_HOST: '" + out.host + "' has a |");
  }
  LEPTON_ASSIGN_OR_RETURN(out.lanes, LanesInEnvironment());
  const std::string path = TuningTable::DefaultPath();
  if (std::getenv("LEPTON_COLLECTIVES_TABLE") != nullptr && !path.empty()) {
    Result<TuningTable> table = TuningTable::Load(path);
    if (!table.ok()) return table.status().WithContext("LEPTON_COLLECTIVES_TABLE");
    out.table = std::make_shared<TuningTable>(*std::move(table));
  } else if (!path.empty()) {
    out.table = TableInDefaultPlace(path);
  }
  const char* transport = std::getenv("LEPTON_COLLECTIVES_TRANSPORT");
  std::string_view choice = transport == nullptr ? "auto" : transport;
  if (choice == "tcp") {
    out.transport = TransportChoice::kTcp;
  } else if (choice == "shm") {
    out.transport = TransportChoice::kShm;
  } else if (choice != "auto") {
    return InvalidArgument("LEPTON_COLLECTIVES_TRANSPORT: '" + std::string(choice) +
                           "' is not auto, shm or tcp");
  }
  return out;
}

}  // namespace lepton::collectives
