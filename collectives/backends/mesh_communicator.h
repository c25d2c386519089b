// The communicator of every back-end: the algorithms over its mesh (and window), the watcher on its
// control connections.
#pragma once

#include <memory>
#include <string>

#include "collectives/backends/control_plane.h"
#include "collectives/backends/queued_communicator.h"
#include "collectives/transport/mesh.h"
#include "collectives/transport/shared_window.h"
#include "collectives/transport/watcher.h"
#include "collectives/tuning_table.h"

namespace lepton::collectives {

class MeshCommunicator final : public QueuedCommunicator {
 public:
  // `mesh` is null in a group of one, `window` unless the whole group shares memory. Takes the
  // control connections over from `control` and starts to watch them.
  static Result<std::unique_ptr<MeshCommunicator>> Make(
      std::string_view backend, const GroupSpec& group, const Options& options,
      ControlPlane& control, std::unique_ptr<Mesh> mesh,
      std::unique_ptr<SharedWindow> window = nullptr);
  ~MeshCommunicator() override { Drain(); }

  // Leaves the group, as the destructor does, and hands over what moved its bytes. Nobody may call
  // anything of it any more.
  std::unique_ptr<Mesh> Dissolve();

  std::string_view backend() const override { return backend_; }
  std::vector<Straggler> Stragglers() const override {
    return watcher_ == nullptr ? std::vector<Straggler>() : watcher_->Stragglers();
  }
  std::vector<SlowLink> SlowLinks() const override {
    return watcher_ == nullptr ? std::vector<SlowLink>() : watcher_->SlowLinks();
  }
  void HoldLeaves(int holders) override;
  // How this call would be done.
  std::string_view AlgorithmOf(const Call& call) const;
  // The same on all ranks, between two operations: it is taken by name wherever it is usable.
  void UseAlgorithm(std::string algorithm) { algorithm_ = std::move(algorithm); }
  // The same on all ranks, between two operations. An algorithm that is named rules.
  void UseTable(std::shared_ptr<const TuningTable> table) { table_ = std::move(table); }
  // The same on all ranks: some host has more of them than cores.
  void SetCrowded() { group_->crowded = true; }

 protected:
  Status Execute(const Call& call, Deadline deadline) override;
  void TellPeers(const std::string& message) override;

 private:
  const Algorithm& Choose(const Call& call) const;
  void UseTree(std::vector<int> splits);
  MeshCommunicator(std::string_view backend, const GroupSpec& group, const Options& options,
                   std::shared_ptr<Failure> failure)
      : QueuedCommunicator(group.rank, group.size, options, std::move(failure)),
        backend_(backend) {}

  std::string_view backend_;
  std::string algorithm_;
  std::shared_ptr<const TuningTable> table_;  // may be null
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<SharedWindow> window_;
  bool patient_ = false;
  std::vector<int> hosts_;  // by rank, a number for each
  std::unique_ptr<Group> group_;
  std::unique_ptr<Watcher> watcher_;  // last: it stops before what it wakes is gone
};

}  // namespace lepton::collectives
