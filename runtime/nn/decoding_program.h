// A language model that writes on texts token by token: keys and values of what is there are kept,
// so that a token costs one row of each product and one reading of the cache, however long its text
// (Pope et al. 2022, "Efficiently scaling transformer inference", section 2).
//
// The logits are, bit by bit, those that InferenceProgram::Forward gives for the same tokens, in
// whatever steps they came and whatever other texts are computed along
// (runtime/ops/cached_attention.h).
//
// A text has a slot of memory for `context` tokens, which is reserved but takes memory only as the
// text grows (Prabhu et al. 2024, "vAttention"); a slot that is used again keeps what it took.
// Ownership: the program that made it, and its weights, must outlive it, and the two never run at
// the same time. Threads: one caller; kernels use ThreadPool::Compute().
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "runtime/base/status.h"

namespace lepton::nn {

class DecodingProgram {
 public:
  struct Options {
    int64_t slots = 1;
    int64_t context = 0;  // tokens of a text, at most the model's
    // There are fewer slots, at least one, where all of them full would take more.
    int64_t most_bytes = int64_t{1} << 62;
  };
  virtual ~DecodingProgram() = default;

  // `slots` is how many there are.
  virtual const Options& options() const = 0;
  // What a token takes in the cache.
  virtual int64_t bytes_per_token() const = 0;
  // Tokens that the slot has.
  virtual int64_t length(int64_t slot) const = 0;
  // Keeps the first `length` tokens: 0 for a new text.
  virtual void Truncate(int64_t slot, int64_t length) = 0;

  struct Extension {
    int64_t slot = 0;
    std::span<const int32_t> tokens;  // at least one
  };
  // Adds tokens to the texts of these slots, which are all different. logits [extensions, outputs]:
  // of what follows the last token of each. kInvalidArgument, and nothing is added, for a slot that
  // there is not, an id that the vocabulary has not, or a text that becomes longer than `context`.
  virtual Status Extend(std::span<const Extension> extensions, std::span<float> logits) = 0;
};

}  // namespace lepton::nn
