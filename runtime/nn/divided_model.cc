#include "runtime/nn/divided_model.h"

#include <cmath>
#include <limits>

#include "runtime/nn/optimizers.h"

namespace lepton::nn {

std::vector<ParameterView> WholeParameters(const std::vector<ParameterView>& parameters) {
  std::vector<ParameterView> whole = parameters;
  int64_t trained = 0, statistics = 0;
  for (ParameterView& view : whole) {
    view.shape = WholeShape(view.shape, view.slice);
    if (view.slice.cut()) view.size *= view.slice.place.ranks;
    view.slice = {};
    int64_t& end = view.statistic ? statistics : trained;
    view.offset = end;
    end += view.size;
  }
  for (ParameterView& view : whole) view.offset += view.statistic ? trained : 0;
  return whole;
}

double NormOverRanks(const std::vector<ParameterView>& parameters, const TensorPlace& place,
                     std::span<const float> gradients, graph::TensorGroup& group) {
  struct Squares {
    double undivided = 0, slices = 0;
  };
  Squares mine;
  for (const ParameterView& view : parameters) {
    if (view.statistic) continue;
    double& sum = view.slice.cut() ? mine.slices : mine.undivided;
    const auto values =
        gradients.subspan(static_cast<size_t>(view.offset), static_cast<size_t>(view.size));
    for (const double block : SquaresOfBlocks(values)) sum += block;
  }
  std::vector<Squares> all(static_cast<size_t>(place.ranks));
  group.AllGather(&mine, all.data(), sizeof(Squares));
  if (!group.status().ok()) return std::numeric_limits<double>::quiet_NaN();
  double sum = all[0].undivided;
  for (const Squares& its : all) sum += its.slices;
  return std::sqrt(sum);
}

}  // namespace lepton::nn
