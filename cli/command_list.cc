#include "cli/command.h"

namespace lepton::cli {

const std::vector<Command>& Commands() {
  static const std::vector<Command> commands = {
      {"run", AddRun},
      {"coordinator", AddCoordinator},
      {"worker", AddWorker},
      {"submit", AddSubmit},
      {"ps", AddPs},
      {"describe", AddDescribe},
      {"logs", AddLogs},
      {"watch", AddWatch},
      {"fetch", AddFetch},
      {"cancel", AddCancel},
      {"data", AddData},
      {"model", AddModel},
      {"deploy", AddDeploy},
      {"predict", AddPredict},
      {"key", AddKey},
      {"doctor", AddDoctor},
      {"completion", AddCompletion},
      {"task", AddTask},
  };
  return commands;
}

}  // namespace lepton::cli
