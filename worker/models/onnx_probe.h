// Whether a model of texts that came as ONNX can be asked as jobs ask: texts are padded behind
// their end to a few lengths, and a language model's answer is what follows each token.
#pragma once

#include "runtime/nn/model_list.h"
#include "runtime/nn/weights.h"

namespace lepton::worker {

// Asks the model for two texts, padded and not. kFailedPrecondition: the padding is part of an
// answer, or a language model sees the tokens that it is to tell. `data`: as the model's
// examination found it, of kind kTokens.
Status ProbeTexts(const spec::ModelSpec& model, const nn::DataShape& data,
                  const nn::SourceTensors& weights);

}  // namespace lepton::worker
