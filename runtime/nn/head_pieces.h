// A language model's forward pass in two: its body, up to the hidden states that its head
// multiplies, and the head, some tokens at a time, so that the logits of a long text need not all
// be in memory. Logits have the bits that they have at once (docs/decisions/products.md).
// Threads: one caller. Internal to this folder.
#pragma once

#include <memory>
#include <vector>

#include "runtime/graph/executor.h"
#include "runtime/nn/model_builder.h"
#include "runtime/nn/plan_weights.h"
#include "runtime/tensor/buffer.h"

namespace lepton::nn {

class HeadPieces {
 public:
  // Of a graph that is asked for nothing yet; null where the head is not a plain product with a
  // parameter. Computes in the arena of `executor`, and shares its packs.
  static std::unique_ptr<HeadPieces> Make(const graph::Graph& whole, graph::ValueId logits,
                                          const std::vector<ModelBuilder::Declared>& parameters,
                                          const graph::PlanOptions& options,
                                          graph::Executor& executor);

  // Its values are numbered as the whole graph's; its output, the hidden states [.., width], is
  // external.
  graph::Executor& body() { return *body_; }
  graph::ValueId hidden() const { return hidden_; }
  size_t hidden_bytes() const { return hidden_bytes_; }  // of a token
  // Logits [tokens, outputs], which hold until the next call. Each number of tokens has its plan.
  Result<std::span<const float>> Run(const void* hidden, int64_t tokens,
                                     const std::shared_ptr<StoredWeights>& weights,
                                     uint64_t version);

 private:
  explicit HeadPieces(const graph::Graph& whole);
  bool CutHead(graph::ValueId logits, const std::vector<ModelBuilder::Declared>& parameters);

  graph::Graph body_graph_, head_graph_;
  std::vector<ModelBuilder::Declared> parameters_;  // the model's, in the head's graph
  std::unique_ptr<graph::Executor> body_, head_;
  PlanWeights weights_;  // the head's
  graph::ValueId hidden_ = graph::kNoValue, input_ = graph::kNoValue, logits_ = graph::kNoValue;
  size_t hidden_bytes_ = 0;
  Buffer piece_;
};

}  // namespace lepton::nn
