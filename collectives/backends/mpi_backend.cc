#include "collectives/backends/mpi_backend.h"

#ifdef LEPTON_HAS_MPI

#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "collectives/backends/mesh_communicator.h"

namespace lepton::collectives {
namespace {

constexpr int kTag = 1;
constexpr size_t kMaxMessage = size_t{16} << 20;  // what moves is seen a message at a time
constexpr Duration kPatientLook = std::chrono::microseconds(100);

// All calls into MPI, whose threading level is MPI_THREAD_SERIALIZED.
std::mutex mpi_mutex;
std::atomic<bool> a_group_failed{false};

Status MpiStatus(int code, const char* what) {
  if (code == MPI_SUCCESS) return {};
  char text[MPI_MAX_ERROR_STRING] = {};
  int size = 0;
  MPI_Error_string(code, text, &size);
  return Aborted(std::string(what) + ": " + std::string(text, static_cast<size_t>(size)));
}

// Waits for all of the world; after a failure that could be for ever.
void FinalizeAtExit() {
  std::lock_guard lock(mpi_mutex);
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0 && !a_group_failed) MPI_Finalize();
}

Result<int> InitAndGetWorldRank() {
  std::lock_guard lock(mpi_mutex);
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized == 0) {
    int provided = 0;
    LEPTON_RETURN_IF_ERROR(
        MpiStatus(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init"));
    std::atexit(FinalizeAtExit);
    if (provided < MPI_THREAD_SERIALIZED) {
      return FailedPrecondition("this MPI was built without thread support");
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  }
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

class MpiMesh final : public Mesh {
 public:
  MpiMesh(MPI_Comm comm, std::shared_ptr<Failure> failure)
      : comm_(comm), failure_(std::move(failure)) {}
  ~MpiMesh() override {
    if (failure_->raised()) {
      a_group_failed = true;  // with requests in flight the communicator cannot be freed
      return;
    }
    std::lock_guard lock(mpi_mutex);
    MPI_Comm_free(&comm_);
  }

  Status Run(std::span<Transfer> transfers, Deadline deadline) override;
  void SetPatient(bool patient) override { patient_ = patient; }

 private:
  Status Start(std::span<Transfer> transfers);
  void Cancel();

  MPI_Comm comm_;
  std::shared_ptr<Failure> failure_;
  bool patient_ = false;
  std::vector<MPI_Request> requests_;
  std::vector<int> done_;  // of them, in one look
};

Status MpiMesh::Start(std::span<Transfer> transfers) {
  requests_.clear();
  for (const Transfer& t : transfers) {
    for (size_t at = 0; at < t.bytes; at += kMaxMessage) {
      int count = static_cast<int>(std::min(kMaxMessage, t.bytes - at));
      char* data = static_cast<char*>(t.data) + at;
      MPI_Request request = MPI_REQUEST_NULL;
      std::lock_guard lock(mpi_mutex);
      int code = t.send ? MPI_Isend(data, count, MPI_BYTE, t.peer, kTag, comm_, &request)
                        : MPI_Irecv(data, count, MPI_BYTE, t.peer, kTag, comm_, &request);
      LEPTON_RETURN_IF_ERROR(MpiStatus(code, t.send ? "MPI_Isend" : "MPI_Irecv"));
      requests_.push_back(request);
    }
  }
  return {};
}

Status MpiMesh::Run(std::span<Transfer> transfers, Deadline deadline) {
  LEPTON_RETURN_IF_ERROR(Start(transfers));
  done_.resize(requests_.size());
  size_t under_way = requests_.size();
  for (int tries = 0;; ++tries) {
    int done = 0;
    if (under_way > 0) {
      std::lock_guard lock(mpi_mutex);
      int code = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &done,
                              done_.data(), MPI_STATUSES_IGNORE);
      LEPTON_RETURN_IF_ERROR(MpiStatus(code, "MPI_Testsome"));
    }
    if (done > 0) {
      Activity::Moved();
      under_way -= static_cast<size_t>(done);
    }
    if (under_way == 0) {
      for (Transfer& t : transfers) t.done = t.bytes;
      return {};
    }
    if (failure_->raised()) {
      Cancel();
      return failure_->cause();
    }
    // MPI has no way to sleep until something happens.
    if (patient_) std::this_thread::sleep_for(kPatientLook);
    if (patient_ || tries % 64 == 63) {
      if (deadline.Expired()) {
        Cancel();
        return DeadlineExceeded("no answer in time from " + Stragglers(transfers));
      }
      sched_yield();
    }
  }
}

// As far as MPI lets: requests that have started go on.
void MpiMesh::Cancel() {
  std::lock_guard lock(mpi_mutex);
  for (MPI_Request& request : requests_) {
    if (request == MPI_REQUEST_NULL) continue;
    MPI_Cancel(&request);
    MPI_Request_free(&request);
  }
}

Result<MPI_Comm> CreateComm(const std::vector<MemberAddress>& members, uint64_t epoch) {
  std::vector<int> world_ranks;
  for (const MemberAddress& member : members) {
    int rank = -1;
    const std::string& text = member.place;
    std::from_chars(text.data(), text.data() + text.size(), rank);
    world_ranks.push_back(rank);
  }
  std::lock_guard lock(mpi_mutex);
  MPI_Group world;
  MPI_Group ours;
  MPI_Comm comm = MPI_COMM_NULL;
  LEPTON_RETURN_IF_ERROR(MpiStatus(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group"));
  int code = MPI_Group_incl(world, static_cast<int>(world_ranks.size()), world_ranks.data(), &ours);
  MPI_Group_free(&world);
  LEPTON_RETURN_IF_ERROR(MpiStatus(code, "members: MPI_Group_incl"));
  code = MPI_Comm_create_group(MPI_COMM_WORLD, ours, static_cast<int>(epoch % 32768), &comm);
  MPI_Group_free(&ours);
  LEPTON_RETURN_IF_ERROR(MpiStatus(code, "MPI_Comm_create_group"));
  MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  return comm;
}

}  // namespace

bool MpiBackend::LeavesOpen() {
  return a_group_failed;
}

Status MpiBackend::Available() const {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(name) != nullptr) return {};
  }
  return FailedPrecondition("not started by mpirun or srun, so there is no MPI world to join");
}

Result<std::unique_ptr<Endpoint>> MpiBackend::Listen(const std::string& bind_address) const {
  LEPTON_RETURN_IF_ERROR(Available());
  LEPTON_ASSIGN_OR_RETURN(int world_rank, InitAndGetWorldRank());
  return ListenForPeers(name(), std::to_string(world_rank), bind_address);
}

Result<std::unique_ptr<Communicator>> MpiBackend::Join(std::unique_ptr<Endpoint> endpoint,
                                                       const GroupSpec& group,
                                                       const Options& options,
                                                       Deadline deadline) const {
  LEPTON_ASSIGN_OR_RETURN(
      ControlPlane control,
      MeetPeers(std::move(endpoint), group, name(), TransportChoice::kNone, options, deadline));
  std::unique_ptr<Mesh> mesh;
  if (group.size > 1) {
    // Everybody is here and says it is ready, so this does not wait for anyone absent.
    LEPTON_ASSIGN_OR_RETURN(MPI_Comm comm, CreateComm(control.members, group.epoch));
    mesh = std::make_unique<MpiMesh>(comm, control.failure);
  }
  LEPTON_ASSIGN_OR_RETURN(auto communicator,
                          MeshCommunicator::Make(name(), group, options, control, std::move(mesh)));
  return std::unique_ptr<Communicator>(std::move(communicator));
}

}  // namespace lepton::collectives

#else

namespace lepton::collectives {
namespace {

Status MpiNotBuiltIn() {
  return FailedPrecondition("this lepton was built without MPI (CMake: LEPTON_WITH_MPI)");
}

}  // namespace

bool MpiBackend::LeavesOpen() {
  return false;
}

Status MpiBackend::Available() const {
  return MpiNotBuiltIn();
}

Result<std::unique_ptr<Endpoint>> MpiBackend::Listen(const std::string&) const {
  return MpiNotBuiltIn();
}

Result<std::unique_ptr<Communicator>> MpiBackend::Join(std::unique_ptr<Endpoint>, const GroupSpec&,
                                                       const Options&, Deadline) const {
  return MpiNotBuiltIn();
}

}  // namespace lepton::collectives

#endif
