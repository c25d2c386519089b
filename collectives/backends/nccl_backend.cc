#include "collectives/backends/nccl_backend.h"

#ifdef LEPTON_HAS_NCCL

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "collectives/backends/mesh_communicator.h"
#include "collectives/backends/nccl_mesh.h"
#include "collectives/transport/member_address.h"
#include "collectives/transport/socket.h"
#include "runtime/base/hash.h"

namespace lepton::collectives {
namespace {

Result<int> DeviceCount() {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    return FailedPrecondition(std::string("no usable GPU: ") + cudaGetErrorString(error));
  }
  if (count == 0) return FailedPrecondition("no usable GPU: none is visible");
  return count;
}

// The only visible GPU's own name; empty where there are several, of which each group's ranks
// choose. NCCL takes ranks with different NCCL_HOSTIDs for ones of different hosts, which may have
// one GPU between them.
Result<std::string> OnlyGpu() {
  LEPTON_ASSIGN_OR_RETURN(const int count, DeviceCount());
  if (count > 1) return std::string();
  cudaDeviceProp properties;
  LEPTON_RETURN_IF_ERROR(
      CudaStatus(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties"));
  std::string name = "GPU-" + ToHex({properties.uuid.bytes, sizeof(properties.uuid.bytes)});
  if (const char* const host = std::getenv("NCCL_HOSTID"); host != nullptr) {
    name += "@" + ToHex(host);
  }
  return name;
}

// What a rank says of itself: "<its only GPU>;<its heritage>".
struct Place {
  std::string gpu, heritage;
};

Place PlaceOf(const std::string& address) {
  const auto member = MemberAddress::Decode(address, "nccl");
  if (!member.ok()) return {};
  const size_t gpu = std::min(member->place.find(';'), member->place.size());
  return {member->place.substr(0, gpu),
          member->place.substr(std::min(gpu + 1, member->place.size()))};
}

class NcclEndpoint final : public Endpoint {
 public:
  NcclEndpoint(std::unique_ptr<Endpoint> listening, std::unique_ptr<NcclHeritage> held)
      : listening(std::move(listening)), held(std::move(held)) {}
  std::string address() const override { return listening->address(); }

  std::unique_ptr<Endpoint> listening;
  std::unique_ptr<NcclHeritage> held;  // of the group before; may be null
};

// What `over` holds for the next group; null: nothing. Ends it.
std::unique_ptr<NcclHeritage> TakeHeritage(std::shared_ptr<Communicator> over) {
  // Whoever else holds it may be in a call of it.
  if (over == nullptr || over.use_count() > 1 || !MayShrink()) return nullptr;
  auto* const last = dynamic_cast<MeshCommunicator*>(over.get());
  if (last == nullptr || last->backend() != "nccl") return nullptr;
  const std::unique_ptr<Mesh> mesh = last->Dissolve();
  auto* const of_nccl = dynamic_cast<NcclMesh*>(mesh.get());
  return of_nccl == nullptr ? nullptr : of_nccl->Release();
}

std::vector<int> ExcludedIn(const GroupSpec& group) {
  std::vector<std::string> heritages;
  for (const std::string& member : group.members) heritages.push_back(PlaceOf(member).heritage);
  return RanksToExclude(heritages);
}

constexpr char kOneGpu[] =
    "both are on the same GPU, and NCCL needs one for each rank: give each worker a GPU of its own "
    "(CUDA_VISIBLE_DEVICES), or start one worker for all of the host's";

// NCCL refuses two ranks on one GPU, but only once all have met. Here every rank finds the same,
// before anybody is dialled.
Status CheckOneGpuEach(const GroupSpec& group, const Options& options) {
  std::vector<std::string> gpus;
  for (const std::string& member : group.members) gpus.push_back(PlaceOf(member).gpu);
  std::string shared;
  for (int b = 0; b < static_cast<int>(gpus.size()); ++b) {
    for (int a = 0; a < b; ++a) {
      if (gpus[a].empty() || gpus[a] != gpus[b]) continue;
      if (shared.empty()) {
        shared = "rank " + std::to_string(a) + " and rank " + std::to_string(b) + ": " + kOneGpu;
      }
      if (options.unreachable == nullptr) continue;
      if (group.rank == a) options.unreachable(b, kOneGpu);
      if (group.rank == b) options.unreachable(a, kOneGpu);
    }
  }
  return shared.empty() ? Status() : FailedPrecondition(shared);
}

Result<int> ChooseDevice(const ControlPlane& control, const GroupSpec& group) {
  LEPTON_ASSIGN_OR_RETURN(int count, DeviceCount());
  if (count == 1) return 0;
  int index = 0;
  for (int r = 0; r < group.rank; ++r) {
    index += control.members[r].host_identity == control.members[group.rank].host_identity;
  }
  if (index < count) return index;
  return FailedPrecondition("rank " + std::to_string(group.rank) + " is number " +
                            std::to_string(index) + " on a host with " + std::to_string(count) +
                            " GPUs: NCCL needs one for each rank");
}

// Rank 0 makes it, the control connections carry it.
Result<ncclUniqueId> ShareUniqueId(const ControlPlane& control, const GroupSpec& group,
                                   Deadline deadline) {
  ncclUniqueId id{};
  if (group.rank != 0) {
    LEPTON_RETURN_IF_ERROR(ReceiveAll(control.joined.control[0].get(), &id, sizeof(id), deadline));
    return id;
  }
  LEPTON_RETURN_IF_ERROR(NcclStatus(Nccl().get_unique_id(&id), "ncclGetUniqueId"));
  for (int peer = 1; peer < group.size; ++peer) {
    LEPTON_RETURN_IF_ERROR(SendAll(control.joined.control[peer].get(), &id, sizeof(id), deadline));
  }
  return id;
}

}  // namespace

Status NcclBackend::Available() const {
  LEPTON_RETURN_IF_ERROR(DeviceCount().status());
  return Nccl().loaded;
}

Result<std::unique_ptr<Endpoint>> NcclBackend::Listen(const std::string& bind_address) const {
  return ListenAnew(bind_address, nullptr);
}

Result<std::unique_ptr<Endpoint>> NcclBackend::ListenAnew(
    const std::string& bind_address, std::shared_ptr<Communicator> over) const {
  const bool was_there = over != nullptr;
  std::unique_ptr<NcclHeritage> held = TakeHeritage(std::move(over));
  Status there = Available();
  Result<std::string> gpu = there.ok() ? OnlyGpu() : std::string();
  if (there.ok()) there = gpu.status();
  // The others of its gang can go on without it.
  if (!there.ok()) return was_there ? DeviceFailed(there.message()) : there;
  std::string place = *gpu + ";" + (held == nullptr ? "" : held->Encode());
  LEPTON_ASSIGN_OR_RETURN(auto listening, ListenForPeers(name(), std::move(place), bind_address));
  return std::unique_ptr<Endpoint>(new NcclEndpoint(std::move(listening), std::move(held)));
}

std::string NcclBackend::Conflict(const std::string& address, const std::string& other) const {
  const std::string gpu = PlaceOf(address).gpu;
  return gpu.empty() || gpu != PlaceOf(other).gpu ? "" : kOneGpu;
}

Result<std::unique_ptr<Communicator>> NcclBackend::Join(std::unique_ptr<Endpoint> endpoint,
                                                        const GroupSpec& group,
                                                        const Options& options,
                                                        Deadline deadline) const {
  LEPTON_RETURN_IF_ERROR(Available());
  LEPTON_RETURN_IF_ERROR(CheckOneGpuEach(group, options));
  std::unique_ptr<NcclHeritage> held;
  if (auto* const own = dynamic_cast<NcclEndpoint*>(endpoint.get()); own != nullptr) {
    held = std::move(own->held);
    endpoint = std::move(own->listening);
  }
  std::vector<int> excluded = ExcludedIn(group);
  if (excluded.empty() || group.size == 1) held.reset();
  LEPTON_ASSIGN_OR_RETURN(
      ControlPlane control,
      MeetPeers(std::move(endpoint), group, name(), TransportChoice::kNone, options, deadline));
  if (group.size == 1) {
    LEPTON_ASSIGN_OR_RETURN(auto alone,
                            MeshCommunicator::Make(name(), group, options, control, nullptr));
    return std::unique_ptr<Communicator>(std::move(alone));
  }
  int device = 0;
  ncclUniqueId id{};
  if (held != nullptr) {
    device = held->own.device;
  } else {
    LEPTON_ASSIGN_OR_RETURN(device, ChooseDevice(control, group));
    LEPTON_ASSIGN_OR_RETURN(id, ShareUniqueId(control, group, deadline));
  }
  auto owned = std::make_unique<NcclMesh>(device, control.failure);
  NcclMesh* mesh = owned.get();
  // Watched before it is connected, so that nobody waits in NCCL for a rank that has failed to.
  LEPTON_ASSIGN_OR_RETURN(
      auto communicator, MeshCommunicator::Make(name(), group, options, control, std::move(owned)));
  Status connected = held != nullptr ? mesh->Shrink(std::move(held), std::move(excluded))
                                     : mesh->Connect(id, group.rank, group.size, deadline);
  if (!connected.ok()) {
    communicator->Abort(connected);
    return connected;
  }
  return std::unique_ptr<Communicator>(std::move(communicator));
}

}  // namespace lepton::collectives

#else

namespace lepton::collectives {
namespace {

Status NcclNotBuiltIn() {
  return FailedPrecondition("this lepton was built without NCCL (CMake: LEPTON_WITH_NCCL)");
}

}  // namespace

Status NcclBackend::Available() const {
  return NcclNotBuiltIn();
}

Result<std::unique_ptr<Endpoint>> NcclBackend::Listen(const std::string&) const {
  return NcclNotBuiltIn();
}

Result<std::unique_ptr<Endpoint>> NcclBackend::ListenAnew(const std::string&,
                                                          std::shared_ptr<Communicator>) const {
  return NcclNotBuiltIn();
}

std::string NcclBackend::Conflict(const std::string&, const std::string&) const {
  return {};
}

Result<std::unique_ptr<Communicator>> NcclBackend::Join(std::unique_ptr<Endpoint>, const GroupSpec&,
                                                        const Options&, Deadline) const {
  return NcclNotBuiltIn();
}

}  // namespace lepton::collectives

#endif
