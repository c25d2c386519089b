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

#include "runtime/graph/graph.h"
#include "runtime/tensor/device.h"
#include "runtime/tensor/tensor_view.h"

namespace lepton::graph {

// What changes from run to run besides the data: keys of the random numbers.
struct RunState {
  uint64_t seed = 0;
  uint64_t step = 0;
  uint32_t shard = 0;
};

// A kernel's arguments during a run. Valid during the call only.
class KernelContext {
 public:
  KernelContext(const TensorView* values, const Node& node, const RunState& run)
      : values_(values), node_(node), run_(run) {}
  const TensorView& input(int index) const { return values_[node_.inputs[index]]; }
  const TensorView& output(int index) const { return values_[node_.outputs[index]]; }
  int inputs() const { return static_cast<int>(node_.inputs.size()); }
  int outputs() const { return static_cast<int>(node_.outputs.size()); }
  const Attributes& attributes() const { return node_.attributes; }
  const RunState& run() const { return run_; }

 private:
  const TensorView* values_;
  const Node& node_;
  const RunState& run_;
};

// A node made ready for fixed shapes: primitives built, tiles cut.
class Kernel {
 public:
  virtual ~Kernel() = default;
  // Called with the frozen inputs' memory (KernelRequest::frozen) each time they changed, before
  // Run: the place to pack weights. The other inputs and the outputs may have no memory yet.
  virtual void Prepare(const KernelContext&) {}
  // Inputs and outputs never overlap.
  virtual void Run(const KernelContext& context) = 0;
};

// What is to be computed, with concrete shapes.
struct KernelRequest {
  std::string_view op;
  const Attributes* attributes = nullptr;
  std::span<const TensorType> inputs;
  std::span<const TensorType> outputs;
  Device device;
  // By input: it follows from parameters alone and changes so rarely that work in Prepare pays.
  // Empty: none.
  std::vector<bool> frozen = {};
};

struct KernelEntry {
  std::string_view op;
  DType dtype = DType::kF32;
  std::string_view implementation;  // "onednn", "simd", "reference"
  bool (*can_run)(const KernelRequest& request) = nullptr;
  std::unique_ptr<Kernel> (*create)(const KernelRequest& request) = nullptr;
  DeviceKind device = DeviceKind::kCpu;
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
