#include "cli/command.h"

#include <cstdio>

namespace lepton::cli {

int Fail(const Status& status) {
  std::fprintf(stderr, "lepton: %s\n", status.message().c_str());
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
      return kExitUsage;
    case StatusCode::kCancelled:
      return kExitCancelled;
    default:
      return kExitFailed;
  }
}

CLI::App* AddAction(CLI::App& app, Globals& globals, const std::string& name,
                    const std::string& description, std::function<int()> run) {
  CLI::App* command = app.add_subcommand(name, description);
  command->fallthrough();
  command->callback([&globals, run = std::move(run)] {
    // A nested verb's callback runs before its parent's: the innermost wins.
    if (!globals.action) globals.action = run;
  });
  return command;
}

}  // namespace lepton::cli
