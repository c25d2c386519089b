#include "tests/collectives/conformance.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "collectives/split.h"
#include "tests/collectives/reference.h"

namespace lepton::collectives {
namespace {

using Bytes = std::vector<unsigned char>;

constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16,
                               DataType::kInt32,   DataType::kInt64,    DataType::kUInt8};
constexpr ReduceOp kOps[] = {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin, ReduceOp::kMean,
                             ReduceOp::kRoundedSum};

struct Case {
  Communicator& comm;
  size_t count;
  DataType type;
  uint64_t seed;

  size_t bytes() const { return count * DataTypeSize(type); }
  std::string Name(const char* what) const {
    return std::string(what) + " of " + std::to_string(count) + " " +
           std::string(DataTypeName(type)) + " on rank " + std::to_string(comm.rank()) + " of " +
           std::to_string(comm.size());
  }
  std::string Verdict(const char* what, const Status& status, const Bytes& got,
                      const Bytes& expected) const {
    if (!status.ok()) return Name(what) + ": " + status.ToString();
    if (got == expected) return "";
    size_t at = 0;
    while (got[at] == expected[at]) ++at;
    return Name(what) + ": wrong from byte " + std::to_string(at) + " on";
  }
};

std::string AllReduceCase(const Case& c, ReduceOp op) {
  Bytes in = MakeInput(c.comm.rank(), c.seed, c.count, c.type);
  Bytes expected = ExpectedReduction(c.comm.size(), c.seed, 0, c.count, c.type, op);
  Bytes out(in.size(), 0xee);
  Status status = c.comm.AllReduce(in.data(), out.data(), c.count, c.type, op);
  std::string wrong = c.Verdict("all-reduce", status, out, expected);
  if (!wrong.empty()) return wrong;
  HandlePtr handle = c.comm.AllReduceAsync(in.data(), in.data(), c.count, c.type, op);
  status = handle->Wait(Deadline::In(std::chrono::seconds(60)));
  return c.Verdict("all-reduce in place, asynchronous,", status, in, expected);
}

std::string ReduceScatterCase(const Case& c, ReduceOp op) {
  size_t total = c.count * static_cast<size_t>(c.comm.size());
  Bytes in = MakeInput(c.comm.rank(), c.seed, total, c.type);
  Bytes out(c.bytes(), 0xee);
  Status status = c.comm.ReduceScatter(in.data(), out.data(), c.count, c.type, op);
  size_t begin = c.count * static_cast<size_t>(c.comm.rank());
  const Bytes expected = ExpectedReduction(c.comm.size(), c.seed, begin, c.count, c.type, op);
  std::string wrong = c.Verdict("reduce-scatter", status, out, expected);
  if (!wrong.empty()) return wrong;
  unsigned char* const mine = in.data() + begin * DataTypeSize(c.type);
  status = c.comm.ReduceScatter(in.data(), mine, c.count, c.type, op);
  wrong = c.Verdict("reduce-scatter in place", status, {mine, mine + c.bytes()}, expected);
  if (!wrong.empty()) return wrong;
  in = MakeInput(c.comm.rank(), c.seed, total, c.type);
  std::fill(out.begin(), out.end(), 0xee);
  HandlePtr handle = c.comm.ReduceScatterAsync(in.data(), out.data(), c.count, c.type, op);
  status = handle->Wait(Deadline::Never());
  return c.Verdict("reduce-scatter, asynchronous,", status, out, expected);
}

std::string AllGatherCase(const Case& c) {
  Bytes in = MakeInput(c.comm.rank(), c.seed, c.count, c.type);
  Bytes expected;
  for (int r = 0; r < c.comm.size(); ++r) {
    Bytes part = MakeInput(r, c.seed, c.count, c.type);
    expected.insert(expected.end(), part.begin(), part.end());
  }
  Bytes out(expected.size(), 0xee);
  Status status = c.comm.AllGather(in.data(), out.data(), c.count, c.type);
  std::string wrong = c.Verdict("all-gather", status, out, expected);
  if (!wrong.empty()) return wrong;
  unsigned char* const mine = out.data() + c.bytes() * static_cast<size_t>(c.comm.rank());
  std::fill(out.begin(), out.end(), 0xee);
  std::copy(in.begin(), in.end(), mine);
  status = c.comm.AllGather(mine, out.data(), c.count, c.type);
  return c.Verdict("all-gather in place", status, out, expected);
}

// Rank r's part for rank p, of what r has for all.
Bytes PartFor(const Case& c, int from, int to) {
  const Bytes all = MakeInput(from, c.seed, c.count * static_cast<size_t>(c.comm.size()), c.type);
  const auto begin = all.begin() + static_cast<ptrdiff_t>(c.bytes() * static_cast<size_t>(to));
  return {begin, begin + static_cast<ptrdiff_t>(c.bytes())};
}

std::string GatherCase(const Case& c, int root) {
  const bool at_root = c.comm.rank() == root;
  const Bytes in = MakeInput(c.comm.rank(), c.seed, c.count, c.type);
  Bytes expected, out;
  for (int r = 0; at_root && r < c.comm.size(); ++r) {
    const Bytes part = MakeInput(r, c.seed, c.count, c.type);
    expected.insert(expected.end(), part.begin(), part.end());
  }
  out.assign(expected.size(), 0xee);
  Status status = c.comm.Gather(in.data(), at_root ? out.data() : nullptr, c.count, c.type, root);
  std::string wrong = c.Verdict("gather", status, out, expected);
  if (!wrong.empty()) return wrong;
  if (!at_root) {
    status = c.comm.Gather(in.data(), nullptr, c.count, c.type, root);
    return status.ok() ? "" : c.Name("gather") + ": " + status.ToString();
  }
  unsigned char* const mine = out.data() + c.bytes() * static_cast<size_t>(root);
  std::fill(out.begin(), out.end(), 0xee);
  std::copy(in.begin(), in.end(), mine);
  status = c.comm.Gather(mine, out.data(), c.count, c.type, root);
  return c.Verdict("gather in place", status, out, expected);
}

constexpr Duration kLimit = std::chrono::seconds(60);

std::string GatherLaterCase(const Case& c, int root) {
  const bool at_root = c.comm.rank() == root;
  const Bytes in = MakeInput(c.comm.rank(), c.seed, c.count, c.type);
  Bytes expected;
  for (int r = 0; at_root && r < c.comm.size(); ++r) {
    const Bytes part = MakeInput(r, c.seed, c.count, c.type);
    expected.insert(expected.end(), part.begin(), part.end());
  }
  Bytes out(expected.size(), 0xee);
  HandlePtr handle =
      c.comm.GatherAsync(in.data(), at_root ? out.data() : nullptr, c.count, c.type, root);
  const Status status = handle->Wait(Deadline::In(kLimit));
  return c.Verdict("gather, asynchronous,", status, out, expected);
}

std::string ScatterCase(const Case& c, int root) {
  const bool at_root = c.comm.rank() == root;
  Bytes in;
  if (at_root) in = MakeInput(root, c.seed, c.count * static_cast<size_t>(c.comm.size()), c.type);
  Bytes out(c.bytes(), 0xee);
  Status status = c.comm.Scatter(at_root ? in.data() : nullptr, out.data(), c.count, c.type, root);
  const Bytes expected = PartFor(c, root, c.comm.rank());
  std::string wrong = c.Verdict("scatter", status, out, expected);
  if (!wrong.empty()) return wrong;
  unsigned char* const mine =
      at_root ? in.data() + c.bytes() * static_cast<size_t>(root) : out.data();
  status = c.comm.Scatter(at_root ? in.data() : nullptr, mine, c.count, c.type, root);
  return c.Verdict("scatter in place", status, {mine, mine + c.bytes()}, expected);
}

std::string ScatterLaterCase(const Case& c, int root) {
  Bytes in;
  if (c.comm.rank() == root) {
    in = MakeInput(root, c.seed, c.count * static_cast<size_t>(c.comm.size()), c.type);
  }
  Bytes out(c.bytes(), 0xee);
  HandlePtr handle = c.comm.ScatterAsync(c.comm.rank() == root ? in.data() : nullptr, out.data(),
                                         c.count, c.type, root);
  const Status status = handle->Wait(Deadline::In(kLimit));
  return c.Verdict("scatter, asynchronous,", status, out, PartFor(c, root, c.comm.rank()));
}

std::string AllGatherLaterCase(const Case& c) {
  const Bytes in = MakeInput(c.comm.rank(), c.seed, c.count, c.type);
  Bytes out(in.size() * static_cast<size_t>(c.comm.size()), 0xee), expected;
  for (int from = 0; from < c.comm.size(); ++from) {
    const Bytes part = MakeInput(from, c.seed, c.count, c.type);
    expected.insert(expected.end(), part.begin(), part.end());
  }
  HandlePtr handle = c.comm.AllGatherAsync(in.data(), out.data(), c.count, c.type);
  const Status status = handle->Wait(Deadline::In(std::chrono::seconds(60)));
  return c.Verdict("all-gather, asynchronous,", status, out, expected);
}

std::string AllToAllCase(const Case& c) {
  const Bytes in =
      MakeInput(c.comm.rank(), c.seed, c.count * static_cast<size_t>(c.comm.size()), c.type);
  Bytes out(in.size(), 0xee), expected;
  for (int from = 0; from < c.comm.size(); ++from) {
    const Bytes part = PartFor(c, from, c.comm.rank());
    expected.insert(expected.end(), part.begin(), part.end());
  }
  Status status = c.comm.AllToAll(in.data(), out.data(), c.count, c.type);
  std::string wrong = c.Verdict("all-to-all", status, out, expected);
  if (!wrong.empty()) return wrong;
  out.assign(out.size(), 0xee);
  HandlePtr handle = c.comm.AllToAllAsync(in.data(), out.data(), c.count, c.type);
  status = handle->Wait(Deadline::In(std::chrono::seconds(60)));
  return c.Verdict("all-to-all, asynchronous,", status, out, expected);
}

std::string BroadcastCase(const Case& c, int root) {
  Bytes data = MakeInput(c.comm.rank(), c.seed, c.count, c.type);
  const Bytes expected = MakeInput(root, c.seed, c.count, c.type);
  Status status = c.comm.Broadcast(data.data(), c.count, c.type, root);
  std::string wrong = c.Verdict("broadcast", status, data, expected);
  if (!wrong.empty()) return wrong;
  data = MakeInput(c.comm.rank(), c.seed, c.count, c.type);
  HandlePtr handle = c.comm.BroadcastAsync(data.data(), c.count, c.type, root);
  status = handle->Wait(Deadline::In(kLimit));
  return c.Verdict("broadcast, asynchronous,", status, data, expected);
}

// Round the ring; rank 0 receives first, so that no large send waits for another.
std::string SendRecvCase(const Case& c) {
  int n = c.comm.size();
  int next = (c.comm.rank() + 1) % n;
  int previous = (c.comm.rank() + n - 1) % n;
  Bytes mine = MakeInput(c.comm.rank(), c.seed, c.count, c.type);
  Bytes got(mine.size(), 0xee);
  Status status;
  if (c.comm.rank() != 0) status = c.comm.Send(mine.data(), c.count, c.type, next);
  if (status.ok()) status = c.comm.Recv(got.data(), c.count, c.type, previous);
  if (c.comm.rank() == 0 && status.ok()) status = c.comm.Send(mine.data(), c.count, c.type, next);
  std::string wrong =
      c.Verdict("send and recv", status, got, MakeInput(previous, c.seed, c.count, c.type));
  if (!wrong.empty()) return wrong;
  got.assign(got.size(), 0xee);
  HandlePtr first, second;
  if (c.comm.rank() != 0) first = c.comm.SendAsync(mine.data(), c.count, c.type, next);
  second = c.comm.RecvAsync(got.data(), c.count, c.type, previous);
  if (c.comm.rank() == 0) first = c.comm.SendAsync(mine.data(), c.count, c.type, next);
  status = first->Wait(Deadline::In(std::chrono::seconds(60)));
  if (status.ok()) status = second->Wait(Deadline::In(std::chrono::seconds(60)));
  wrong = c.Verdict("send and recv, asynchronous,", status, got,
                    MakeInput(previous, c.seed, c.count, c.type));
  if (!wrong.empty()) return wrong;
  // Odd ranks send nothing.
  const auto count_of = [&c](int rank) { return rank % 2 == 0 ? c.count : 0; };
  got.assign(count_of(previous) * DataTypeSize(c.type), 0xee);
  HandlePtr both =
      c.comm.SendRecvAsync({mine.data(), count_of(c.comm.rank()), next},
                           {got.data(), got.size() / DataTypeSize(c.type), previous}, c.type);
  status = both->Wait(Deadline::In(std::chrono::seconds(60)));
  return c.Verdict("send and recv at once", status, got,
                   MakeInput(previous, c.seed, count_of(previous), c.type));
}

// All but two ranks, or one, hold no leaves for a while, and add nothing.
std::string HeldLeavesCase(const Case& c) {
  const int holders = c.comm.size() > 2 ? 2 : 1;
  Bytes data = MakeInput(c.comm.rank(), c.seed, c.count, c.type);
  if (c.comm.rank() >= holders) {
    auto* const values = reinterpret_cast<float*>(data.data());
    std::fill(values, values + c.count, -0.0f);
  }
  c.comm.HoldLeaves(holders);
  Status status = c.comm.AllReduce(data.data(), data.data(), c.count, c.type, ReduceOp::kSum);
  std::string wrong =
      c.Verdict("all-reduce of some ranks' leaves", status, data,
                ExpectedReduction(holders, c.seed, 0, c.count, c.type, ReduceOp::kSum));
  c.comm.HoldLeaves(c.comm.size());
  return wrong.empty() ? AllReduceCase(c, ReduceOp::kSum) : wrong;
}

std::string BarrierLaterCase(const Case& c) {
  HandlePtr handle = c.comm.BarrierAsync();
  const Status status = handle->Wait(Deadline::In(kLimit));
  return status.ok() ? "" : "barrier, asynchronous: " + status.ToString();
}

std::string RunCase(const Case& c) {
  for (ReduceOp op : kOps) {
    std::string wrong = AllReduceCase(c, op);
    if (wrong.empty()) wrong = ReduceScatterCase(c, op);
    if (!wrong.empty()) return "op " + std::to_string(static_cast<int>(op)) + ": " + wrong;
  }
  std::string wrong = AllGatherCase(c);
  if (wrong.empty()) wrong = AllGatherLaterCase(c);
  for (int root = 0; root < c.comm.size() && wrong.empty(); ++root) {
    wrong = BroadcastCase(c, root);
    if (root != 0 && root != c.comm.size() - 1) continue;  // those in between show nothing new
    if (wrong.empty()) wrong = GatherCase(c, root);
    if (wrong.empty()) wrong = GatherLaterCase(c, root);
    if (wrong.empty()) wrong = ScatterCase(c, root);
    if (wrong.empty()) wrong = ScatterLaterCase(c, root);
  }
  if (wrong.empty()) wrong = AllToAllCase(c);
  if (wrong.empty() && c.comm.size() > 1) wrong = SendRecvCase(c);
  if (wrong.empty() && c.type == DataType::kFloat32) wrong = HeldLeavesCase(c);
  if (!wrong.empty()) return wrong;
  Status status = c.comm.Barrier();
  if (!status.ok()) return "barrier: " + status.ToString();
  return BarrierLaterCase(c);
}

std::string CheckBadArguments(Communicator& comm) {
  float x = 1;
  auto invalid = [](const Status& s) { return s.code() == StatusCode::kInvalidArgument; };
  if (!invalid(comm.AllReduce(nullptr, &x, 1, DataType::kFloat32, ReduceOp::kSum))) {
    return "a null input was accepted";
  }
  if (!invalid(comm.Broadcast(&x, 1, DataType::kFloat32, comm.size()))) {
    return "a root outside the group was accepted";
  }
  if (!invalid(comm.Send(&x, 1, DataType::kFloat32, comm.rank()))) {
    return "a send to oneself was accepted";
  }
  const auto both = comm.SendRecvAsync({&x, 1, (comm.rank() + 1) % comm.size()},
                                       {&x, 1, comm.rank()}, DataType::kFloat32);
  if (!invalid(both->Wait(Deadline::Never()))) return "a receipt from oneself was accepted";
  Status status = comm.AllReduce(&x, &x, 1, DataType::kFloat32, ReduceOp::kSum);
  if (!status.ok()) return "a bad argument broke the group: " + status.ToString();
  return x == static_cast<float>(comm.size()) ? "" : "wrong sum after bad arguments";
}

// Even and odd ranks apart, the last rank in neither when there are at least three: sums and roots
// are those of the sub-group, and the parent goes on.
std::string CheckSubGroups(Communicator& comm) {
  const int left_out = comm.size() > 2 ? comm.size() - 1 : -1;
  const int color = comm.rank() == left_out ? -1 : comm.rank() % 2;
  auto split = Split(comm, color, "127.0.0.1", {}, Deadline::In(std::chrono::seconds(20)));
  if (!split.ok()) return "split: " + split.status().ToString();
  std::unique_ptr<Communicator> part = *std::move(split);
  if ((part == nullptr) != (color < 0)) return "a rank is in the wrong group, or in none";
  if (part != nullptr) {
    if (part->backend() != comm.backend()) return "a sub-group of another back-end";
    int expected = 0, members = 0, mine = 0;
    for (int rank = 0; rank < comm.size(); ++rank) {
      if (rank == left_out || rank % 2 != color) continue;
      if (rank == comm.rank()) mine = members;
      expected += rank + 1;
      ++members;
    }
    if (part->size() != members || part->rank() != mine) return "wrong place in a sub-group";
    int32_t sum = comm.rank() + 1;
    Status status = part->AllReduce(&sum, &sum, 1, DataType::kInt32, ReduceOp::kSum);
    if (!status.ok()) return "a sub-group's sum: " + status.ToString();
    if (sum != expected) return "a sub-group's sum is wrong";
  }
  // All have their sums. A sub-group's failure stays its own.
  Status status = comm.Barrier();
  if (!status.ok()) return "the parent beside sub-groups: " + status.ToString();
  if (part != nullptr) part->Abort(Aborted("the end of a sub-group"));
  status = comm.Barrier();
  return status.ok() ? "" : "the parent after a sub-group's end: " + status.ToString();
}

}  // namespace

std::string RunConformance(Communicator& comm) {
  uint64_t seed = 1;
  for (DataType type : kTypes) {
    for (size_t count :
         {size_t{0}, size_t{1}, size_t{1021}, (size_t{1} << 20) / DataTypeSize(type)}) {
      std::string wrong = RunCase({comm, count, type, seed++});
      if (!wrong.empty()) return wrong;
    }
  }
  // MPI cannot free a group whose requests may be in flight: last.
  const std::string wrong = CheckBadArguments(comm);
  return wrong.empty() ? CheckSubGroups(comm) : wrong;
}

}  // namespace lepton::collectives
