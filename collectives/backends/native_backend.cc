#include "collectives/backends/native_backend.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "collectives/backends/queued_communicator.h"
#include "collectives/transport/shm_link.h"
#include "collectives/transport/tcp_link.h"
#include "collectives/transport/watcher.h"

namespace lepton::collectives {
namespace {

class NativeEndpoint final : public Endpoint {
 public:
  explicit NativeEndpoint(Listener listener) : listener_(std::move(listener)) {}
  std::string address() const override {
    return MemberAddress{HostIdentity(), getpid(), listener_.host, listener_.port}.Encode();
  }
  Listener TakeListener() { return std::move(listener_); }

 private:
  Listener listener_;
};

class NativeCommunicator final : public QueuedCommunicator {
 public:
  NativeCommunicator(int rank, int size, const Options& options, std::string algorithm,
                     std::shared_ptr<Failure> failure)
      : QueuedCommunicator(rank, size, options, std::move(failure)),
        algorithm_(std::move(algorithm)) {}
  ~NativeCommunicator() override { Drain(); }

  std::string_view backend() const override { return "native"; }

  // A group of at least two; `joined` gives up its connections.
  Status Connect(JoinedGroup& joined, std::shared_ptr<Failure> failure);

 protected:
  Status Execute(const Call& call, Deadline deadline) override {
    if (call.operation == Operation::kSend) {
      Transfer send = Transfer::Send(call.root, call.in, call.bytes());
      return mesh_->Run({&send, 1}, deadline);
    }
    if (call.operation == Operation::kRecv) {
      Transfer receive = Transfer::Recv(call.root, call.out, call.bytes());
      return mesh_->Run({&receive, 1}, deadline);
    }
    return ChooseAlgorithm(*group_, call, algorithm_).run(*group_, call, deadline);
  }
  void TellPeers(const std::string& message) override {
    if (watcher_ != nullptr) watcher_->TellAbort(message);
  }

 private:
  std::string algorithm_;
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<SharedWindow> window_;
  std::unique_ptr<Group> group_;
  std::unique_ptr<Watcher> watcher_;  // last: it stops before what it wakes is gone
};

Status NativeCommunicator::Connect(JoinedGroup& joined, std::shared_ptr<Failure> failure) {
  const auto& local = joined.local_ranks;
  auto index_of = [&](int r) {
    auto at = std::find(local.begin(), local.end(), r);
    return at == local.end() ? -1 : static_cast<int>(at - local.begin());
  };
  const int self = index_of(rank());
  Bell* bell = joined.segment == nullptr ? nullptr : &joined.segment->bell(self);
  Waiter waiter(*failure, bell, static_cast<int>(local.size()));
  if (bell != nullptr) {
    failure->AddWaker([segment = joined.segment, self] { RingAlways(segment->bell(self)); });
  }
  std::vector<std::unique_ptr<Link>> links(static_cast<size_t>(size()));
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    int index = index_of(peer);
    if (joined.segment != nullptr && index >= 0) {
      links[peer] = std::make_unique<ShmLink>(joined.segment, failure, self, index, peer);
    } else {
      links[peer] = std::make_unique<TcpLink>(std::move(joined.data[peer]));
    }
  }
  mesh_ = std::make_unique<Mesh>(rank(), std::move(links), failure, waiter);
  if (joined.segment != nullptr && static_cast<int>(local.size()) == size()) {
    window_ = std::make_unique<SharedWindow>(joined.segment, rank(), failure, waiter);
  }
  group_ = std::make_unique<Group>(Group{rank(), size(), *mesh_, window_.get(), {}});
  LEPTON_ASSIGN_OR_RETURN(watcher_, Watcher::Start(joined, failure));
  return {};
}

Status CheckSpec(const GroupSpec& group) {
  if (group.size < 1 || group.rank < 0 || group.rank >= group.size) {
    return InvalidArgument("rank " + std::to_string(group.rank) + " of a group of " +
                           std::to_string(group.size));
  }
  if (static_cast<int>(group.members.size()) != group.size) {
    return InvalidArgument("members: " + std::to_string(group.members.size()) +
                           " addresses for a group of " + std::to_string(group.size));
  }
  if (group.token.size() != 16) {
    return InvalidArgument("token: " + std::to_string(group.token.size()) +
                           " bytes where 16 secret ones are needed");
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Endpoint>> NativeBackend::Listen(const std::string& bind_address) const {
  LEPTON_ASSIGN_OR_RETURN(Listener listener, ListenOn(bind_address));
  return std::unique_ptr<Endpoint>(new NativeEndpoint(std::move(listener)));
}

Result<std::unique_ptr<Communicator>> NativeBackend::Join(std::unique_ptr<Endpoint> endpoint,
                                                          const GroupSpec& group,
                                                          const Options& options,
                                                          Deadline deadline) const {
  auto* native = dynamic_cast<NativeEndpoint*>(endpoint.get());
  if (native == nullptr && group.size > 1) {
    return InvalidArgument("endpoint: not one of the native back-end");
  }
  LEPTON_ASSIGN_OR_RETURN(NativeOptions native_options, Resolve());
  LEPTON_ASSIGN_OR_RETURN(auto failure, Failure::Make(std::max(1, group.size)));
  if (group.size == 1 && group.rank == 0) {
    return std::unique_ptr<Communicator>(new NativeCommunicator(0, 1, options, "", failure));
  }
  LEPTON_RETURN_IF_ERROR(CheckSpec(group));
  LEPTON_ASSIGN_OR_RETURN(JoinedGroup joined, Rendezvous(native->TakeListener(), group,
                                                         native_options.transport, deadline));
  auto communicator = std::make_unique<NativeCommunicator>(group.rank, group.size, options,
                                                           native_options.algorithm, failure);
  LEPTON_RETURN_IF_ERROR(communicator->Connect(joined, failure));
  return std::unique_ptr<Communicator>(std::move(communicator));
}

Result<NativeOptions> NativeBackend::Resolve() const {
  if (fixed_) return options_;
  NativeOptions out;
  const char* algorithm = std::getenv("LEPTON_COLLECTIVES_ALGORITHM");
  if (algorithm != nullptr) out.algorithm = algorithm;
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
