// How good a model is on labelled examples, measured by the whole gang. The examples are cut into
// fixed blocks that are spread over the ranks, and every rank adds the blocks' figures in block
// order, so the result has the same bits for any number of ranks.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/base/status.h"
#include "runtime/nn/training_program.h"
#include "worker/data/examples.h"

namespace lepton::worker {

struct Evaluation {
  enum class Kind : uint8_t { kClasses, kValues, kTokens };
  Kind kind = Kind::kClasses;
  int64_t rows = 0;
  int64_t tokens = 0;   // kTokens: predicted ones
  double loss = 0;      // mean label loss: of rows, or of tokens
  double accuracy = 0;  // kClasses, kTokens
  double mse = 0;       // kValues: mean squared error and the coefficient of determination,
  double r2 = 0;        // 0 when all labels are equal
  std::vector<int64_t> class_rows, class_correct;  // kClasses, by class

  // e^loss, the perplexity of a language model.
  double perplexity() const;
  // "<prefix>/loss" and "<prefix>/accuracy", "<prefix>/mse" and "<prefix>/r2", or "<prefix>/loss",
  // "<prefix>/perplexity" and "<prefix>/accuracy". None without rows.
  void AddTo(const std::string& prefix, std::map<std::string, double>& metrics) const;
};

// Over the first `max_rows` examples. Collective: all ranks call it with the same weights and
// examples, and all get the same answer. An error on this rank aborts the gang.
Result<Evaluation> Evaluate(nn::TrainingProgram& program, const Examples& examples,
                            int64_t max_rows, collectives::Communicator& gang);

// Examples to compute at once: what their inputs and logits need stays within tens of megabytes.
// Depends on the data and the model alone.
int64_t BlockRows(const Examples& examples, const nn::Signature& signature);

// Ends the gang's pending calls on every rank with this rank's error, and hands it back. For errors
// that the other ranks do not know of.
Status AbortGang(collectives::Communicator& gang, Status cause);

// The class that logits [outputs] stand for; with one output, class 1 from 0 on (a probability of
// one half).
int32_t PredictedClass(std::span<const float> logits);

}  // namespace lepton::worker
