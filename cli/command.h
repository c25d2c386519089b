// The command line's frame: global options, and the list of verbs. A verb is one function that adds
// its subcommand to the parser; parsing chooses the action, main runs it.
// Exit status: 0 done; 1 it failed; 2 bad usage or a refused input; 3 a job that was cancelled.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <string>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitCancelled = 3;

struct Globals {
  std::string coordinator;  // URL; "" until resolved by ApiClient::FromGlobals
  std::string context;      // of ~/.config/lepton/config.yaml
  std::string api_key;
  std::string ca_file;
  std::string output = "table";  // table | json | yaml
  int verbosity = 0;
  std::function<int()> action;  // set by the verb that was parsed
};

using AddCommand = void (*)(CLI::App& app, Globals& globals);
struct Command {
  const char* name;
  AddCommand add;
};
// All verbs, in the order of --help: command_list.cc.
const std::vector<Command>& Commands();

// Prints "lepton: message" to standard error and gives the exit status for it.
int Fail(const Status& status);

// Adds a subcommand whose action is `run`, called after parsing.
CLI::App* AddAction(CLI::App& app, Globals& globals, const std::string& name,
                    const std::string& description, std::function<int()> run);

// Each verb's function.
void AddCompletion(CLI::App& app, Globals& globals);
void AddCoordinator(CLI::App& app, Globals& globals);
void AddWorker(CLI::App& app, Globals& globals);
void AddRun(CLI::App& app, Globals& globals);
void AddSubmit(CLI::App& app, Globals& globals);
void AddPs(CLI::App& app, Globals& globals);
void AddDescribe(CLI::App& app, Globals& globals);
void AddLogs(CLI::App& app, Globals& globals);
void AddWatch(CLI::App& app, Globals& globals);
void AddFetch(CLI::App& app, Globals& globals);
void AddCancel(CLI::App& app, Globals& globals);
void AddDeploy(CLI::App& app, Globals& globals);
void AddPredict(CLI::App& app, Globals& globals);
void AddData(CLI::App& app, Globals& globals);
void AddModel(CLI::App& app, Globals& globals);
void AddKey(CLI::App& app, Globals& globals);
void AddDoctor(CLI::App& app, Globals& globals);
void AddTask(CLI::App& app, Globals& globals);

}  // namespace lepton::cli
