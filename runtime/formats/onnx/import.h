// An ONNX model as a graph of this engine. Function-like operators become small cores of
// runtime/ops and runtime/ops/general; what remains is a plain graph that graph::Executor runs.
//
// Shapes are fixed at import: an input's is that of the value given for it, else what the model
// declares; or, with ImportOptions::open, extents that the model leaves open stay open: the batch,
// and one more, the sequence. Where a shape, an axis or a branch follows from an input's value
// (Reshape by an input, If, Loop), the given value is used and the graph is good for inputs with
// that value only; the names of such inputs are listed in `specialised`. Ownership: a model owns
// its graph and constants. Threads: one caller at a time.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/formats/onnx/external_data.h"
#include "runtime/formats/onnx/parse.h"
#include "runtime/graph/executor.h"

namespace lepton::onnx {

// What a name of the model became.
struct Ref {
  HostValue::Kind kind = HostValue::Kind::kNone;
  graph::ValueId id = graph::kNoValue;
  std::vector<Ref> items;
  // How many of the tensor's axes each axis of the model is; empty: one each (joined_axes.h).
  std::vector<int> groups;

  bool present() const { return kind != HostValue::Kind::kNone; }
};

struct NamedRef {
  std::string name;
  Ref ref;
};

struct ImportedModel {
  std::unique_ptr<graph::Graph> graph;
  std::map<graph::ValueId, HostTensor> constants;  // the graph's parameters
  std::vector<NamedRef> inputs;
  std::vector<NamedRef> outputs;
  std::vector<std::string> specialised;
};

using NamedValues = std::map<std::string, HostValue>;

struct ImportOptions {
  ExternalData external;
  Limits limits;
  bool open = false;  // keep open extents open; `given` is not used
};

// A graph of somebody else's, over ImportOps(), that a model becomes a part of. Its constants
// become nodes of that graph.
struct Embedding {
  graph::Graph* graph = nullptr;
  std::map<std::string, graph::ValueId> inputs;  // one per input of the model
  // The parameter of an initializer whose data is left to the owner of the graph (kWeightsFile).
  std::function<graph::ValueId(const std::string& name, const TensorType& type)> parameter;
};
// External data in a file of this name stands for weights that the owner of the graph binds.
inline constexpr std::string_view kWeightsFile = "weights.safetensors";

// kInvalidArgument: the model is malformed; kFailedPrecondition: it uses what is not supported; the
// message begins with the node. `given`: values of inputs, by name.
Result<ImportedModel> Import(const onnx_proto::ModelProto& proto, const NamedValues& given,
                             const ImportOptions& options = {});

// The model as part of a graph: its outputs, in order. Types and shapes of the inputs are those of
// the embedding, open extents included. Errors as for Import.
Result<std::vector<NamedRef>> ImportInto(const onnx_proto::ModelProto& proto,
                                         const Embedding& embedding,
                                         const ImportOptions& options = {});

// The model's outputs for `inputs`, which have the shapes that it was imported with, or any that
// fit where it is open.
Result<NamedValues> Run(ImportedModel& model, NamedValues& inputs);

// The ops and kernels that imported models are made of.
const graph::OpSet& ImportOps();
const graph::KernelTable& ImportKernels();

// One line per supported operator, for the documentation.
struct OperatorSupport {
  std::string domain;
  std::string name;
  int64_t since = 1;  // the first version of the operator set whose rules are followed
  std::string types;
};
std::vector<OperatorSupport> SupportedOperators();
inline constexpr int64_t kNewestOperatorSet = 21;

}  // namespace lepton::onnx
