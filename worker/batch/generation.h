// Text that goes on from given texts, token by token. Where the model can, keys and values of what
// is there are kept (runtime/nn/decoding_program.h), and a text that ends makes room for the next;
// else each token is a forward pass over all that is there so far. Both give the same tokens.
// Threads: one caller.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/spec/job_spec.h"
#include "worker/infer/model_runtime.h"

namespace lepton::worker {

// So many read the weights at the cost of one.
inline constexpr int64_t kTextsAtOnce = 64;

// Where each token computes all of its text: so many of up to `tokens` tokens, each of which has
// `outputs` numbers.
int64_t WholeTextsAtOnce(int64_t tokens, int64_t outputs);

// Asked every few tokens, with the share of the work that is done; its error ends it.
using GoOnWriting = std::function<Status(double done)>;

// The tokens that follow each prompt, until the tokenizer's end of text or `max_tokens`. Behind the
// model's context the earliest tokens are left out, one for each that is added, and all that is
// left is computed anew. With a temperature, token t of prompt i is drawn by a counter of (seed,
// numbers[i], t), so that it does not depend on which prompts share a batch. An empty prompt counts
// as the id 0.
Result<std::vector<std::vector<uint32_t>>> Generate(LoadedModel& model,
                                                    std::span<const std::vector<int32_t>> prompts,
                                                    std::span<const int64_t> numbers,
                                                    const spec::GenerateSpec& options,
                                                    const GoOnWriting& go_on = {});

// The next token by its logits: the likeliest for temperature 0, else where `draw`, in [0, 1),
// falls among softmax(logits / temperature).
uint32_t ChooseToken(std::span<const float> logits, double temperature, double draw);

}  // namespace lepton::worker
