#include "scheduler/core/best_trial.h"

#include <tuple>

namespace lepton::scheduler {

int BestTrial(const Job& job, bool maximize) {
  const auto rank = [maximize](const Trial& trial) {
    return std::tuple(trial.state() != TRIAL_FAILED, maximize ? trial.value() : -trial.value(),
                      trial.reached());
  };
  int best = -1;
  for (const Trial& trial : job.trials()) {
    if (!trial.has_value() || trial.result().model_manifest().empty()) continue;
    if (best < 0 || rank(trial) > rank(job.trials(best))) best = trial.index();
  }
  return best;
}

}  // namespace lepton::scheduler
