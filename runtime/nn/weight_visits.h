// Weights that a program has only while it reads them (TrainingProgram::VisitWeights). They come in
// buckets: runs of neighbours in the flat buffer of at least a given size, so that small tensors
// travel together. A step that is about to read parameters asks for theirs; what was used longest
// ago goes when there are more than two buckets' worth of others. Each pass begins with none, so
// which buckets come, and in which order, follows from the model alone: all ranks of a gang ask for
// the same ones. A pass is foreseen as a whole, so that each bucket can be on its way while the
// one before it is read.
// Ownership: owns the memory; the source outlives it, or is taken away. Threads: one caller.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/nn/training_program.h"
#include "runtime/tensor/buffer.h"

namespace lepton::nn {

class WeightVisits {
 public:
  WeightVisits(const std::vector<ParameterView>& parameters, int64_t bucket_bytes);

  // Null: there is nobody to ask.
  void SetSource(WeightSource* source) { source_ = source; }
  WeightSource* source() const { return source_; }

  // A pass begins, in which `walk` calls what it is given with the parameters that each step is
  // about to need.
  using Step = std::function<void(std::span<const size_t> parameters)>;
  void Begin(const std::function<void(const Step&)>& walk);
  // Makes these parameters readable, at place(), until the next call. False when they cannot be
  // had; status() says why, and the pass is over.
  bool Need(std::span<const size_t> parameters);
  float* place(size_t parameter);
  const Status& status() const { return status_; }

  // The most that was held at once.
  size_t most_bytes() const { return most_bytes_; }

 private:
  struct Bucket {
    int64_t begin = 0, end = 0;  // elements
    size_t bytes() const { return static_cast<size_t>(end - begin) * sizeof(float); }
  };
  struct Guest {
    size_t bucket = 0;
    uint64_t used = 0;
    Buffer data;
  };
  using Arrives = std::function<void(size_t bucket)>;
  Guest* Find(size_t bucket);
  void Touch(std::span<const size_t> parameters, const Arrives& arrives);
  void Bring(size_t bucket);
  void ExpectNext();
  void MakeRoom(size_t bytes);
  void Leave(std::list<Guest>::iterator guest);
  Buffer Take(size_t bytes);
  size_t held_bytes() const;

  const std::vector<ParameterView>& parameters_;
  const int64_t bucket_bytes_;
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;  // by parameter; of statistics nothing
  WeightSource* source_ = nullptr;
  std::list<Guest> guests_;
  std::vector<Buffer> spares_;    // of guests that left
  uint64_t now_ = 0;              // counts calls of Touch
  std::vector<size_t> foreseen_;  // buckets, in the order of their coming in this pass
  size_t brought_ = 0;            // of them
  size_t most_bytes_ = 0;
  Status status_;
};

}  // namespace lepton::nn
