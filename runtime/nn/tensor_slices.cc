#include "runtime/nn/tensor_slices.h"

#include <algorithm>
#include <numeric>

#include "runtime/base/logging.h"

namespace lepton::nn {

std::vector<int64_t> WholeShape(const std::vector<int64_t>& part, const TensorSlice& slice) {
  std::vector<int64_t> whole = part;
  if (slice.cut()) whole[static_cast<size_t>(slice.axis)] *= slice.place.ranks;
  return whole;
}

void ForEachRun(const std::vector<int64_t>& part, const TensorSlice& slice, const SliceRun& run) {
  const auto product = [](auto begin, auto end) {
    return std::accumulate(begin, end, int64_t{1}, std::multiplies<>());
  };
  if (!slice.cut()) return run(0, 0, product(part.begin(), part.end()));
  const auto axis = part.begin() + slice.axis;
  const int64_t outer = product(part.begin(), axis), inner = product(axis + 1, part.end());
  const int64_t extent = *axis * slice.place.ranks;
  int64_t in_part = 0;
  for (int64_t row = 0; row < outer; ++row) {
    int64_t section_begin = 0;
    for (const int64_t section : slice.sections) {
      const int64_t mine = section / slice.place.ranks;
      const int64_t begin = section_begin + slice.place.rank * mine;
      run((row * extent + begin) * inner, in_part, mine * inner);
      in_part += mine * inner;
      section_begin += section;
    }
  }
}

void TakePart(const std::vector<int64_t>& shape, const TensorSlice& slice,
              std::span<const float> whole, std::span<float> part) {
  TakePartOf(shape, slice, 0, whole, part);
}

void TakePartOf(const std::vector<int64_t>& shape, const TensorSlice& slice, int64_t begin,
                std::span<const float> values, std::span<float> part) {
  const int64_t end = begin + static_cast<int64_t>(values.size());
  ForEachRun(shape, slice, [&](int64_t in_whole, int64_t in_part, int64_t count) {
    const int64_t from = std::max(begin, in_whole), to = std::min(end, in_whole + count);
    if (from >= to) return;
    std::copy(values.begin() + (from - begin), values.begin() + (to - begin),
              part.begin() + in_part + (from - in_whole));
  });
}

std::vector<float> GatherWhole(graph::TensorGroup* group, const std::vector<int64_t>& shape,
                               const TensorSlice& slice, std::span<const float> part) {
  if (!slice.cut()) return {part.begin(), part.end()};
  CHECK(group != nullptr) << "the other parts are with others";
  const auto ranks = static_cast<size_t>(slice.place.ranks);
  std::vector<float> parts(part.size() * ranks), whole(part.size() * ranks);
  group->AllGather(part.data(), parts.data(), part.size_bytes());
  for (size_t rank = 0; rank < ranks; ++rank) {
    TensorSlice its = slice;
    its.place.rank = static_cast<int>(rank);
    const float* const from = parts.data() + rank * part.size();
    ForEachRun(shape, its, [&](int64_t in_whole, int64_t in_part, int64_t count) {
      std::copy_n(from + in_part, count, whole.begin() + in_whole);
    });
  }
  return whole;
}

}  // namespace lepton::nn
