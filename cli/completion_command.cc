#include <cstdio>

#include "cli/command.h"

namespace lepton::cli {
namespace {

std::string Words(const CLI::App& app) {
  std::string words;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!sub->get_group().empty()) words += sub->get_name() + " ";
  }
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) words += "--" + name + " ";
  }
  return words;
}

// Completes verbs and options from the parser itself, so that it cannot fall behind.
int Print(const CLI::App& app, const std::string& shell) {
  if (shell == "zsh") std::printf("autoload -U +X bashcompinit && bashcompinit\n");
  std::printf("_lepton() {\n  local verb=\"${COMP_WORDS[1]}\" words=\"\"\n  case \"$verb\" in\n");
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (sub->get_group().empty()) continue;
    std::printf("    %s) words=\"%s\" ;;\n", sub->get_name().c_str(), Words(*sub).c_str());
  }
  std::printf(
      "  esac\n  if [ \"$COMP_CWORD\" -eq 1 ]; then words=\"%s\"; fi\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
      "  [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
      "}\ncomplete -F _lepton lepton\n",
      Words(app).c_str());
  return kExitOk;
}

}  // namespace

void AddCompletion(CLI::App& app, Globals& globals) {
  auto shell = std::make_shared<std::string>("bash");
  CLI::App* command =
      AddAction(app, globals, "completion", "Print shell completion: eval \"$(lepton completion)\"",
                [&app, shell] { return Print(app, *shell); });
  command->add_option("shell", *shell, "bash or zsh")->check(CLI::IsMember({"bash", "zsh"}));
}

}  // namespace lepton::cli
