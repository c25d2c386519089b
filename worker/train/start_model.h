// What a training takes over from the model that it starts from: its architecture, how pictures
// become its input, its weights, the files that belong to it.
// Threads: pure functions.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "runtime/nn/training_program.h"
#include "runtime/spec/job_spec.h"
#include "worker/data/prepared_data.h"
#include "worker/train/model_files.h"

namespace lepton::worker {

// The spec's architecture; where it says nothing but what to start from, that model's, with a head
// for what it is trained for.
spec::ModelSpec ChooseModel(const spec::ModelSpec& wanted, const std::optional<StoredModel>& from);

// Files of pictures become what the model's body has learned to see, where the spec does not say
// otherwise.
spec::DatasetSpec ChoosePictures(const spec::DatasetSpec& wanted,
                                 const std::optional<StoredModel>& from);

// The model's weights into the program: all of them, or those of its body, below a head that begins
// anew where the model has none for these classes. `leader` logs what began anew.
// kInvalidArgument names the parameter that does not fit.
Status StartFrom(const StoredModel& from, const PreparedData& data, bool leader,
                 nn::TrainingProgram& program);

// The graph of an imported model, its config, its tokenizer; not its weights.
std::map<std::string, storage::Digest> KeptFiles(const StoredModel& from);

}  // namespace lepton::worker
