// Parses, wires and runs: every verb is a file of its own (command_list.cc).
#include <algorithm>
#include <cstdio>

#include "cli/command.h"
#include "runtime/base/descriptors.h"
#include "runtime/base/logging.h"
#include "runtime/spec/fields.h"

namespace {
constexpr char kAbout[] =
    "Lepton: one elastic pool of workers that trains, tunes, distils and serves models.\n"
    "\n"
    "  lepton run job.yaml                    one job on this machine, no server needed\n"
    "  mpirun -np 4 lepton run job.yaml       the same over four processes\n"
    "  lepton coordinator                     a pool that others submit to\n"
    "  mpirun -np 4 lepton worker             ... and its workers\n"
    "  lepton submit job.yaml --wait          a job on that pool\n"
    "  lepton deploy digits --model digits@1  a model behind HTTP\n";
// Below the help of every verb that has no examples of its own.
constexpr char kGlobal[] =
    "Global options go anywhere: -o table|json|yaml, --coordinator URL, --context, --api-key, -v "
    "(lepton --help).";
constexpr char kEnvironment[] =
    "Environment: LEPTON_COORDINATOR (URL), LEPTON_API_KEY, LEPTON_CA_FILE, LEPTON_DATA_DIR, "
    "LEPTON_HOST_ADDRESS (of this host, for the others), LEPTON_BF16_SUMS (tiles or pairs: the "
    "order of a worker's bf16 sums, if not its CPU's own), LEPTON_CPU_ISA (baseline, avx2 or "
    "avx512: "
    "the most that kernels use of a CPU), LEPTON_CUDNN (off: GPUs compute without "
    "it), LEPTON_INSECURE_HTTP (1: send API keys without TLS to other machines, too), "
    "NO_COLOR.\n"
    "Contexts: ~/.config/lepton/config.yaml, e.g.\n"
    "  current: lab\n"
    "  contexts: {lab: {coordinator: \"https://lab:7600\", api_key: lk_..., ca_file: lab.pem}}\n"
    "A context's key goes to its own coordinator only; LEPTON_API_KEY to the one that is named, "
    "by a flag, too.\n"
    "Exit status: 0 done, 1 failed, 2 bad usage or refused input, 3 cancelled.";
}  // namespace

namespace lepton::cli {
namespace {

// What the parser says of it, or that there is no such verb.
int BadUsage(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  if (argc < 2) {
    std::fputs(app.help().c_str(), stderr);
    return kExitUsage;
  }
  std::vector<std::string> verbs;
  for (const Command& command : Commands()) verbs.emplace_back(command.name);
  const std::string first = argv[1];
  if (!first.starts_with('-') && std::find(verbs.begin(), verbs.end(), first) == verbs.end()) {
    const std::string near(spec::Nearest(first, verbs));
    std::fprintf(stderr, "lepton: no command '%s'%s; `lepton --help` lists them\n", first.c_str(),
                 near.empty() ? "" : ("; did you mean '" + near + "'?").c_str());
    return kExitUsage;
  }
  std::fprintf(stderr, "lepton: %s\nRun with --help for more information.\n", error.what());
  return kExitUsage;
}

}  // namespace
}  // namespace lepton::cli

int main(int argc, char** argv) {
  using namespace lepton::cli;
  lepton::RaiseDescriptorLimit();
  CLI::App app(kAbout, "lepton");
  Globals globals;
  app.footer(kGlobal);  // which verbs inherit
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag("--version", LEPTON_VERSION);
  app.add_option("--coordinator", globals.coordinator,
                 "The coordinator's URL [http://127.0.0.1:7600]");
  app.add_option("--context", globals.context, "A context of ~/.config/lepton/config.yaml");
  app.add_option("--api-key", globals.api_key, "API key (better: LEPTON_API_KEY)");
  app.add_option("--ca-file", globals.ca_file, "Trust this PEM certificate for https");
  app.add_option("-o,--output", globals.output, "Output format")
      ->check(CLI::IsMember({"table", "json", "yaml"}));
  app.add_flag("-v,--verbose", globals.verbosity, "Log more; twice for even more");
  for (const Command& command : Commands()) command.add(app, globals);
  app.footer(kEnvironment);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return BadUsage(app, error, argc, argv);
    return app.exit(error);  // --help and --version
  }
  lepton::InitLogging(
      {.role = "cli", .min_level = globals.verbosity > 0 ? 0 : 1, .verbosity = globals.verbosity});
  try {
    return globals.action ? globals.action() : kExitUsage;
  } catch (const std::exception& error) {
    // An answer or a file that is not what it should be: JSON of another shape, mostly.
    return Fail(lepton::Internal(std::string("unexpected: ") + error.what()));
  }
}
