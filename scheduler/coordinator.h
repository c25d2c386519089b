// The coordinator as a library: everything that `lepton coordinator` is, so that `lepton run` and
// tests can hold one in their own process and talk to it over loopback HTTP like any other client.
// It wires the parts together and owns them: the data folder's lock, the metadata and object
// stores, the reactor's thread, the workers' link, the gateway and the HTTP server.
//
// Data folder: LOCK, server.key, pool.key (mode 0600), metadata/ (RocksDB), objects/.
// Threads: all calls from any thread; Stop and the destructor once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"
#include "scheduler/api/model_tools.h"
#include "scheduler/loop/history_limits.h"

namespace lepton::scheduler {

struct CoordinatorOptions {
  std::filesystem::path data_dir;  // made if missing

  std::string http_address = "127.0.0.1";
  uint16_t http_port = 0;  // 0 picks one
  // PEM files; both or neither. With them HTTP is HTTPS.
  std::string tls_certificate_file;
  std::string tls_key_file;
  // Where workers connect. Any address is safe: only holders of pool.key are admitted (CURVE).
  std::string link_address = "127.0.0.1";
  uint16_t link_port = 0;
  // The host that workers are told where link_address stands for all of this machine's. Empty: its
  // loopback.
  std::string link_host = {};

  // Folders that file:// URIs in job specs may read, after symlinks are resolved; never data_dir,
  // which has the pool's keys, but for folders in it that are named. Empty: the current folder.
  std::vector<std::filesystem::path> file_roots;
  // Demand an API key on every route but the health checks. Implied as soon as one key exists and
  // by any HTTP address other than loopback.
  bool require_auth = false;

  size_t max_body_bytes = size_t{64} << 20;             // HTTP bodies over it: 413; 0: no limit
  Duration heartbeat = std::chrono::milliseconds(500);  // told to workers; at least 10 ms
  Duration lease = std::chrono::seconds(5);             // a worker silent for this long is lost
  HistoryLimits history;                                // of log lines and metric points
  uint64_t snapshot_every_records = 5000;
  int http_threads = 2;
  // A head or a body must have come by then; a file that is uploaded must not stand still for so
  // long.
  Duration http_read_timeout = std::chrono::seconds(30);
  // Where those who share this file system learn the addresses, {"http": ..., "link": ...}: made
  // when they are served, deleted by Stop, and one that was killed leaves it until the next one
  // begins. Empty: none.
  std::filesystem::path address_file = {};
  // Stop comes when no worker is left that could still name what it stored: what nothing refers to
  // is deleted then rather than after a delay.
  bool workers_end_first = false;
  api::ModelTools model_tools;  // given by whoever knows models
};

class Coordinator {
 public:
  // Returns when HTTP and the workers' link accept connections and all earlier state is replayed.
  // kFailedPrecondition: another coordinator holds data_dir, a port is in use, or a bind beyond
  // loopback lacks API keys or TLS (the message says how to make them). kPermissionDenied: data_dir
  // is not writable. kDataLoss: the journal is corrupt.
  static Result<std::unique_ptr<Coordinator>> Start(const CoordinatorOptions& options);
  virtual ~Coordinator() = default;  // Stop(0)

  virtual uint16_t http_port() const = 0;
  virtual uint16_t link_port() const = 0;
  // "http://127.0.0.1:7600"; an address of 0.0.0.0 or :: is given as 127.0.0.1.
  virtual std::string url() const = 0;
  // "tcp://127.0.0.1:7601"
  virtual std::string link_endpoint() const = 0;
  // <data_dir>/pool.key, and its contents (wire::PoolKeyFromJson): what a worker needs to join.
  virtual std::filesystem::path pool_key_file() const = 0;
  virtual std::string pool_key_json() const = 0;

  // Imports that go on end soon with kCancelled, and so do later ones.
  virtual void StopImports() = 0;
  // Stops accepting, answers what is in flight for up to `grace`, then closes. Workers and their
  // tasks go on and will find the next coordinator on the same folder. Idempotent.
  virtual void Stop(Duration grace) = 0;
};

// API keys without a running coordinator (`lepton key create --data-dir`).
struct NewApiKey {
  std::string name;                 // for people
  std::vector<std::string> scopes;  // admin | submit | predict | read
  Duration ttl{0};                  // 0: does not expire
};
// Stores the key's hash in `data_dir` and returns the key itself, "lk_<id>_<secret>", which nobody
// can learn again. kFailedPrecondition when a coordinator holds the folder: use POST /v1/keys then.
Result<std::string> CreateApiKey(const std::filesystem::path& data_dir, const NewApiKey& key);

}  // namespace lepton::scheduler
