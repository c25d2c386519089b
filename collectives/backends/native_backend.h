// The native back-end: TCP and shared memory, no launcher needed, and death-safe: a peer's death
// fails every survivor's calls within milliseconds.
#pragma once

#include <memory>
#include <string>

#include "collectives/communicator.h"
#include "collectives/transport/rendezvous.h"
#include "collectives/tuning_table.h"

namespace lepton::collectives {

struct NativeOptions {
  TransportChoice transport = TransportChoice::kAuto;
  std::string algorithm;  // preferred by name where it is usable; empty: algorithm_list.cc's order
  // Used when all ranks of the group have the same one, and no algorithm is named.
  std::shared_ptr<const TuningTable> table = nullptr;
  // Ranks that give different names do not share memory, as if they were on different hosts; names
  // are seen when a rank listens.
  std::string host;
  // Connections to each peer of another host, 1 to kMaxLanes: the group has the fewest that any
  // rank wants, seen when it listens (transport/lanes.h). Given, it counts within a host too, where
  // ranks use TCP. 0: left open.
  int lanes = 0;
};

class NativeBackend final : public Backend {
 public:
  // With these options whatever the environment says: for tests and benches.
  explicit NativeBackend(NativeOptions options) : options_(std::move(options)), fixed_(true) {}
  // Reads LEPTON_COLLECTIVES_TRANSPORT (auto, shm, tcp), LEPTON_COLLECTIVES_ALGORITHM,
  // LEPTON_COLLECTIVES_HOST, LEPTON_COLLECTIVES_LANES and the table at TuningTable::DefaultPath()
  // when a rank listens and joins. kInvalidArgument for a bad table that LEPTON_COLLECTIVES_TABLE
  // names; one in the default place is left aside with a warning.
  NativeBackend() = default;

  std::string_view name() const override { return "native"; }
  Status Available() const override { return {}; }
  Result<std::unique_ptr<Endpoint>> Listen(const std::string& bind_address) const override;
  Result<std::unique_ptr<Communicator>> Join(std::unique_ptr<Endpoint> endpoint,
                                             const GroupSpec& group, const Options& options,
                                             Deadline deadline) const override;

 private:
  Result<NativeOptions> Resolve() const;
  NativeOptions options_;
  bool fixed_ = false;
};

}  // namespace lepton::collectives
