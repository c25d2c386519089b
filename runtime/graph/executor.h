// Keeps the plans of a graph that were used last, by the shapes of its inputs. On the host they
// compute in one arena, one at a time. Ownership: the graph and the kernel table must outlive the
// executor; a Plan belongs to its executor. Threads: one caller at a time, for all executors that
// share an arena; kernels use ThreadPool::Compute().
#pragma once

#include <list>
#include <memory>

#include "runtime/graph/plan.h"

namespace lepton::graph {

class Executor {
 public:
  static constexpr size_t kMostPlans = 8;  // few, where each has memory of its own
  // Of what plans on the host keep beside the arena: those used longest ago go where it is more.
  static constexpr size_t kMostOwnBytes = size_t{256} << 20;

  Executor(const Graph& graph, const KernelTable& kernels, Device device = {},
           PlanOptions options = {}, size_t most_plans = kMostPlans,
           std::shared_ptr<Arena> arena = std::make_shared<Arena>())
      : graph_(graph),
        kernels_(kernels),
        device_(device),
        options_(options),
        most_plans_(most_plans),
        packs_(options.transient_packs),
        arena_(std::move(arena)) {}

  // The plan for these input types: from the cache, or made now. Valid until another one is asked
  // for. `*made` (may be null) says whether it is new and so has nothing bound yet.
  Result<Plan*> PlanFor(std::span<const TensorType> inputs, bool* made = nullptr);
  // The one that was asked for last; null: none was.
  Plan* Latest() { return plans_.empty() ? nullptr : plans_.front().plan.get(); }
  Result<Plan*> PlanForBatch(int64_t batch, bool* made = nullptr);
  // What plans compute in, and what they keep from run to run; on an accelerator all is theirs.
  size_t arena_bytes() const { return arena_->bytes(); }
  size_t plan_bytes() const;
  // Of the plan that needs most memory: what it needs, and what no plan could need less than.
  std::pair<size_t, size_t> largest_plan() const;
  // What plans compute in, and where packed copies of parameters are, for another program of the
  // same weights that never runs at the same time (PackCache::Share).
  const std::shared_ptr<Arena>& arena() const { return arena_; }
  PackCache& packs() { return packs_; }
  // Of packed copies of parameters.
  size_t pack_bytes() const { return packs_.bytes(); }

 private:
  struct Cached {
    std::vector<TensorType> inputs;
    std::unique_ptr<Plan> plan;
  };
  const Graph& graph_;
  const KernelTable& kernels_;
  const Device device_;
  const PlanOptions options_;
  const size_t most_plans_;
  PackCache packs_;
  const std::shared_ptr<Arena> arena_;
  std::list<Cached> plans_;  // the last used first
};

}  // namespace lepton::graph
