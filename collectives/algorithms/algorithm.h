// How an operation is done. Algorithms see a group as a Mesh of links and, when all its ranks share
// a host, a SharedWindow; never a concrete transport. All ranks choose from the same facts (sizes,
// and what was agreed when the group was joined), so all choose the same.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "collectives/algorithms/host_tree.h"
#include "collectives/communicator.h"
#include "collectives/transport/mesh.h"
#include "collectives/transport/shared_window.h"

namespace lepton::collectives {

// What the algorithms of one communicator work with. One operation at a time.
struct Group {
  int rank;
  int size;
  Mesh& mesh;
  SharedWindow* window;                // null unless the whole group shares it
  int leaves;                          // of the tree of sums: tree_shape.h
  std::vector<int> splits;             // its shape over ranks: TreeSplits(size, leaves)
  HostTree host_tree;                  // how that lies over hosts
  bool crowded = false;                // on some host there are more ranks than cores
  std::vector<unsigned char> scratch;  // grows to what algorithms need, and stays
  std::vector<const void*> inputs;     // of a reduction, the same
};

enum class Operation {
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kBroadcast,
  kGather,
  kScatter,
  kAllToAll,
  kBarrier,
  kSend,
  kRecv,
  kSendRecv
};
std::string_view OperationName(Operation operation);

// One call. `count` and `out` are as in communicator.h for the operation; barrier uses none.
struct Call {
  Operation operation;
  const void* in = nullptr;
  void* out = nullptr;
  size_t count = 0;
  DataType type = DataType::kUInt8;
  ReduceOp op = ReduceOp::kSum;
  int root = 0;          // of broadcast, gather, scatter; the peer of send and recv
  bool patient = false;  // behind somebody's work: wait for peers without taking a core from it
  size_t received = 0;   // of send-recv: elements of `out`
  int from = 0;          // and whose

  size_t bytes() const { return count * DataTypeSize(type); }
};

struct Algorithm {
  Operation operation;
  std::string_view name;
  bool (*usable)(const Group& group, const Call& call);
  Status (*run)(Group& group, const Call& call, Deadline deadline);
  // Whether it may be chosen without being named, of a usable one; null: always.
  bool (*suits)(const Group& group, const Call& call) = nullptr;
};

// Every algorithm, the preferred first: algorithm_list.cc. The last one of each operation is usable
// for every call and suits it. Send and recv have none: they are one transfer,
// or one each way.
std::span<const Algorithm> Algorithms();
// The first usable one that suits; with `name`, the one of that name where it is usable.
const Algorithm& ChooseAlgorithm(const Group& group, const Call& call, std::string_view name = {});

// Names a call, for SharedWindow::Publish.
uint64_t Signature(const Call& call);
// At least `bytes` of scratch, 64-byte aligned.
unsigned char* Scratch(Group& group, size_t bytes);

// Elements [begin, end) of `count` that belong to `part` of `parts`: cut at multiples of 64 bytes,
// so that no two parts share a cache line.
struct Range {
  size_t begin, end;
  size_t size() const { return end - begin; }
};
Range PartOf(size_t count, size_t element_bytes, int part, int parts);

}  // namespace lepton::collectives
