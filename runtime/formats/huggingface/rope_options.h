// Rotary positions in a config.json: rope_theta, rope_scaling or the newer rope_parameters, and
// original_max_position_embeddings. Private to this folder. Threads: pure functions.
#pragma once

#include "runtime/base/json.h"
#include "runtime/formats/huggingface/config_fields.h"
#include "runtime/spec/model_spec.h"

namespace lepton::huggingface {

// `model` has its other sizes already. Errors are those of `fields`.
void ReadRopeOptions(ConfigFields& fields, spec::TransformerSpec& model);

// The options, in the form that old and new public code reads.
nlohmann::json RopeOptions(const spec::RopeSpec& rope);

}  // namespace lepton::huggingface
