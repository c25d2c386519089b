// Rows as a request brings them, before the model's normalisation: of numbers, or texts.
// Threads: plain values.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/data/text_rows.h"

namespace lepton::worker {

struct ModelRows {
  int64_t rows = 0;
  std::vector<double> raw;       // [rows, numbers a row], NaN where missing; none for texts
  std::vector<TokenText> texts;  // one a row; none for numbers

  // Adds another request's rows, of the same kind.
  void Append(const ModelRows& other) {
    rows += other.rows;
    raw.insert(raw.end(), other.raw.begin(), other.raw.end());
    texts.insert(texts.end(), other.texts.begin(), other.texts.end());
  }
  // Rows [begin, begin + count).
  ModelRows Slice(int64_t begin, int64_t count) const {
    ModelRows slice{count, {}, {}};
    if (!texts.empty()) {
      slice.texts.assign(texts.begin() + begin, texts.begin() + begin + count);
    } else {
      const int64_t width = static_cast<int64_t>(raw.size()) / rows;
      slice.raw.assign(raw.begin() + begin * width, raw.begin() + (begin + count) * width);
    }
    return slice;
  }
};

}  // namespace lepton::worker
