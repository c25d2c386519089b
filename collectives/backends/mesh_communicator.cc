#include "collectives/backends/mesh_communicator.h"

#include <algorithm>

#include "collectives/tree_shape.h"

namespace lepton::collectives {
namespace {

// By rank, the first rank on its host.
std::vector<int> HostsOf(const std::vector<MemberAddress>& members) {
  std::vector<int> hosts;
  for (const MemberAddress& member : members) {
    const auto first = std::find_if(members.begin(), members.end(), [&](const MemberAddress& m) {
      return m.host_identity == member.host_identity;
    });
    hosts.push_back(static_cast<int>(first - members.begin()));
  }
  return hosts;
}

}  // namespace

Result<std::unique_ptr<MeshCommunicator>> MeshCommunicator::Make(
    std::string_view backend, const GroupSpec& group, const Options& options, ControlPlane& control,
    std::unique_ptr<Mesh> mesh, std::unique_ptr<SharedWindow> window) {
  std::unique_ptr<MeshCommunicator> out(
      new MeshCommunicator(backend, group, options, control.failure));
  out->mesh_ = std::move(mesh);
  out->window_ = std::move(window);
  if (group.size > 1) {
    const int leaves = group.leaves > 0 ? group.leaves : group.size;
    out->hosts_ = HostsOf(control.members);
    out->group_ = std::make_unique<Group>(Group{.rank = group.rank,
                                                .size = group.size,
                                                .mesh = *out->mesh_,
                                                .window = out->window_.get(),
                                                .leaves = leaves});
    out->UseTree(TreeSplits(group.size, leaves));
    LEPTON_ASSIGN_OR_RETURN(out->watcher_, Watcher::Start(control.joined, control.failure, options,
                                                          {out->mesh_.get(), out->hosts_}));
  }
  return out;
}

std::unique_ptr<Mesh> MeshCommunicator::Dissolve() {
  Drain();
  watcher_.reset();
  group_.reset();
  return std::move(mesh_);
}

void MeshCommunicator::HoldLeaves(int holders) {
  if (group_ != nullptr) UseTree(TreeSplits(group_->size, group_->leaves, holders));
}

void MeshCommunicator::UseTree(std::vector<int> splits) {
  group_->splits = std::move(splits);
  group_->host_tree = MakeHostTree(group_->splits, hosts_);
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
  if (call.operation == Operation::kSendRecv) {
    Transfer both[] = {
        Transfer::Send(call.root, call.in, call.bytes()),
        Transfer::Recv(call.from, call.out, call.received * DataTypeSize(call.type))};
    return mesh_->Run(both, deadline);
  }
  return Choose(call).run(*group_, call, deadline);
}

const Algorithm& MeshCommunicator::Choose(const Call& call) const {
  std::string_view algorithm = algorithm_;
  // Tables are measured among the ranks of one host.
  const bool over_hosts = group_->host_tree.hosts() > 1;
  if (algorithm.empty() && table_ != nullptr && call.operation == Operation::kAllReduce &&
      !over_hosts) {
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
