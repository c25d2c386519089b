// How good a model is on labelled rows, measured by the whole gang. The rows are cut into fixed
// blocks that are spread over the ranks, and every rank adds the blocks' figures in block order, so
// the result has the same bits for any number of ranks.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/base/status.h"
#include "runtime/nn/training_program.h"
#include "worker/train/prepared_data.h"

namespace lepton::worker {

struct Evaluation {
  int64_t rows = 0;
  double loss = 0;      // mean label loss
  double accuracy = 0;  // classification
  double mse = 0;       // loss mse: mean squared error and the coefficient of determination,
  double r2 = 0;        // 0 when all labels are equal
  std::vector<int64_t> class_rows, class_correct;  // classification, by class

  // "<prefix>/loss" and "<prefix>/accuracy", or "<prefix>/mse" and "<prefix>/r2". None without
  // rows.
  void AddTo(const std::string& prefix, std::map<std::string, double>& metrics) const;
};

// Over the first `max_rows` rows of the part. Collective: all ranks call it with the same weights
// and rows, and all get the same answer. An error on this rank aborts the gang.
Result<Evaluation> Evaluate(nn::TrainingProgram& program, const DataPart& part, int64_t max_rows,
                            collectives::Communicator& gang);

// Ends the gang's pending calls on every rank with this rank's error, and hands it back. For errors
// that the other ranks do not know of.
Status AbortGang(collectives::Communicator& gang, Status cause);

// The class that logits [outputs] stand for; with one output, class 1 from 0 on (a probability of
// one half).
int32_t PredictedClass(std::span<const float> logits);

}  // namespace lepton::worker
