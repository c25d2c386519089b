// glog with one line format on all processes:
//   I 2026-11-21T08:59:08.123Z coordinator[4242] file.cc:17] message
// Use LOG(INFO), LOG(WARNING), LOG(ERROR), VLOG(n) from <glog/logging.h>; CHECK is for our own bugs
// only, never for input.
#pragma once

#include <glog/logging.h>

#include <string>

namespace lepton {

struct LoggingOptions {
  std::string role = "lepton";  // coordinator, worker, task j1.a1.r0, cli
  int min_level = 0;            // 0 info, 1 warning, 2 error
  int verbosity = 0;            // VLOG level
};

// Call once per process, before any LOG. Lines go to standard error, unbuffered.
void InitLogging(const LoggingOptions& options);

}  // namespace lepton
