#include "worker/train/model_check.h"

#include <algorithm>
#include <initializer_list>

#include "runtime/nn/model_list.h"

namespace lepton::worker {
namespace {

constexpr int64_t kAnyCount = 256;

int64_t FirstKnown(std::initializer_list<int64_t> sizes) {
  return *std::find_if(sizes.begin(), sizes.end() - 1, [](int64_t size) { return size > 0; });
}

}  // namespace

Status CheckModel(const spec::ModelSpec& model, const KnownData& data) {
  nn::DataShape shape;
  shape.outputs = 2;
  if (data.kind == "images") {
    const int64_t any_side = model.vit.patch > 0 ? 4 * model.vit.patch : 32;
    shape.kind = nn::DataShape::Kind::kImages;
    shape.channels = FirstKnown({data.channels, model.image.channels, 3});
    shape.height = FirstKnown({data.height, model.image.height, any_side});
    shape.width = FirstKnown({data.width, model.image.width, any_side});
  } else if (data.kind == "tokens") {
    shape.kind = nn::DataShape::Kind::kTokens;
    shape.vocabulary = FirstKnown({model.transformer.vocabulary, kAnyCount});
    shape.context = FirstKnown({model.transformer.context, kAnyCount});
  } else {
    shape.features = data.features;
  }
  // Nothing of an mlp is left to the data: what it takes shows in its signature.
  if (model.arch == "mlp") return nn::MakeSignature(model, shape).status();
  return nn::ResolveModel(model, shape).status();
}

}  // namespace lepton::worker
