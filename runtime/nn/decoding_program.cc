#include "runtime/nn/decoding_program.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/formats/onnx/import.h"
#include "runtime/graph/executor.h"
#include "runtime/nn/graph_decoding.h"
#include "runtime/nn/transformer.h"
#include "runtime/ops/cached_attention.h"
#include "runtime/tensor/reserved_memory.h"

namespace lepton::nn {
namespace {

using graph::ValueId;

constexpr int64_t kMostTokens = 4096;  // of a pass; longer extensions come in several
constexpr int64_t kMostRows = 64;      // reading the weights takes as long as so many rows
constexpr int64_t kMostPlans = 64;

// New tokens are padded to few lengths, so that there are few plans: in steps of a quarter of a
// doubling from 8 on.
int64_t PaddedTokens(int64_t tokens) {
  const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens)));
  const int64_t step = std::max<int64_t>(1, power / 8);
  return power <= 8 ? power : (tokens + step - 1) / step * step;
}

int64_t Capacity(int64_t context) {
  return (context + 31) / 32 * 32;
}

DType CacheType(const std::string& precision) {
  return precision == "f32" ? DType::kF32 : DType::kBF16;
}

// Of a slot, in one layer.
int64_t CacheBytes(const TransformerConfig& config, const std::string& precision, int64_t context) {
  return ops::CacheElements(config.kv_heads, config.head_size, Capacity(context)) *
         static_cast<int64_t>(DTypeSize(CacheType(precision)));
}

class GraphDecoding final : public DecodingProgram {
 public:
  GraphDecoding(const DecodingSource& source, const Options& options, int64_t outputs)
      : options_(options),
        outputs_(outputs),
        capacity_(Capacity(options.context)),
        graph_(onnx::ImportOps()),
        builder_(graph_, /*training=*/false, source.precision),
        executor_(graph_, onnx::ImportKernels(), {}, PlanOptionsOf(nullptr), kMostPlans,
                  source.arena),
        weights_(builder_.parameters()),
        version_(source.version),
        lengths_(static_cast<size_t>(options.slots)) {}

  Status Build(const DecodingSource& source, const TransformerConfig& config,
               const TransformerNames& names) {
    const DType dtype = CacheType(source.precision);
    const Shape texts({Shape::kBatch, Shape::kSequence}), rows({Shape::kBatch});
    vocabulary_ = config.vocabulary;
    inputs_.tokens = graph_.AddInput("tokens", {DType::kI32, texts});
    inputs_.positions = graph_.AddInput("positions", {DType::kI32, texts});
    inputs_.mask = graph_.AddInput("mask", {DType::kF32, texts});
    inputs_.slots = graph_.AddInput("slots", {DType::kI32, rows});
    inputs_.lengths = graph_.AddInput("lengths", {DType::kI32, rows});
    inputs_.capacity = capacity_;
    const int64_t elements = ops::CacheElements(config.kv_heads, config.head_size, capacity_);
    cache_type_ = {dtype, Shape({options_.slots, elements})};
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      inputs_.caches.push_back(graph_.AddInput("cache." + std::to_string(layer), cache_type_));
      LEPTON_ASSIGN_OR_RETURN(ReservedMemory memory, ReservedMemory::Make(cache_type_.bytes()));
      caches_.push_back(std::move(memory));
    }
    LEPTON_ASSIGN_OR_RETURN(logits_, BuildDecoder(builder_, config, names, inputs_));
    builder_.Place();
    const auto& parameters = builder_.parameters();
    if (parameters.size() != source.weights->size()) {
      return Internal("a decoder has other parameters");
    }
    weights_.Bind(source.weights);
    executor_.packs().Share(PackNames(graph_, parameters), source.packs);
    return graph_.AddOutput(logits_, /*external=*/true);
  }

  const Options& options() const override { return options_; }
  int64_t bytes_per_token() const override {
    const auto layers = static_cast<int64_t>(caches_.size());
    return layers * static_cast<int64_t>(cache_type_.bytes()) / (options_.slots * capacity_);
  }
  int64_t length(int64_t slot) const override { return lengths_[static_cast<size_t>(slot)]; }
  void Truncate(int64_t slot, int64_t length) override {
    int64_t& there = lengths_[static_cast<size_t>(slot)];
    there = std::clamp<int64_t>(length, 0, there);
  }

  Status Extend(std::span<const Extension> extensions, std::span<float> logits) override {
    LEPTON_RETURN_IF_ERROR(Check(extensions, logits));
    const std::vector<int64_t> before = lengths_;
    const Status status = ExtendChecked(extensions, logits);
    if (!status.ok()) lengths_ = before;
    return status;
  }

 private:
  // Tokens of an extension that are computed in one pass.
  struct Piece {
    const Extension* extension;
    size_t index, begin, end;
    bool last() const { return end == extension->tokens.size(); }
    auto tokens() const { return extension->tokens.subspan(begin, end - begin); }
  };

  Status Check(std::span<const Extension> extensions, std::span<const float> logits) const {
    if (logits.size() != extensions.size() * static_cast<size_t>(outputs_)) {
      return InvalidArgument("logits: has room for " + std::to_string(logits.size()) +
                             " numbers; must have " +
                             std::to_string(extensions.size() * static_cast<size_t>(outputs_)));
    }
    std::set<int64_t> slots;
    for (const Extension& extension : extensions) {
      const int64_t slot = extension.slot;
      if (slot < 0 || slot >= options_.slots || !slots.insert(slot).second) {
        return InvalidArgument("slot " + std::to_string(slot) + ": must be one of " +
                               std::to_string(options_.slots) + ", and named once");
      }
      if (extension.tokens.empty()) {
        return InvalidArgument("slot " + std::to_string(slot) + ": has no new tokens");
      }
      const int64_t tokens = length(slot) + static_cast<int64_t>(extension.tokens.size());
      if (tokens > options_.context) {
        return InvalidArgument("the text would have " + std::to_string(tokens) +
                               " tokens; there is room for " + std::to_string(options_.context));
      }
      for (const int32_t id : extension.tokens) {
        if (id >= 0 && id < vocabulary_) continue;
        return InvalidArgument("tokens: " + std::to_string(id) +
                               " is out of range: must be in 0.." +
                               std::to_string(vocabulary_ - 1));
      }
    }
    return Status::Ok();
  }

  Status ExtendChecked(std::span<const Extension> extensions, std::span<float> logits) {
    std::vector<size_t> done(extensions.size());
    for (bool more = true; more;) {
      more = false;
      std::map<int64_t, std::vector<Piece>> by_length;
      for (size_t i = 0; i < extensions.size(); ++i) {
        const size_t all = extensions[i].tokens.size();
        if (done[i] == all) continue;
        const size_t end = std::min(all, done[i] + size_t{kMostTokens});
        // Padding has room in the slot, too.
        const int64_t padded = std::min(PaddedTokens(static_cast<int64_t>(end - done[i])),
                                        capacity_ - length(extensions[i].slot));
        by_length[padded].push_back({&extensions[i], i, done[i], end});
        done[i] = end;
        more = more || end < all;
      }
      for (const auto& [padded, pieces] : by_length) {
        const auto most = static_cast<size_t>(std::clamp<int64_t>(
            std::bit_floor(static_cast<uint64_t>(kMostTokens / padded)), 1, kMostRows));
        for (size_t first = 0; first < pieces.size(); first += most) {
          const auto some = std::span(pieces).subspan(first, std::min(most, pieces.size() - first));
          LEPTON_RETURN_IF_ERROR(RunPieces(some, padded, logits));
        }
      }
    }
    return Status::Ok();
  }

  Status RunPieces(std::span<const Piece> pieces, int64_t padded, std::span<float> logits) {
    const auto rows = static_cast<int64_t>(std::bit_ceil(pieces.size()));
    LEPTON_ASSIGN_OR_RETURN(graph::Plan* const plan, PlanFor(rows, padded));
    Fill(pieces, rows, padded);
    const std::pair<ValueId, void*> feeds[] = {{inputs_.tokens, tokens_.data()},
                                               {inputs_.positions, positions_.data()},
                                               {inputs_.mask, mask_.data()},
                                               {inputs_.slots, slots_.data()},
                                               {inputs_.lengths, before_.data()}};
    for (const auto& [input, data] : feeds) LEPTON_RETURN_IF_ERROR(plan->Feed(input, data));
    row_logits_.resize(static_cast<size_t>(rows * outputs_));
    plan->Bind(logits_, row_logits_.data());
    plan->Run({});
    for (size_t row = 0; row < pieces.size(); ++row) {
      const Piece& piece = pieces[row];
      lengths_[static_cast<size_t>(piece.extension->slot)] += piece.end - piece.begin;
      if (!piece.last()) continue;
      std::copy_n(row_logits_.begin() + static_cast<int64_t>(row) * outputs_, outputs_,
                  logits.begin() + static_cast<int64_t>(piece.index) * outputs_);
    }
    return Status::Ok();
  }

  // [rows, padded]; rows beyond the pieces are nobody's.
  void Fill(std::span<const Piece> pieces, int64_t rows, int64_t padded) {
    constexpr float kPadding = -1e9f;
    tokens_.assign(static_cast<size_t>(rows * padded), 0);
    positions_.assign(tokens_.size(), 0);
    mask_.assign(tokens_.size(), kPadding);
    slots_.assign(static_cast<size_t>(rows), -1);
    before_.assign(static_cast<size_t>(rows), 0);
    for (size_t row = 0; row < pieces.size(); ++row) {
      const auto tokens = pieces[row].tokens();
      const int64_t slot = pieces[row].extension->slot;
      const auto at = static_cast<int64_t>(row) * padded;
      slots_[row] = static_cast<int32_t>(slot);
      before_[row] = static_cast<int32_t>(length(slot));
      std::copy(tokens.begin(), tokens.end(), tokens_.begin() + at);
      std::fill_n(mask_.begin() + at, tokens.size(), 0.0f);
      for (int64_t i = 0; i < padded; ++i) {
        positions_[at + i] = static_cast<int32_t>(std::min(length(slot) + i, options_.context - 1));
      }
    }
  }

  Result<graph::Plan*> PlanFor(int64_t rows, int64_t sequence) {
    const Shape texts({rows, sequence});
    std::vector<TensorType> types = {{DType::kI32, texts},
                                     {DType::kI32, texts},
                                     {DType::kF32, texts},
                                     {DType::kI32, Shape({rows})},
                                     {DType::kI32, Shape({rows})}};
    types.insert(types.end(), caches_.size(), cache_type_);
    bool made = false;
    LEPTON_ASSIGN_OR_RETURN(graph::Plan* const plan, executor_.PlanFor(types, &made));
    for (size_t layer = 0; made && layer < caches_.size(); ++layer) {
      LEPTON_RETURN_IF_ERROR(plan->Feed(inputs_.caches[layer], caches_[layer].data()));
    }
    weights_.Prepare(*plan, made, version_);
    return plan;
  }

  const Options options_;
  const int64_t outputs_;
  const int64_t capacity_;  // tokens of a slot
  int64_t vocabulary_ = 0;
  graph::Graph graph_;
  ModelBuilder builder_;
  graph::Executor executor_;
  PlanWeights weights_;
  const uint64_t version_;
  DecoderInputs inputs_;
  ValueId logits_ = graph::kNoValue;
  TensorType cache_type_;
  std::vector<ReservedMemory> caches_;  // by layer
  std::vector<int64_t> lengths_;        // by slot
  // Of a pass.
  std::vector<int32_t> tokens_, positions_, slots_, before_;
  std::vector<float> mask_, row_logits_;
};

}  // namespace

std::vector<ValueId> PackNames(const graph::Graph& graph,
                               const std::vector<ModelBuilder::Declared>& parameters) {
  std::vector<ValueId> names(graph.values().size(), graph::kNoValue);
  for (size_t i = 0; i < parameters.size(); ++i) {
    names[static_cast<size_t>(parameters[i].value)] = static_cast<ValueId>(2 * i);
  }
  for (const graph::Node& node : graph.nodes()) {
    if (node.op->name() != "cast" || graph.type(node.outputs[0]).dtype != DType::kBF16) continue;
    const graph::Value& source = graph.value(node.inputs[0]);
    if (source.kind != graph::ValueKind::kParameter || source.type.dtype != DType::kF32) continue;
    names[static_cast<size_t>(node.outputs[0])] = names[static_cast<size_t>(node.inputs[0])] + 1;
  }
  return names;
}

Result<std::unique_ptr<DecodingProgram>> MakeDecoding(const DecodingSource& source,
                                                      const DecodingProgram::Options& options) {
  using Options = DecodingProgram::Options;
  if (source.model->arch != "transformer") {
    return InvalidArgument("model.arch: " + source.model->arch +
                           " cannot go on from a cache; only transformer can");
  }
  LEPTON_ASSIGN_OR_RETURN(const spec::ModelSpec resolved, ResolveTransformer(*source.model, 0, 0));
  const Signature& signature = *source.signature;
  LEPTON_ASSIGN_OR_RETURN(const TransformerConfig config,
                          MakeTransformerConfig(resolved, signature.outputs, signature.per_token));
  if (options.slots < 1 || options.context < 1 ||
      (config.bounded && options.context > config.context)) {
    return InvalidArgument("slots and context must be positive, and context at most the model's " +
                           std::to_string(config.context));
  }
  Options bounded = options;
  const int64_t slot_bytes = config.layers * CacheBytes(config, source.precision, options.context);
  bounded.slots = std::clamp<int64_t>(options.most_bytes / slot_bytes, 1, options.slots);
  auto program = std::make_unique<GraphDecoding>(source, bounded, signature.outputs);
  LEPTON_RETURN_IF_ERROR(
      program->Build(source, config, NamesOfStyle(source.model->transformer.style)));
  return std::unique_ptr<DecodingProgram>(std::move(program));
}

}  // namespace lepton::nn
