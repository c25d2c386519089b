// Which code computes an op: an ordered list per (op, element type, device). The first whose CanRun
// says yes is used; the last is a plain reference that runs everything, so a fast kernel may be as
// choosy as it likes. The element type is that of the node's first input,
// or of its output when it has none.
// Threads: the table is immutable; a Kernel is used by one caller at a time.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/graph/device_run_state.h"
#include "runtime/graph/graph.h"
#include "runtime/graph/pack_cache.h"
#include "runtime/graph/profile.h"
#include "runtime/graph/tensor_group.h"
#include "runtime/tensor/accelerator.h"
#include "runtime/tensor/device.h"
#include "runtime/tensor/tensor_view.h"

namespace lepton::graph {

// What changes from run to run besides the data: keys of the random numbers.
struct RunState {
  uint64_t seed = 0;
  uint64_t step = 0;
  uint32_t shard = 0;
  Profile* profile = nullptr;     // null: times are not taken
  TensorGroup* tensor = nullptr;  // null: no layer is divided over ranks
};

// A kernel's arguments during a run. Valid during the call only.
class KernelContext {
 public:
  KernelContext(const TensorView* values, const Node& node, const RunState& run,
                void* workspace = nullptr, const DeviceRunState* device_run = nullptr)
      : values_(values), node_(node), run_(run), workspace_(workspace), device_run_(device_run) {}
  const TensorView& input(int index) const { return values_[node_.inputs[index]]; }
  const TensorView& output(int index) const { return values_[node_.outputs[index]]; }
  int inputs() const { return static_cast<int>(node_.inputs.size()); }
  int outputs() const { return static_cast<int>(node_.outputs.size()); }
  const Attributes& attributes() const { return node_.attributes; }
  const RunState& run() const { return run_; }
  // Any value: what followers (KernelRequest) read and write.
  const TensorView& value(ValueId id) const { return values_[id]; }
  // Kernel::workspace_bytes(), aligned as Buffer; what it holds is undefined.
  void* workspace() const { return workspace_; }
  // run()'s keys in the accelerator's memory; null on the host.
  const DeviceRunState* device_run() const { return device_run_; }

 private:
  const TensorView* values_;
  const Node& node_;
  const RunState& run_;
  void* workspace_;
  const DeviceRunState* device_run_;
};

// A node made ready for fixed shapes: primitives built, tiles cut.
class Kernel {
 public:
  virtual ~Kernel() = default;
  // Where its packed copy of input 1 is, frozen weights (KernelRequest::frozen), which Run reads in
  // their place; null: Run reads all inputs. The same one in each call.
  virtual Pack* pack() const { return nullptr; }
  // Makes that copy: called before Run, with the memory of the weights, each time the pack is not
  // of them as they are. The other inputs and the outputs may have no memory yet.
  virtual void Prepare(const KernelContext&) {}
  // Inputs and outputs never overlap.
  // On an accelerator this queues the work; all memory is the device's.
  virtual void Run(const KernelContext& context) = 0;
  // Memory that Run needs besides its inputs and outputs.
  virtual size_t workspace_bytes() const { return 0; }
};

// A value that follows from parameters alone and changes so rarely that work in Prepare pays.
struct FrozenInput {
  ValueId value = kNoValue;  // kNoValue: this input is not frozen
  // What Prepare finds at the input: the parameter itself when the input is its rounded copy and
  // the kernel packs (KernelEntry::packs), so that the copy need not be made.
  TensorType type;
};

// What is to be computed, with concrete shapes.
struct KernelRequest {
  std::string_view op;
  const Attributes* attributes = nullptr;
  std::span<const TensorType> inputs;
  std::span<const TensorType> outputs;
  Device device;
  // By input. Empty: none.
  std::vector<FrozenInput> frozen = {};
  // The node and the pointwise nodes that follow it in the same step (passes/fusion.h), for kernels
  // that take followers; with the types of all values, and which of the values that the step
  // computes have memory, because somebody else reads them. The node may be null when there are no
  // followers.
  const Node* node = nullptr;
  std::span<const Node* const> followers = {};
  std::span<const TensorType> types = {};
  std::span<const bool> kept = {};
  // For packed copies of frozen inputs; null: the kernel keeps its own.
  PackCache* packs = nullptr;
  // Where it runs; null: on the host.
  Accelerator* accelerator = nullptr;
};

struct KernelEntry {
  std::string_view op;
  DType dtype = DType::kF32;
  std::string_view implementation;  // "onednn", "simd", "reference"
  bool (*can_run)(const KernelRequest& request) = nullptr;
  std::unique_ptr<Kernel> (*create)(const KernelRequest& request) = nullptr;
  DeviceKind device = DeviceKind::kCpu;
  bool fuses = false;  // takes followers
  int packs = -1;      // the input that it reads in Prepare alone, when that is frozen
  int widens = -1;  // the input of f32 that it also takes in halves: its view then has their type
};

class KernelTable {
 public:
  explicit KernelTable(std::vector<KernelEntry> entries) : entries_(std::move(entries)) {}
  const std::vector<KernelEntry>& entries() const { return entries_; }
  // kInternal when nothing can run it: a hole in the kernel list.
  Result<const KernelEntry*> Select(const KernelRequest& request) const;

 private:
  std::vector<KernelEntry> entries_;
};

}  // namespace lepton::graph
