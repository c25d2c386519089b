#include "cli/command.h"
#include "worker/task_context.h"
#include "worker/task_process.h"

namespace lepton::cli {

// What an agent starts; not for people, so in no group of --help.
void AddTask(CLI::App& app, Globals& globals) {
  auto options = std::make_shared<worker::TaskProcessOptions>();
  auto id = std::make_shared<std::string>();
  auto data_dir = std::make_shared<std::string>();
  CLI::App* command =
      AddAction(app, globals, "task", "Run one task (started by a worker)", [options, data_dir] {
        options->data_dir = *data_dir;
        return worker::RunTaskProcess(*options, worker::TaskKinds());
      });
  command->group("");
  command->add_option("--task", *id, "The task's id, for ps(1)");
  command->add_option("--fd", options->fd, "Socket to the agent");
  command->add_option("--data-dir", *data_dir, "The agent's object store");
  command->add_option("--bind", options->bind_address, "Address of the gang's data plane");
}

}  // namespace lepton::cli
