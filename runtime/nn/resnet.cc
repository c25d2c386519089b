#include "runtime/nn/resnet.h"

namespace lepton::nn {
namespace {

using graph::ValueId;

constexpr int64_t kSmallImage = 64;  // pixels; up to here a stem of 7x7 and a pool sees too little
constexpr int64_t kBottleneck = 4;   // how much narrower its 3x3 is

Status ResnetField(const std::string& field, const std::string& what) {
  return InvalidArgument("model." + field + ": " + what);
}

class ResnetBuilder {
 public:
  ResnetBuilder(ModelBuilder& builder, const spec::ModelSpec& model)
      : b_(builder), model_(model), r_(model.resnet) {}

  // The features [batch, width] of images.
  Result<ValueId> Body(ValueId pixels);

 private:
  struct Convolution {
    int64_t in, out, kernel, stride;
    bool activation = true;
  };
  Result<ValueId> Stem(ValueId pixels);
  Result<ValueId> Block(const std::string& name, ValueId x, int64_t in, int64_t out,
                        int64_t stride);
  Result<ValueId> ConvNorm(const std::string& name, ValueId x, const Convolution& conv);
  Result<ValueId> BatchNorm(const std::string& name, ValueId x, int64_t channels);

  ModelBuilder& b_;
  const spec::ModelSpec& model_;
  const spec::ResnetSpec& r_;
};

Result<ValueId> ResnetBuilder::BatchNorm(const std::string& name, ValueId x, int64_t channels) {
  const Shape shape({channels});
  const ValueId gain = b_.Parameter(name + ".weight", shape, FirstValues::Constant(1));
  const ValueId bias = b_.Parameter(name + ".bias", shape, FirstValues::Constant(0));
  const double momentum = r_.statistics_momentum;
  const ValueId mean =
      b_.Statistic(name + ".running_mean", shape, FirstValues::Constant(0), momentum);
  const ValueId variance =
      b_.Statistic(name + ".running_var", shape, FirstValues::Constant(1), momentum);
  // Momentum 1: the outputs are what this micro-batch says; the program moves the running values.
  LEPTON_ASSIGN_OR_RETURN(
      const std::vector<ValueId> outputs,
      b_.graph().AddNode("batch_norm", {x, gain, bias, mean, variance},
                         {{"training", int64_t{b_.training()}}, {"momentum", 1.0}}, name));
  b_.SetStatistic(mean, outputs[1]);
  b_.SetStatistic(variance, outputs[2]);
  return outputs[0];
}

Result<ValueId> ResnetBuilder::ConvNorm(const std::string& name, ValueId x,
                                        const Convolution& conv) {
  const int64_t k = conv.kernel;
  const ValueId weight = b_.Parameter(name + ".convolution.weight", {conv.out, conv.in, k, k},
                                      FirstValues::ConvolutionFanOut(conv.out, k * k));
  const int64_t pad = k / 2;
  LEPTON_ASSIGN_OR_RETURN(x, b_.Conv2d(name, x, weight,
                                       {{"strides", std::vector<int64_t>{conv.stride, conv.stride}},
                                        {"pads", std::vector<int64_t>{pad, pad, pad, pad}}}));
  // All that is kept for the backward pass is as narrow as what the convolutions take.
  LEPTON_ASSIGN_OR_RETURN(x, b_.Narrow(x));
  LEPTON_ASSIGN_OR_RETURN(x, BatchNorm(name + ".normalization", x, conv.out));
  return conv.activation ? b_.Activation(model_.activation, name, x) : x;
}

Result<ValueId> ResnetBuilder::Stem(ValueId pixels) {
  const std::string name = "resnet.embedder.embedder";
  const bool small = r_.stem == "small";
  LEPTON_ASSIGN_OR_RETURN(ValueId x, ConvNorm(name, pixels,
                                              {.in = model_.image.channels,
                                               .out = r_.stem_width,
                                               .kernel = small ? 3 : 7,
                                               .stride = small ? 1 : 2}));
  if (small) return x;
  LEPTON_ASSIGN_OR_RETURN(x, b_.Widen(x));
  return b_.graph().Add("max_pool2d", {x},
                        {{"kernel", std::vector<int64_t>{3, 3}},
                         {"strides", std::vector<int64_t>{2, 2}},
                         {"pads", std::vector<int64_t>{1, 1, 1, 1}}},
                        "resnet.embedder.pooler");
}

Result<ValueId> ResnetBuilder::Block(const std::string& name, ValueId x, int64_t in, int64_t out,
                                     int64_t stride) {
  LEPTON_ASSIGN_OR_RETURN(x, b_.Narrow(x));
  ValueId residual = x;
  if (in != out || stride != 1) {
    LEPTON_ASSIGN_OR_RETURN(residual, ConvNorm(name + "shortcut", x, {in, out, 1, stride, false}));
  }
  const std::string layer = name + "layer.";
  if (r_.block == "bottleneck") {
    const int64_t inner = out / kBottleneck;
    LEPTON_ASSIGN_OR_RETURN(x, ConvNorm(layer + "0", x, {in, inner, 1, 1}));
    LEPTON_ASSIGN_OR_RETURN(x, ConvNorm(layer + "1", x, {inner, inner, 3, stride}));
    LEPTON_ASSIGN_OR_RETURN(x, ConvNorm(layer + "2", x, {inner, out, 1, 1, false}));
  } else {
    LEPTON_ASSIGN_OR_RETURN(x, ConvNorm(layer + "0", x, {in, out, 3, stride}));
    LEPTON_ASSIGN_OR_RETURN(x, ConvNorm(layer + "1", x, {out, out, 3, 1, false}));
  }
  LEPTON_ASSIGN_OR_RETURN(x, b_.graph().Add("add", {x, residual}));
  return b_.Activation(model_.activation, name + "block", x);
}

Result<ValueId> ResnetBuilder::Body(ValueId pixels) {
  LEPTON_ASSIGN_OR_RETURN(ValueId x, Stem(pixels));
  int64_t in = r_.stem_width;
  for (size_t stage = 0; stage < r_.depths.size(); ++stage) {
    for (int64_t block = 0; block < r_.depths[stage]; ++block) {
      const std::string name = "resnet.encoder.stages." + std::to_string(stage) + ".layers." +
                               std::to_string(block) + ".";
      const int64_t stride = stage > 0 && block == 0 ? 2 : 1;
      b_.graph().BeginBlock();
      LEPTON_ASSIGN_OR_RETURN(x, Block(name, x, in, r_.widths[stage], stride));
      in = r_.widths[stage];
    }
  }
  b_.graph().EndBlock();
  LEPTON_ASSIGN_OR_RETURN(x, b_.Widen(x));
  const Shape& shape = b_.graph().type(x).shape;
  LEPTON_ASSIGN_OR_RETURN(
      x, b_.graph().Add("reshape", {x},
                        {{"shape", std::vector<int64_t>{Shape::kBatch, in, shape[2] * shape[3]}}}));
  return b_.graph().Add("reduce", {x}, {{"axis", int64_t{2}}, {"kind", "mean"}}, "resnet.pooler");
}

}  // namespace

Status ResolveImage(int64_t channels, int64_t height, int64_t width, spec::ImageSpec& image) {
  struct Size {
    const char* field;
    int64_t data;
    int64_t& size;
  };
  for (const Size& s :
       {Size{"image.channels", channels, image.channels},
        Size{"image.height", height, image.height}, Size{"image.width", width, image.width}}) {
    if (s.size == 0) s.size = s.data;
    if (s.size < 1) return ResnetField(s.field, "missing: the data does not say it");
    if (s.data > 0 && s.data != s.size) {
      return ResnetField(s.field,
                         std::to_string(s.size) + " is not the data's " + std::to_string(s.data));
    }
  }
  return Status::Ok();
}

Signature ImageSignature(const spec::ImageSpec& image, int64_t outputs) {
  return {{{"pixels", {DType::kF32, {Shape::kBatch, image.channels, image.height, image.width}}}},
          outputs};
}

Result<spec::ModelSpec> ResolveResnet(const spec::ModelSpec& model, int64_t channels,
                                      int64_t height, int64_t width) {
  spec::ModelSpec resolved = model;
  spec::ResnetSpec& r = resolved.resnet;
  LEPTON_RETURN_IF_ERROR(ResolveImage(channels, height, width, resolved.image));
  if (r.stem == "auto") {
    const bool small = std::max(resolved.image.height, resolved.image.width) <= kSmallImage;
    r.stem = small ? "small" : "standard";
  }
  if (r.stem != "small" && r.stem != "standard") {
    return ResnetField("stem", "'" + r.stem + "' is unknown: must be auto, standard or small");
  }
  if (r.block != "basic" && r.block != "bottleneck") {
    return ResnetField("block", "'" + r.block + "' is unknown: must be basic or bottleneck");
  }
  if (r.widths.empty() || r.widths.size() != r.depths.size()) {
    return ResnetField("widths", "has " + std::to_string(r.widths.size()) + " stages, depths has " +
                                     std::to_string(r.depths.size()) +
                                     ": must be as many, and at least one");
  }
  for (const int64_t stage_width : r.widths) {
    if (r.block == "bottleneck" && stage_width % kBottleneck != 0) {
      return ResnetField("widths", std::to_string(stage_width) + " must be a multiple of 4");
    }
  }
  if (resolved.head != "auto" && resolved.head != "none") {
    return ResnetField("head", "'" + resolved.head + "' is unknown: must be auto or none");
  }
  return resolved;
}

Result<ValueId> BuildResnet(ModelBuilder& builder, const Signature& signature,
                            const spec::ModelSpec& model, std::span<const ValueId> inputs) {
  LEPTON_ASSIGN_OR_RETURN(const spec::ModelSpec resolved, ResolveResnet(model, 0, 0, 0));
  if (inputs.size() != 1 || signature.inputs[0].type.shape.rank() != 4) {
    return InvalidArgument("model.arch: " + model.arch + " takes images only");
  }
  LEPTON_ASSIGN_OR_RETURN(ValueId x, ResnetBuilder(builder, resolved).Body(inputs[0]));
  const int64_t features = resolved.resnet.widths.back();
  if (resolved.head == "none") {
    if (signature.outputs == features) return x;
    return ResnetField("head", "none gives " + std::to_string(features) + " outputs; not " +
                                   std::to_string(signature.outputs));
  }
  builder.BeginHead();
  LEPTON_ASSIGN_OR_RETURN(x, builder.Dropout("head", x, resolved.dropout));
  return builder.Linear("classifier.1", x,
                        {.in = features,
                         .out = signature.outputs,
                         .transposed = true,
                         .first = FirstValues::Xavier(features, signature.outputs)});
}

}  // namespace lepton::nn
