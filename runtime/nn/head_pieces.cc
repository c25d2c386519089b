#include "runtime/nn/head_pieces.h"

#include <utility>

#include "runtime/formats/onnx/import.h"
#include "runtime/nn/forward_program.h"
#include "runtime/nn/graph_decoding.h"

namespace lepton::nn {

using graph::kNoNode;
using graph::Node;
using graph::NodeId;
using graph::ValueId;
using graph::ValueKind;

// One for each padded length of a text; all compute in one arena.
constexpr size_t kPlansOfLengths = 64;

HeadPieces::HeadPieces(const graph::Graph& whole)
    : body_graph_(whole), head_graph_(onnx::ImportOps()), weights_(parameters_) {}

std::unique_ptr<HeadPieces> HeadPieces::Make(const graph::Graph& whole, ValueId logits,
                                             const std::vector<ModelBuilder::Declared>& parameters,
                                             const graph::PlanOptions& options,
                                             graph::Executor& executor) {
  std::unique_ptr<HeadPieces> pieces(new HeadPieces(whole));
  if (!pieces->CutHead(logits, parameters)) return nullptr;
  const auto make = [&](const graph::Graph& graph, const auto& declared) {
    auto made = std::make_unique<graph::Executor>(graph, KernelsOf(nullptr), Device{}, options,
                                                  kPlansOfLengths, executor.arena());
    made->packs().Share(PackNames(graph, declared), executor.packs().store());
    return made;
  };
  pieces->body_ = make(pieces->body_graph_, parameters);
  pieces->head_ = make(pieces->head_graph_, pieces->parameters_);
  return pieces;
}

bool HeadPieces::CutHead(ValueId logits, const std::vector<ModelBuilder::Declared>& parameters) {
  const NodeId producer = body_graph_.value(logits).producer;
  if (producer == kNoNode) return false;
  const Node& product = body_graph_.nodes()[static_cast<size_t>(producer)];
  const bool plain = product.op->name() == "matmul" || product.op->name() == "matmul_int8";
  if (!plain || product.attributes.Int("transpose_a") != 0) return false;
  hidden_ = product.inputs[0];
  if (body_graph_.value(hidden_).kind != ValueKind::kComputed) return false;
  ValueId weight = product.inputs[1];
  const NodeId rounding = body_graph_.value(weight).producer;
  if (rounding != kNoNode) {
    const Node& cast = body_graph_.nodes()[static_cast<size_t>(rounding)];
    if (cast.op->name() != "cast") return false;
    weight = cast.inputs[0];
  }

  const TensorType& type = body_graph_.type(hidden_);
  const Shape tokens({Shape::kBatch, type.shape.back()});
  hidden_bytes_ = static_cast<size_t>(type.shape.back()) * DTypeSize(type.dtype);
  input_ = head_graph_.AddInput("hidden", {type.dtype, tokens});
  ValueId right = graph::kNoValue;
  for (const ModelBuilder::Declared& parameter : parameters) {
    const bool of_head = parameter.value == weight;
    parameters_.push_back(parameter);
    parameters_.back().value =
        head_graph_.AddParameter(parameter.view.name, body_graph_.type(parameter.value));
    if (of_head) right = parameters_.back().value;
  }
  if (right == graph::kNoValue) return false;
  if (rounding != kNoNode) {
    const Node& cast = body_graph_.nodes()[static_cast<size_t>(rounding)];
    const auto rounded = head_graph_.Add("cast", {right}, cast.attributes);
    if (!rounded.ok()) return false;
    right = *rounded;
  }
  const auto made =
      head_graph_.Add(product.op->name(), {input_, right}, product.attributes, product.name);
  if (!made.ok()) return false;
  logits_ = *made;
  return head_graph_.AddOutput(logits_, /*external=*/true).ok() &&
         body_graph_.AddOutput(hidden_, /*external=*/true).ok();
}

Result<std::span<const float>> HeadPieces::Run(const void* hidden, int64_t tokens,
                                               const std::shared_ptr<StoredWeights>& weights,
                                               uint64_t version) {
  const TensorType type{head_graph_.type(input_).dtype,
                        {tokens, head_graph_.type(input_).shape.back()}};
  bool made = false;
  LEPTON_ASSIGN_OR_RETURN(graph::Plan* const plan, head_->PlanFor(std::span(&type, 1), &made));
  if (weights_.bound() != weights) weights_.Bind(weights);
  weights_.Prepare(*plan, made, version);
  const size_t bytes = plan->view(logits_).type.bytes();
  if (piece_.size() < bytes) piece_ = Buffer(bytes);
  LEPTON_RETURN_IF_ERROR(plan->Feed(input_, const_cast<void*>(hidden)));
  plan->Bind(logits_, piece_.data());
  plan->Run({});
  return std::span<const float>(piece_.as<float>(), bytes / sizeof(float));
}

}  // namespace lepton::nn
