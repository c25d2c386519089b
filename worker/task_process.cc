#include "worker/task_process.h"

#include <malloc.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <nlohmann/json.hpp>
#include <utility>

#include "collectives/backends/mpi_backend.h"
#include "runtime/base/logging.h"
#include "runtime/base/thread_pool.h"
#include "runtime/kernels/cpu/bf16_sums.h"
#include "runtime/spec/job_spec.h"
#include "runtime/wire/channel.h"
#include "worker/process_context.h"

namespace lepton::worker {
namespace {

constexpr int kExitOpen = 3;  // the scheduler knows it: TaskFinished.exit_status
constexpr Duration kOrdersLimit = std::chrono::seconds(30);

Result<wire::StartTask> ReceiveStart(wire::FrameSocket& socket) {
  wire::TaskDown down;
  LEPTON_RETURN_IF_ERROR(socket.Receive(&down, Deadline::In(kOrdersLimit)));
  if (!down.has_start()) return Internal("the first order is not StartTask");
  return std::move(*down.mutable_start());
}

// A replica's spec is a deployment's, which its kind reads by itself.
Result<spec::JobSpec> ParseSpec(const wire::StartTask& start) {
  if (start.spec_json().empty() || start.kind() == "infer") return spec::JobSpec();
  const nlohmann::json document =
      nlohmann::json::parse(start.spec_json(), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) return InvalidArgument("spec: not JSON");
  return spec::JobSpecFromJson(document);
}

Result<const TaskKind*> FindKind(const std::vector<TaskKind>& kinds, const std::string& name) {
  std::string known;
  for (const TaskKind& kind : kinds) {
    if (kind.name == name) return &kind;
    known += (known.empty() ? "" : ", ") + std::string(kind.name);
  }
  return InvalidArgument("task kind \"" + name + "\" is unknown: this worker knows " + known);
}

// The edge where exceptions of a kind, or of a library under it, end.
Status RunKind(const TaskKind& kind, TaskContext& context) {
  try {
    return kind.run(context);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("out of memory");
  } catch (const std::exception& error) {
    return Internal(std::string("exception: ") + error.what());
  } catch (...) {
    return Internal("exception of an unknown type");
  }
}

// A task that cannot even have a context says why and ends.
Status Fail(wire::FrameSocket& socket, const Status& status) {
  wire::TaskUp up;
  up.mutable_finished()->set_code(std::string(StatusCodeName(status.code())));
  up.mutable_finished()->set_message(status.message());
  const Status sent = socket.Send(up, Deadline::In(kOrdersLimit));
  if (!sent.ok()) LOG(ERROR) << "report to the agent: " << sent.ToString();
  return status;
}

Status RunTask(wire::FrameSocket& socket, wire::StartTask start, const TaskProcessOptions& options,
               const std::vector<TaskKind>& kinds) {
  const Result<const TaskKind*> kind = FindKind(kinds, start.kind());
  if (!kind.ok()) return Fail(socket, kind.status());
  Result<spec::JobSpec> spec = ParseSpec(start);
  if (!spec.ok()) return Fail(socket, spec.status());
  if (!start.bf16_sums().empty()) {
    const auto sums = kernels::ParseBf16Sums(start.bf16_sums());
    if (!sums) {
      return Fail(socket, FailedPrecondition("this worker does not know bf16_sums \"" +
                                             start.bf16_sums() + "\""));
    }
    kernels::SetBf16Sums(*sums);
  }
  Result<std::unique_ptr<storage::ObjectStore>> objects =
      storage::ObjectStore::Open(options.data_dir);
  if (!objects.ok()) return Fail(socket, objects.status().WithContext("data_dir"));

  ProcessContext context(&socket, std::move(start), *std::move(spec), *std::move(objects),
                         options.bind_address);
  Status status = RunKind(**kind, context);
  // That a copy rotted here does not end the job: the next start fetches another.
  if (status.code() == StatusCode::kDataLoss && context.objects().found_corrupt()) {
    status = Internal(status.message());
  }
  std::fflush(stdout);
  context.Finish(status);
  return status;
}

// Large blocks are mappings of their own, which go back to the system. In one heap with small ones,
// where glibc would put blocks of up to 32 MiB after a while, a twelfth of what a rank of
// parallel.zero 3 had resident belonged to nobody.
void KeepLargeBlocksApart() {
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 16 << 20);
}

}  // namespace

int RunTaskProcess(const TaskProcessOptions& options, const std::vector<TaskKind>& kinds) {
  KeepLargeBlocksApart();
  // Read from a descriptor; every thread made from here on inherits the mask.
  sigset_t termination;
  sigemptyset(&termination);
  sigaddset(&termination, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &termination, nullptr);
  signal(SIGPIPE, SIG_IGN);
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);

  InitLogging({.role = "task"});
  wire::FrameSocket socket(options.fd);
  Result<wire::StartTask> start = ReceiveStart(socket);
  if (!start.ok()) {
    LOG(ERROR) << "no orders from the agent: " << start.status().ToString();
    return 1;
  }
  InitLogging({.role = "task " + start->task_id()});
  ThreadPool::SetComputeThreads(static_cast<int>(std::max(1u, start->slots())));
  const Status status = RunTask(socket, *std::move(start), options, kinds);
  return collectives::MpiBackend::LeavesOpen() ? kExitOpen : status.ok() ? 0 : 1;
}

}  // namespace lepton::worker
