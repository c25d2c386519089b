#include "tests/worker/agent/test_tasks.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#include "runtime/base/logging.h"
#include "runtime/base/progress.h"
#include "worker/agent.h"
#include "worker/task_process.h"

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Says what it was given, stores an object, a checkpoint and a result.
Status Echo(TaskContext& context) {
  std::printf("kind %s slots %u omp %s\n", context.start().kind().c_str(), context.start().slots(),
              std::getenv("OMP_NUM_THREADS"));
  std::fprintf(stderr, "to the error stream\n");
  char input_byte;
  std::printf("stdin gives %zd\n", read(0, &input_byte, 1));
  wire::TaskProgress progress;
  progress.set_step(1);
  for (const wire::ObjectRef& input : context.start().inputs()) {
    LEPTON_ASSIGN_OR_RETURN(const std::string bytes, context.objects().Get(input.digest()));
    (*progress.mutable_metrics())["bytes"] += static_cast<double>(bytes.size());
  }
  context.ReportProgress(progress);
  LEPTON_ASSIGN_OR_RETURN(const std::string weights,
                          context.objects().Put(std::string(3'000'000, 'w')));
  LEPTON_ASSIGN_OR_RETURN(const std::string manifest, context.objects().Put("manifest"));
  wire::TaskCheckpoint checkpoint;
  checkpoint.set_step(1);
  checkpoint.set_manifest(manifest);
  checkpoint.add_objects(weights);
  context.ReportCheckpoint(checkpoint);
  context.ReportReady("127.0.0.1", 4321, 1.5);
  LEPTON_ASSIGN_OR_RETURN(const std::string model, context.objects().Put("model"));
  wire::TaskFinished result;
  result.set_steps(1);
  result.set_model_manifest(model);
  result.add_objects(weights);
  context.SetResult(result);
  return Status::Ok();
}

// Says which GPU it may use, and waits.
Status Visible(TaskContext& context) {
  const char* const gpus = std::getenv("CUDA_VISIBLE_DEVICES");
  std::printf("gpu %s\n", gpus == nullptr ? "unset" : gpus);
  while (!context.stop_requested()) std::this_thread::sleep_for(milliseconds(2));
  return Cancelled("woken");
}

Status Sleep(TaskContext& context) {
  std::printf("asleep\n");
  while (!context.stop_requested()) std::this_thread::sleep_for(milliseconds(2));
  return Cancelled("woken");
}

// Of an elastic gang: needs a while to leave, for a step that it is in.
Status Parts(TaskContext& context) {
  std::printf("in a step\n");
  while (!context.membership()->leave_requested()) std::this_thread::sleep_for(milliseconds(2));
  std::this_thread::sleep_for(milliseconds(700));
  return Cancelled("left after the step");
}

Status Stubborn(TaskContext&) {
  std::printf("never\n");
  while (true) std::this_thread::sleep_for(std::chrono::hours(1));
}

// A step each 2 ms until it is stopped.
Status Steps(TaskContext& context) {
  wire::TaskProgress progress;
  while (!context.stop_requested()) {
    progress.set_step(progress.step() + 1);
    context.ReportProgress(progress);
    std::this_thread::sleep_for(milliseconds(2));
  }
  return Cancelled("stopped");
}

Status Crash(TaskContext&) {
  std::printf("about to crash");  // without a new line
  std::fflush(stdout);
  kill(getpid(), SIGKILL);
  return Status::Ok();
}

Status Exit(TaskContext&) {
  _exit(7);
}
Status Throw(TaskContext&) {
  throw std::runtime_error("thrown on purpose");
}
Status OutOfMemory(TaskContext&) {
  throw std::bad_alloc();
}
Status Fail(TaskContext&) {
  return InvalidArgument(std::string("label: no such column \xff"));
}

Status Chatty(TaskContext&) {
  std::printf("%s\n", std::string(20'000, 'x').c_str());
  std::printf("bad \xff\xfe bytes\n");
  for (int i = 0; i < 10'000; ++i) std::printf("line %d\n", i);
  return Status::Ok();
}

// Leaves a child behind that holds its output.
Status Family(TaskContext&) {
  const pid_t child = fork();
  if (child == 0) {
    sleep(60);
    _exit(0);
  }
  std::printf("child %d\n", child);
  return Status::Ok();
}

// Breaks into the socket to the agent.
Status Garbage(TaskContext&) {
  const char bytes[] = "\xff\xff\xff\xff garbage";
  if (write(3, bytes, sizeof(bytes)) < 0) return Internal("write");
  std::this_thread::sleep_for(std::chrono::seconds(30));
  return Status::Ok();
}

// Its listening thread lives; its main thread stands still.
Status Stuck(TaskContext&) {
  const progress::Computing computing("step", 3);
  while (true) std::this_thread::sleep_for(seconds(1));
}

// As slow as one that is stuck seems to be, but it moves.
Status Crawls(TaskContext&) {
  const progress::Computing computing("step", 3);
  for (int i = 0; i < 12; ++i) {
    std::this_thread::sleep_for(milliseconds(100));
    progress::Tick();
  }
  return Status::Ok();
}

// It waits for others, and computes nothing.
Status Waits(TaskContext&) {
  { const progress::Computing computing("step", 3); }
  std::this_thread::sleep_for(milliseconds(1'200));
  return Status::Ok();
}

// End well, but for what their processes do as they exit.
Status Lingers(TaskContext&) {
  std::atexit([] { std::this_thread::sleep_for(milliseconds(1'200)); });
  return Status::Ok();
}
Status Dwells(TaskContext& context) {
  std::printf("asleep\n");
  while (!context.stop_requested()) std::this_thread::sleep_for(milliseconds(2));
  std::atexit([] { std::this_thread::sleep_for(milliseconds(1'200)); });
  return Cancelled("woken");
}
Status Trips(TaskContext&) {
  std::atexit([] { kill(getpid(), SIGKILL); });
  return Status::Ok();
}
Status Stays(TaskContext&) {
  std::atexit([] { std::this_thread::sleep_for(std::chrono::hours(1)); });
  return Status::Ok();
}

Status Gang(TaskContext& context) {
  LEPTON_ASSIGN_OR_RETURN(const auto communicator, context.JoinGang());
  const float mine = static_cast<float>(communicator->rank() + 1);
  float sum = 0;
  LEPTON_RETURN_IF_ERROR(communicator->AllReduce(&mine, &sum, 1, collectives::DataType::kFloat32,
                                                 collectives::ReduceOp::kSum));
  wire::TaskFinished result;
  (*result.mutable_metrics())["sum"] = sum;
  context.SetResult(result);
  return Status::Ok();
}

std::string Argument(int argc, char** argv, const char* name) {
  for (int i = 2; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], name) == 0) return argv[i + 1];
  }
  return "";
}

}  // namespace

const std::vector<TaskKind>& TestTaskKinds() {
  static const std::vector<TaskKind> kinds = {
      {"echo", Echo},   {"sleep", Sleep},     {"stubborn", Stubborn}, {"steps", Steps},
      {"crash", Crash}, {"exit", Exit},       {"throw", Throw},       {"memory", OutOfMemory},
      {"fail", Fail},   {"chatty", Chatty},   {"family", Family},     {"garbage", Garbage},
      {"gang", Gang},   {"stuck", Stuck},     {"crawls", Crawls},     {"waits", Waits},
      {"parts", Parts}, {"visible", Visible}, {"lingers", Lingers},   {"trips", Trips},
      {"stays", Stays}, {"dwells", Dwells},
  };
  return kinds;
}

int RunAsTask(int argc, char** argv) {
  TaskProcessOptions options;
  options.fd = std::atoi(Argument(argc, argv, "--fd").c_str());
  options.data_dir = Argument(argc, argv, "--data-dir");
  options.bind_address = Argument(argc, argv, "--bind");
  return RunTaskProcess(options, TestTaskKinds());
}

int RunAsAgent(int argc, char** argv) {
  InitLogging({.role = "worker"});
  AgentOptions options;
  options.coordinator = Argument(argc, argv, "--coordinator");
  options.data_dir = Argument(argc, argv, "--data-dir");
  options.slots = 4;
  if (const std::string limit = Argument(argc, argv, "--silence-ms"); !limit.empty()) {
    options.max_coordinator_silence = milliseconds(std::atoi(limit.c_str()));
  }
  auto key = wire::LoadPoolKey(Argument(argc, argv, "--key"));
  if (!key.ok()) return 2;
  options.key = *key;
  auto agent = Agent::Create(options);
  if (!agent.ok()) return 3;
  return (*agent)->Run().ok() ? 0 : 1;
}

}  // namespace lepton::worker
