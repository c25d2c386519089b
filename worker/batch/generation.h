// Text that goes on from given texts, token by token. Simple: each token is a forward pass over all
// that is there so far, without a cache of keys and values.
// Threads: one caller.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/spec/job_spec.h"
#include "worker/infer/model_runtime.h"

namespace lepton::worker {

// The tokens that follow each prompt, until the tokenizer's end of text or `max_tokens`. Behind the
// model's context the earliest tokens are left out. With a temperature, token t of prompt i is
// drawn by a counter of (seed, numbers[i], t), so that it does not depend on which prompts share a
// batch. An empty prompt counts as the id 0.
Result<std::vector<std::vector<uint32_t>>> Generate(LoadedModel& model,
                                                    std::span<const std::vector<int32_t>> prompts,
                                                    std::span<const int64_t> numbers,
                                                    const spec::GenerateSpec& options);

// The next token by its logits: the likeliest for temperature 0, else where `draw`, in [0, 1),
// falls among softmax(logits / temperature).
uint32_t ChooseToken(std::span<const float> logits, double temperature, double draw);

}  // namespace lepton::worker
