// A chain of pointwise nodes as steps over blocks that stay in the L1 cache. The bits are those of
// one node after the other: a value of type bf16 is rounded before the next step reads it.
// Ownership: borrows the nodes. Threads: Run is pure but for the memory that it is given.
#pragma once

#include <span>
#include <vector>

#include "runtime/graph/kernel_table.h"
#include "runtime/kernels/cpu/pointwise/function.h"

namespace lepton::kernels::pointwise {

inline constexpr int64_t kBlockElements = 1024;

// A rectangle of a matrix of `width` columns: the shape of all values of a program, flattened to
// the rows of the last axis.
struct Block {
  int64_t first_row, rows;
  int64_t first_column, columns;
  int64_t width;
  // Floats from row to row of a register; at least `columns`, at most kBlockElements / rows.
  int64_t pitch;
};

class Program {
 public:
  // Whether every node is known and its inputs can be read block by block. `flat`: all blocks begin
  // at multiples of four elements of the flattened values, as dropout's random numbers must, even
  // where rows do not.
  static bool CanRun(std::span<const graph::Node* const> nodes, std::span<const TensorType> types,
                     bool flat = false);

  // `nodes` in order; `given`: a value that the caller has computed into register 0 already, or
  // kNoValue. By value: `types`, and whether it is `kept` in memory.
  Program(std::span<const graph::Node* const> nodes, graph::ValueId given,
          std::span<const TensorType> types, std::span<const bool> kept);

  // `registers`: registers() blocks of kBlockElements floats; `given` is where register 0 is
  // instead, if a value is given.
  void Run(const graph::KernelContext& context, const Block& block, float* registers,
           float* given) const;
  // Fetches what Run will read and write of the block's place in whole matrices.
  void Prefetch(const graph::KernelContext& context, const Block& block) const;
  int registers() const { return registers_; }
  bool reads_rows() const { return reads_rows_; }

 private:
  enum class Kind : uint8_t {
    kLoad,
    kLoadRow,
    kLoadScalar,
    kCompute,
    kAddLoaded,     // a + an f32 value where it lies
    kAddLoadedRow,  // the same for one row, added to all
    kDropout,
    kRound,
    kStore,
    kActivate,      // a + bias, rounded and stored, its function rounded and stored
    kActivateGrad,  // a times the function's slope at a bf16 value where it lies, stored
  };
  struct Step {
    Kind kind;
    const Function* function = nullptr;
    float parameter = 0;                     // of the function; dropout: the rate
    float keep = 0;                          // dropout: what is kept is multiplied by this
    uint32_t stream = 0;                     // dropout
    graph::ValueId value = graph::kNoValue;  // loaded or stored
    int a = -1, b = -1, y = -1;              // registers
    // Of activations; kNoValue: there is none. `value` is what comes out.
    graph::ValueId bias = graph::kNoValue, input = graph::kNoValue;
  };

  int Compute(const graph::Node& node, int a, int b);
  // The result's register, or -1 where the node is not such an addition.
  int AddLoaded(const graph::Node& node, const Shape& shape, std::span<const TensorType> types);
  int ValueRegister(graph::ValueId value) const;
  int Load(graph::ValueId value, const Shape& shape, std::span<const TensorType> types);
  void Define(graph::ValueId value, int reg) { defined_.push_back({value, reg}); }
  // Where steps are all that surrounds an activation in bf16, one instead of them.
  void MergeActivations(std::span<const TensorType> types);
  bool MergeActivation(size_t at, std::span<const TensorType> types);
  bool MergeGradient(size_t at, std::span<const TensorType> types);
  bool IsRead(int reg, size_t from) const;  // by a step from there on
  void FreeAfterLastUse();

  std::vector<Step> steps_;
  std::vector<std::pair<graph::ValueId, int>> defined_;  // while it is built
  int registers_ = 0;
  bool reads_rows_ = false;
};

}  // namespace lepton::kernels::pointwise
