// How a DecodingProgram is made of the program whose weights it reads; between these two alone.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/graph/executor.h"
#include "runtime/nn/decoding_program.h"
#include "runtime/nn/forward_program.h"

namespace lepton::nn {

struct DecodingSource {
  const Signature* signature = nullptr;
  const spec::ModelSpec* model = nullptr;
  std::string precision;
  std::shared_ptr<StoredWeights> weights;
  uint64_t version = 0;  // of the weights
  std::shared_ptr<graph::PackStore> packs;
  std::shared_ptr<graph::Arena> arena;
};

Result<std::unique_ptr<DecodingProgram>> MakeDecoding(const DecodingSource& source,
                                                      const DecodingProgram::Options& options);

// What programs of one model call their weights, and the rounded copies of these, in a PackStore.
std::vector<graph::ValueId> PackNames(const graph::Graph& graph,
                                      const std::vector<ModelBuilder::Declared>& parameters);

}  // namespace lepton::nn
