// Faults of a training rank on purpose, for tests alone: what no signal from outside can do to a
// process. Without LEPTON_TEST_TRAIN_FAULT in the task's environment it does nothing.
//   flip@17    before the reduction of step 17 one bit of one parameter flips
//   late@17    the same after the update of step 17
//   hang@17    the training thread stands still in step 17 for ever, while the process answers
//   stall@17   it stands still for ever behind step 17, where it does not compute
//   slow@17    step 17 takes three seconds more
//   nan@17     the first parameter is no number from step 17 on
//   fail@17    the computation of step 17 fails
//   gate@17:/tmp/gate   step 17 takes, moving all the while, until there is a file /tmp/gate;
//              /tmp/gate.reached says that it has come that far
//   commit:/tmp/hold   between the reduction of any step and its update the rank stands, moving
//              all the while, as long as there is a file /tmp/hold; /tmp/hold.reached says so
//   piece:/tmp/hold    the same of a rank that joins, with a piece of the state on its way to it
//              beside the step
//   slice:/tmp/hold    the same of a slice of a checkpoint, or a whole one, before its bytes are
//              written: steps go on beside it
//   device:/tmp/broken   the device has failed in any step that is computed while there is a file
//              /tmp/broken
// Several, with commas between them, are possible.
// LEPTON_TEST_BASELINE_FAULT is the same for a distillation's baseline.
// With local_sgd these are inner steps; flip and late are for the last of a round.
// Threads: the training thread, and Writing the one that writes checkpoints.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/nn/training_program.h"

namespace lepton::worker {

class TrainFaults {
 public:
  static TrainFaults FromEnvironment(const char* variable = "LEPTON_TEST_TRAIN_FAULT");
  // What it does not know does nothing.
  static TrainFaults Parse(const std::string& text);

  Status Computed(uint64_t step, nn::TrainingProgram& program) const;
  void Reduced() const { Hold(Kind::kCommit); }
  void StateArrives() const { Hold(Kind::kPiece); }
  void Writing() const { Hold(Kind::kSlice); }
  void Committed(uint64_t step, nn::TrainingProgram& program) const;

 private:
  enum class Kind {
    kNone,
    kFlip,
    kLate,
    kHang,
    kStall,
    kSlow,
    kNan,
    kFail,
    kGate,
    kCommit,
    kPiece,
    kSlice,
    kDevice
  };
  struct Fault {
    Kind kind = Kind::kNone;
    uint64_t step = 0;
    std::string file;  // the gate, what holds a rank, or what says that the device is broken
  };
  static Fault ParseOne(const std::string& text);
  static void WaitAtGate(const std::string& gate);
  void Hold(Kind at) const;
  static void Compute(const Fault& fault, nn::TrainingProgram& program);

  std::vector<Fault> faults_;
};

}  // namespace lepton::worker
