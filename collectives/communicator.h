// Collective operations among a fixed group of ranks.
//
// Threads: one caller at a time per Communicator, except Abort(), which any thread may call. All
//   ranks must call the same operations in the same order with equal counts and types.
// Blocking: a call ends by the communicator's time-out (Options). The A-forms return at once and
//   run on the communicator's progress thread, in order; the buffers are borrowed until the handle
//   is done.
// Errors: after kAborted (a peer died, or Abort was called), kDeadlineExceeded or kUnavailable, the
//   contents of output buffers are unspecified and the group must be rebuilt: every later call
//   fails with the same cause; after kDeviceFailed (this rank's GPU) this rank should be in no
//   other. kInvalidArgument leaves the group usable.
// Reduction order: fixed by rank, a binary tree over ranks (((0+1)+(2+3))+...), so that results do
//   not depend on timing or on the back-end's algorithm. With GroupSpec::leaves it is a tree over
//   leaves of which each rank holds some (tree_shape.h). Where each gives the sum of its leaves in
//   that tree, they then do not depend on the number of ranks either; but kMean divides by the
//   ranks, and of 16-bit floats what a rank gives is rounded, which shows unless every node is so
//   (kRoundedSum).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/data_type.h"
#include "runtime/base/clock.h"
#include "runtime/base/status.h"

namespace lepton::collectives {

size_t DataTypeSize(DataType type);
std::string_view DataTypeName(DataType type);

// A running operation. Destroying it waits for the operation.
class Handle {
 public:
  virtual ~Handle() = default;
  virtual bool Done() const = 0;
  // The operation's result; kDeadlineExceeded if it is not done by then (it goes on).
  virtual Status Wait(Deadline deadline) = 0;
};
using HandlePtr = std::unique_ptr<Handle>;

struct Options {
  // Of each operation, from its begin. With link_timeout, how long none of the group's ranks may
  // have moved (runtime/base/progress.h), nor those of this process's other groups, before one that
  // waits gives up: a rank that is slow is waited for as long as it moves.
  Duration timeout = std::chrono::seconds(30);
  // Positive: ranks write to each other all the time, and what the peer's host does not acknowledge
  // for so long breaks the group: a cut cable is found in this time, an operation under way or not.
  // A process that is slow or stopped is no reason: its kernel answers. The same while they meet.
  Duration link_timeout{};
  // While joining, from the joining thread: between this rank and that one no connection comes
  // about, though nobody refuses it; or the two cannot be in one group (Backend::Conflict). All
  // such are found before the meeting fails for it. May be empty.
  std::function<void(int rank, const std::string& why)> unreachable = nullptr;
};

// In the message of the kAborted that ends a group in which bytes arrived changed.
inline constexpr std::string_view kCorruptBytes = "corrupt bytes";

// A rank that has not come to the operation in which this rank waits.
struct Straggler {
  int rank = 0;
  Duration waited{};       // since this rank began the operation
  bool computing = false;  // as its newest pulse says
};

// A link that is slow, and not a rank at one of its ends (transport/link_rates.h).
struct SlowLink {
  int from = 0;
  int to = 0;
  bool every = false;  // not it alone, but all links of `to`
  double rate = 0;     // bytes a second that it gives, while it has bytes
  double others = 0;   // median of what the sender's other links give
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string_view backend() const = 0;  // "native", "mpi", "nccl"

  // Buffers are host memory. `in` and `out` are equal (for the operations below that move parts:
  // `in` is this rank's part of `out`, or `out` this rank's part of `in`) or disjoint. out[i] = op
  // over ranks of in[i].
  virtual Status AllReduce(const void* in, void* out, size_t count, DataType type, ReduceOp op) = 0;
  // Rank r gets elements [r * count, (r+1) * count) of the reduction of size() * count elements.
  virtual Status ReduceScatter(const void* in, void* out, size_t count, DataType type,
                               ReduceOp op) = 0;
  // `out` holds size() * count elements, rank by rank.
  virtual Status AllGather(const void* in, void* out, size_t count, DataType type) = 0;
  virtual Status Broadcast(void* data, size_t count, DataType type, int root) = 0;
  // Every rank's elements to the root, whose `out` holds size() * count elements, rank by rank; the
  // others' `out` may be null.
  virtual Status Gather(const void* in, void* out, size_t count, DataType type, int root) = 0;
  // The reverse: rank r gets elements [r * count, (r+1) * count) of the root's `in`; the others'
  // `in` may be null.
  virtual Status Scatter(const void* in, void* out, size_t count, DataType type, int root) = 0;
  // Elements [r * count, (r+1) * count) of `in` go to rank r, whose `out` has them where this rank
  // is in the order. `in` and `out` hold size() * count elements and are disjoint.
  virtual Status AllToAll(const void* in, void* out, size_t count, DataType type) = 0;
  virtual Status Barrier() = 0;
  virtual Status Send(const void* data, size_t count, DataType type, int peer) = 0;
  virtual Status Recv(void* data, size_t count, DataType type, int peer) = 0;

  // These run behind earlier asynchronous operations; blocking calls wait for those first.
  virtual HandlePtr AllReduceAsync(const void* in, void* out, size_t count, DataType type,
                                   ReduceOp op) = 0;
  virtual HandlePtr ReduceScatterAsync(const void* in, void* out, size_t count, DataType type,
                                       ReduceOp op) = 0;
  virtual HandlePtr AllToAllAsync(const void* in, void* out, size_t count, DataType type) = 0;
  virtual HandlePtr AllGatherAsync(const void* in, void* out, size_t count, DataType type) = 0;
  virtual HandlePtr BroadcastAsync(void* data, size_t count, DataType type, int root) = 0;
  virtual HandlePtr GatherAsync(const void* in, void* out, size_t count, DataType type,
                                int root) = 0;
  virtual HandlePtr ScatterAsync(const void* in, void* out, size_t count, DataType type,
                                 int root) = 0;
  virtual HandlePtr BarrierAsync() = 0;
  virtual HandlePtr SendAsync(const void* data, size_t count, DataType type, int peer) = 0;
  virtual HandlePtr RecvAsync(void* data, size_t count, DataType type, int peer) = 0;
  // Both at once: `in` to one peer and `out` from one, the same or another. Counts may differ, and
  // be 0.
  struct ToPeer {
    const void* in;
    size_t count;
    int peer;
  };
  struct FromPeer {
    void* out;
    size_t count;
    int peer;
  };
  virtual HandlePtr SendRecvAsync(const ToPeer& to, const FromPeer& from, DataType type) = 0;

  // From here on the first `holders` ranks (1..size()) hold all leaves of the sums and the others
  // none, which add -0.0 (tree_shape.h). All ranks call it alike, with no operation under way. At
  // first all ranks hold leaves.
  virtual void HoldLeaves(int holders) = 0;

  // OK, or why the group is over: for one that does something long between two operations. Where a
  // back-end cannot tell, the next operation does. Any thread.
  virtual Status status() const { return {}; }

  // Who is waited for now; nobody where ranks do not tell (Options::link_timeout). Any thread.
  virtual std::vector<Straggler> Stragglers() const { return {}; }
  // Which of this rank's links were slow of late; none where ranks do not tell. Any thread.
  virtual std::vector<SlowLink> SlowLinks() const { return {}; }

  // Fails all pending and later calls with `cause`, on this rank at once and on the peers as soon
  // as their watchers read of it: a wake-up of a thread. Idempotent; any thread.
  virtual void Abort(Status cause) = 0;
};

// One rank's way into a group, before the group exists: it listens, so that its address can be told
// to the others through the control plane.
class Endpoint {
 public:
  virtual ~Endpoint() = default;
  // Opaque bytes for the other ranks' `members`.
  virtual std::string address() const = 0;
};

struct GroupSpec {
  int rank = 0;
  int size = 1;
  uint64_t epoch = 0;
  std::string token;                 // 16 secret bytes shared by the group: strangers are refused
  std::vector<std::string> members;  // Endpoint::address() of every rank, by rank
  int leaves = 0;                    // of the tree of sums, equal on all ranks; 0: one a rank
};

// A back-end makes endpoints and joins them into a communicator.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;
  // OK, or why this back-end cannot run here (not built in, no GPU, not under mpirun).
  virtual Status Available() const = 0;
  // `bind_address`: an address of this host that peers can reach; "127.0.0.1" when all are local.
  virtual Result<std::unique_ptr<Endpoint>> Listen(const std::string& bind_address) const = 0;
  // Into the group behind that of `over`, which this ends and lets go of (null: there was none). A
  // back-end may make the next group from what that holds, where nobody else holds it any more.
  virtual Result<std::unique_ptr<Endpoint>> ListenAnew(const std::string& bind_address,
                                                       std::shared_ptr<Communicator> over) const {
    over.reset();
    return Listen(bind_address);
  }
  // Collective over all ranks of the spec; consumes the endpoint.
  virtual Result<std::unique_ptr<Communicator>> Join(std::unique_ptr<Endpoint> endpoint,
                                                     const GroupSpec& group, const Options& options,
                                                     Deadline deadline) const = 0;
  // Why ranks with these addresses cannot be in one group, however well they reach each other;
  // empty: they can. All ranks find the same, and Join says so by Options::unreachable.
  virtual std::string Conflict(const std::string& /*address*/, const std::string& /*other*/) const {
    return {};
  }
};

// Tries to connect to these endpoints (Endpoint::address() of any back-end), all at once: the
// indices of those that neither answer nor refuse within `patience`.
std::vector<size_t> FindUnreachable(const std::vector<std::string>& addresses, Duration patience);

// All back-ends, those that cannot run here included: backends/backend_list.cc.
const std::vector<const Backend*>& Backends();
// "native", "mpi", "nccl"; "auto" is native on CPU. kInvalidArgument lists the names.
Result<const Backend*> FindBackend(std::string_view name);

}  // namespace lepton::collectives
