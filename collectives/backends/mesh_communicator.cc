#include "collectives/backends/mesh_communicator.h"

#include "collectives/tree_shape.h"

namespace lepton::collectives {

Result<std::unique_ptr<MeshCommunicator>> MeshCommunicator::Make(
    std::string_view backend, const GroupSpec& group, const Options& options, ControlPlane& control,
    std::unique_ptr<Mesh> mesh, std::unique_ptr<SharedWindow> window, std::string algorithm) {
  std::unique_ptr<MeshCommunicator> out(
      new MeshCommunicator(backend, group, options, control.failure));
  out->algorithm_ = std::move(algorithm);
  out->mesh_ = std::move(mesh);
  out->window_ = std::move(window);
  if (group.size > 1) {
    const int leaves = group.leaves > 0 ? group.leaves : group.size;
    out->group_ = std::make_unique<Group>(Group{group.rank,
                                                group.size,
                                                *out->mesh_,
                                                out->window_.get(),
                                                leaves,
                                                TreeSplits(group.size, leaves),
                                                {},
                                                {}});
    LEPTON_ASSIGN_OR_RETURN(out->watcher_,
                            Watcher::Start(control.joined, control.failure, options));
  }
  return out;
}

void MeshCommunicator::HoldLeaves(int holders) {
  if (group_ == nullptr) return;
  group_->splits = TreeSplits(group_->size, group_->leaves, holders);
}

Status MeshCommunicator::Execute(const Call& call, Deadline deadline) {
  if (call.patient != patient_) {
    patient_ = call.patient;
    mesh_->SetPatient(patient_);
    if (window_ != nullptr) window_->SetPatient(patient_);
  }
  if (call.operation == Operation::kSend) {
    Transfer send = Transfer::Send(call.root, call.in, call.bytes());
    return mesh_->Run({&send, 1}, deadline);
  }
  if (call.operation == Operation::kRecv) {
    Transfer receive = Transfer::Recv(call.root, call.out, call.bytes());
    return mesh_->Run({&receive, 1}, deadline);
  }
  return Choose(call).run(*group_, call, deadline);
}

const Algorithm& MeshCommunicator::Choose(const Call& call) const {
  std::string_view algorithm = algorithm_;
  if (algorithm.empty() && table_ != nullptr && call.operation == Operation::kAllReduce) {
    algorithm = table_->AlgorithmFor(window_ != nullptr ? "shm" : "tcp", size(), call.bytes());
  }
  return ChooseAlgorithm(*group_, call, algorithm);
}

std::string_view MeshCommunicator::AlgorithmOf(const Call& call) const {
  return group_ == nullptr ? std::string_view() : Choose(call).name;
}

void MeshCommunicator::TellPeers(const std::string& message) {
  if (watcher_ != nullptr) watcher_->TellAbort(message);
}

}  // namespace lepton::collectives
