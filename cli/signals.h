// SIGINT and SIGTERM as something to wait for. Make one before any thread starts: the signals are
// then blocked in every thread, and read here.
#pragma once

#include "runtime/base/clock.h"
#include "runtime/base/file.h"

namespace lepton::cli {

class StopSignals {
 public:
  StopSignals();
  // True once a signal has come; waits for one at most until `deadline`.
  // poll(2) counts milliseconds in an int, so a long wait is one of slices.
  bool Wait(Deadline deadline, int slice_ms = 1 << 30);
  bool stopped() const { return stopped_; }

 private:
  UniqueFd fd_;
  bool stopped_ = false;
};

}  // namespace lepton::cli
