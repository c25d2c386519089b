// What users and peers send: specs, tables, manifests, frames, request targets.
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "runtime/http/client.h"
#include "runtime/http/router.h"
#include "runtime/spec/job_spec.h"
#include "runtime/wire/channel.h"
#include "storage/datasets/dataset_manifest.h"
#include "storage/datasets/table.h"
#include "storage/models/model_manifest.h"
#include "tests/fuzz/fuzz_target.h"

namespace lepton::fuzz {

// What parses is written out, and read again as the same.
void FuzzJobSpec(std::string_view bytes) {
  const auto document = spec::DocumentToJson(bytes);
  if (document.ok()) (void)spec::DeploymentSpecFromJson(*document);
  const auto job = spec::ParseJobSpec(bytes);
  if (job.ok()) {
    const nlohmann::json written = spec::JobSpecToJson(*job);
    const auto again = spec::JobSpecFromJson(written);
    if (!again.ok() || spec::JobSpecToJson(*again) != written) abort();
  }
  (void)spec::ParseReference("model", bytes);
}

void FuzzTable(std::string_view bytes) {
  for (const bool jsonl : {false, true}) {
    const auto table = jsonl ? storage::ReadJsonl(bytes) : storage::ReadCsv(bytes);
    if (!table.ok()) continue;
    const auto stored = storage::TableToSafetensors(*table);
    if (stored.ok() && !storage::TableFromSafetensors(*stored).ok()) abort();
  }
  (void)storage::TableFromSafetensors(bytes);
}

void FuzzManifest(std::string_view bytes) {
  (void)storage::DatasetManifestFromJson(bytes);
  (void)storage::ModelManifestFromJson(bytes);
  (void)wire::PoolKeyFromJson(bytes);
}

// As a task and its agent talk: frames on a socket whose other end closes.
void FuzzWireFrames(std::string_view bytes) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) return;
  if (write(fds[0], bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) abort();
  close(fds[0]);
  wire::FrameSocket socket(fds[1]);
  wire::ToWorker order;
  while (socket.Receive(&order, Deadline::In(std::chrono::milliseconds(100))).ok()) {
  }
  close(fds[1]);
  wire::ToCoordinator report;
  (void)report.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

void FuzzHttpTarget(std::string_view bytes) {
  const auto ignore = [](http::Request, http::ResponderPtr) {};
  static const http::Router router({
      {"GET", "/v1/jobs/{id}", "", "", "", ignore},
      {"POST", "/v1/jobs/{id}:cancel", "", "", "", ignore},
      {"GET", "/v1/models/{name}/versions/{version}/files/{file}", "", "", "", ignore},
  });
  http::Request request;
  request.method = "GET";
  request.target = std::string(bytes);
  if (http::ParseTarget(request).ok()) (void)router.Find(request);
  (void)http::ParseUrl(bytes);
  (void)http::PercentDecode(bytes, true);
  if (const auto back = http::PercentDecode(http::PercentEncode(bytes)); back != bytes) abort();
}

}  // namespace lepton::fuzz
