// How ONNX operators become ops of this engine: one function per operator, in a list per file.
// A rule reads its node through Call and sets its outputs; whatever is wrong, it fails by
// exception (builder.h). Threads: the lists are immutable.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/formats/onnx/builder.h"
#include "runtime/formats/onnx/joined_axes.h"

namespace lepton::onnx_proto {
class AttributeProto;
class GraphProto;
class NodeProto;
}  // namespace lepton::onnx_proto

namespace lepton::onnx {

class Importer;

// A node as its rule sees it.
class Call {
 public:
  Call(Builder& builder, Importer& importer, const onnx_proto::NodeProto& node, int64_t version,
       std::vector<Ref> inputs)
      : b(builder),
        importer_(importer),
        node_(node),
        version_(version),
        inputs_(std::move(inputs)) {}

  Builder& b;

  int64_t version() const { return version_; }  // of the operator set
  int inputs() const { return static_cast<int>(inputs_.size()); }
  int outputs() const;
  bool has(int index) const { return index < inputs() && inputs_[index].present(); }
  bool wants(int output) const;
  Id in(int index) const;  // a tensor; fails when absent, or where axes of it are joined
  // The same with joined axes (joined_axes.h): by the tensor's own, and how they belong together.
  Id whole(int index) const;
  Groups groups(int index) const { return GroupsOf(b, ref(index)); }
  bool joined(int index) const { return has(index) && IsJoined(groups(index)); }
  // The tensor's own axis that an axis of the model is; fails where that is a product.
  int OwnAxis(int index, int64_t axis) const;
  const Ref& ref(int index) const;  // anything; fails when not given at all
  // What is known at import, and follows from no open extent.
  HostTensor Value(int index, std::string_view what);
  Ints Integers(int index, std::string_view what);
  // The same, where open extents may be among them as marks (builder.h).
  Ints Marked(int index, std::string_view what);
  // The same, where products of such may be among them too.
  std::vector<Size> Sizes(int index, std::string_view what) { return b.Sizes(in(index), what); }
  double Number(int index, std::string_view what);

  const onnx_proto::AttributeProto* Find(std::string_view name) const;
  bool HasAttribute(std::string_view name) const { return Find(name) != nullptr; }
  int64_t Int(std::string_view name, int64_t fallback) const;
  double Float(std::string_view name, double fallback) const;
  std::string Text(std::string_view name, std::string fallback) const;
  Ints List(std::string_view name, Ints fallback = {}) const;  // sizes: within 32 bits
  std::vector<double> Floats(std::string_view name) const;
  HostTensor Tensor(std::string_view name) const;
  const onnx_proto::GraphProto& Graph(std::string_view name) const;
  // "axes" as an attribute, or since `version` as input `index`; all axes when absent.
  Ints Axes(int64_t since, int index, int rank, bool* given = nullptr);

  void Set(int output, Id id, Groups groups = {}) {
    SetRef(output, {HostValue::Kind::kTensor, id, {}, std::move(groups)});
  }
  void SetRef(int output, Ref ref);
  // The nodes of a subgraph, seen from here, with `arguments` for its inputs.
  std::vector<Ref> Subgraph(const onnx_proto::GraphProto& graph, std::vector<Ref> arguments);
  const std::vector<Ref>& results() const { return results_; }

 private:
  Importer& importer_;
  const onnx_proto::NodeProto& node_;
  int64_t version_;
  std::vector<Ref> inputs_;
  std::vector<Ref> results_;
};

struct Rule {
  std::string_view name;
  int64_t since;           // first operator set version followed
  std::string_view types;  // for the documentation
  void (*apply)(Call& call);
  std::string_view domain = "";
  bool by_element = false;  // for which the inputs are aligned (joined_axes.h)
};

std::span<const Rule> ElementwiseRules();
std::span<const Rule> ActivationRules();
std::span<const Rule> ShapeRules();
std::span<const Rule> IndexRules();
std::span<const Rule> ReductionRules();
std::span<const Rule> MatrixRules();
std::span<const Rule> ConvolutionRules();
std::span<const Rule> NormalizationRules();
std::span<const Rule> LossRules();
std::span<const Rule> ConstantRules();
std::span<const Rule> ControlRules();
std::span<const Rule> QuantizeRules();
std::span<const Rule> RecurrentRules();
std::span<const Rule> ResizeRules();
std::span<const Rule> DetectionRules();
std::span<const Rule> SignalRules();
std::span<const Rule> OptimizerRules();

const Rule* FindRule(std::string_view domain, std::string_view name);

}  // namespace lepton::onnx
