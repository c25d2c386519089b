#include "scheduler/coordinator.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <future>
#include <limits>
#include <mutex>

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/json.h"
#include "runtime/http/server.h"
#include "scheduler/api/api.h"
#include "scheduler/api/bind_check.h"
#include "scheduler/deployment_routes.h"
#include "scheduler/gateway/gateway.h"
#include "scheduler/links/worker_link.h"
#include "scheduler/loop/shard_files.h"
#include "scheduler/loop/state_loop.h"

namespace lepton::scheduler {
namespace {

namespace fs = std::filesystem;

constexpr Duration kLeastHeartbeat = std::chrono::milliseconds(10);

int64_t Milliseconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

// One coordinator, or one offline change, at a time.
Result<FileLock> LockFolder(const fs::path& data_dir) {
  auto lock = FileLock::Acquire(data_dir / "LOCK");
  if (lock.ok() || lock.status().code() != StatusCode::kFailedPrecondition) return lock;
  return lock.status().WithContext(
      fmt::format("another coordinator uses the data folder {}", data_dir.string()));
}

std::string HostInUrl(const std::string& address) {
  if (address == "0.0.0.0" || address.empty()) return "127.0.0.1";
  if (address == "::") return "[::1]";
  return address.find(':') == std::string::npos ? address : "[" + address + "]";
}

class CoordinatorImpl final : public Coordinator, private LoopSink {
 public:
  explicit CoordinatorImpl(CoordinatorOptions options) : options_(std::move(options)) {}
  ~CoordinatorImpl() override { Stop(Duration(0)); }

  Status Open();

  uint16_t http_port() const override { return http_port_; }
  uint16_t link_port() const override { return link_port_; }
  std::string url() const override {
    return fmt::format("{}://{}:{}", options_.tls_key_file.empty() ? "http" : "https",
                       HostInUrl(options_.http_address), http_port_);
  }
  std::string link_endpoint() const override {
    const bool all = options_.link_address == "0.0.0.0" || options_.link_address == "::";
    const bool told = all && !options_.link_host.empty();
    return fmt::format("tcp://{}:{}", HostInUrl(told ? options_.link_host : options_.link_address),
                       link_port_);
  }
  fs::path pool_key_file() const override { return options_.data_dir / "pool.key"; }
  std::string pool_key_json() const override { return pool_key_json_; }
  void StopImports() override { api_->imports().Stop(); }
  void Stop(Duration grace) override;

 private:
  Status OpenStores();
  Status Announce();
  void Hide();
  Status OpenLoop(const wire::ServerKey& key);
  Status OpenLink(const wire::ServerKey& key);
  Status OpenHttp();

  void Welcome(const WorkerId& worker, const wire::Welcome& welcome) override {
    link_->Welcome(worker, welcome);
  }
  void Start(const WorkerId& worker, const wire::StartTask& start) override {
    link_->StartTask(worker, start);
  }
  void SendGroup(const WorkerId& worker, const wire::TaskGroup& group) override {
    link_->SendGroup(worker, group);
  }
  void SendShards(const WorkerId& worker, const wire::TaskShards& shards) override {
    link_->SendShards(worker, shards);
  }
  void Stop(const WorkerId& worker, const wire::StopTask& stop) override {
    link_->StopTask(worker, stop);
  }
  void Ack(const WorkerId& worker, const wire::ReportAck& ack) override { link_->Ack(worker, ack); }
  void Drain(const WorkerId& worker, const wire::Drain& drain) override {
    link_->Drain(worker, drain);
  }
  void Accepted(const JobId& job, int trial, const wire::TaskReport& report) override {
    history_->Add(job, trial, report);
  }
  void ForgetJob(const JobId& job) override { history_->Forget(job); }
  void Committed(const State& state, const std::set<JobId>& jobs) override {
    history_->Write();
    if (history_->TrimDue()) pool_->Submit([this] { history_->Trim(); });
    routes_.Update(state, *gateway_);
    shard_files_->Update(state);
    watch_.OnCommitted(state, jobs);
  }
  void JournalFailed(const Status&) override { link_->DropSessions(); }

  const CoordinatorOptions options_;
  std::string pool_key_json_;
  uint16_t http_port_ = 0, link_port_ = 0;
  std::once_flag stopped_;

  // In the order in which each needs those before it; destroyed in reverse.
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<storage::MetadataStore> metadata_;
  std::unique_ptr<storage::ObjectStore> objects_;
  std::unique_ptr<api::KeyStore> keys_;
  std::unique_ptr<History> history_;
  api::JobWatch watch_;
  DeploymentRouteTable routes_;
  std::unique_ptr<gateway::Gateway> gateway_;
  std::unique_ptr<api::Api> api_;
  std::unique_ptr<StateLoop> loop_;
  std::unique_ptr<WorkerLink> link_;
  std::unique_ptr<WorkQueue> pool_, imports_;
  std::unique_ptr<ShardFiles> shard_files_;
  std::unique_ptr<http::Server> server_;
};

Status CoordinatorImpl::OpenStores() {
  LEPTON_RETURN_IF_ERROR(MakeFolders(options_.data_dir, 0700));
  LEPTON_ASSIGN_OR_RETURN(auto lock, LockFolder(options_.data_dir));
  lock_ = std::make_unique<FileLock>(std::move(lock));
  Hide();
  LEPTON_ASSIGN_OR_RETURN(metadata_, storage::MetadataStore::Open(options_.data_dir / "metadata"));
  LEPTON_ASSIGN_OR_RETURN(objects_, storage::ObjectStore::Open(options_.data_dir));
  LEPTON_ASSIGN_OR_RETURN(keys_, api::KeyStore::Open(*metadata_, RealClock()));
  history_ = std::make_unique<History>(*metadata_, RealClock(), options_.history);
  return history_->Load();
}

Status CoordinatorImpl::Announce() {
  if (options_.address_file.empty()) return Status::Ok();
  const nlohmann::json where = {{"http", url()}, {"link", link_endpoint()}};
  return WriteFileAtomic(options_.address_file, where.dump(2) + "\n");
}

// Only while the lock is held: it may be another coordinator's.
void CoordinatorImpl::Hide() {
  std::error_code ignored;
  if (!options_.address_file.empty()) fs::remove(options_.address_file, ignored);
}

Status CoordinatorImpl::OpenLoop(const wire::ServerKey& key) {
  LoopOptions loop;
  loop.snapshot_every_records = options_.snapshot_every_records;
  // Private and the same after a restart, so that replicas that went on keep their tokens.
  loop.reactor.token_secret = Sha256Hex("lepton task tokens\n" + key.server.secret_key);
  loop.reactor.coordinator_incarnation = RandomHex(8);
  loop.reactor.heartbeat_ms = static_cast<uint32_t>(Milliseconds(options_.heartbeat));
  loop.reactor.keep_finished_jobs = options_.history.jobs;
  loop.reactor.lease_ms = static_cast<uint32_t>(Milliseconds(options_.lease));
  // Replicas of workers on other machines must be reachable from here; they demand their token.
  loop.reactor.replica_bind = api::IsLoopback(options_.link_address) ? "127.0.0.1" : "0.0.0.0";
  LEPTON_ASSIGN_OR_RETURN(loop_,
                          StateLoop::Open(*metadata_, *objects_, RealClock(), std::move(loop)));
  return Status::Ok();
}

Status CoordinatorImpl::OpenLink(const wire::ServerKey& key) {
  WorkerLinkOptions link;
  link.endpoint = fmt::format("tcp://{}:{}", options_.link_address, options_.link_port);
  link.lease = options_.lease;
  LEPTON_ASSIGN_OR_RETURN(link_, WorkerLink::Start(std::move(link), key, *loop_, *objects_));
  link_port_ = link_->port();
  return Status::Ok();
}

Status CoordinatorImpl::OpenHttp() {
  api::ApiOptions options;
  options.file_roots = {options_.file_roots, options_.data_dir};
  if (options.file_roots.folders.empty()) options.file_roots.folders = {fs::current_path()};
  options.require_auth = options_.require_auth || !api::IsLoopback(options_.http_address);
  api::ApiParts parts{
      .loop = *loop_,
      .history = *history_,
      .watch = watch_,
      .keys = *keys_,
      .objects = *objects_,
      .pool = *pool_,
      .imports = *imports_,
      .clock = RealClock(),
      .vitals = [this](const WorkerId& worker) -> std::optional<api::WorkerVitals> {
        const auto vitals = link_->VitalsOf(worker);
        if (!vitals) return std::nullopt;
        return api::WorkerVitals{vitals->last_seen_ms, vitals->load_average,
                                 vitals->memory_used_bytes};
      },
      .gateway_routes = gateway_->Routes(std::string(api::ScopeName(api::Scope::kPredict))),
      .model_tools = options_.model_tools};
  api_ = std::make_unique<api::Api>(std::move(parts), std::move(options));

  http::ServerOptions server;
  server.address = options_.http_address;
  server.port = options_.http_port;
  server.threads = options_.http_threads;
  server.max_body_bytes =
      options_.max_body_bytes > 0 ? options_.max_body_bytes : std::numeric_limits<size_t>::max();
  server.read_timeout = options_.http_read_timeout;
  server.refuse = [this](http::Request& head) { return api_->Refuse(head); };
  server.to_file = [this, most = server.max_body_bytes](http::Request& head) {
    using ToFile = http::ServerOptions::ToFile;
    return api_->IsUpload(head) ? std::optional(ToFile{options_.data_dir, most}) : std::nullopt;
  };
  server.tls_certificate_file = options_.tls_certificate_file;
  server.tls_key_file = options_.tls_key_file;
  LEPTON_ASSIGN_OR_RETURN(
      server_,
      http::Server::Start(server, [this](http::Request request, http::ResponderPtr responder) {
        api_->Handle(std::move(request), std::move(responder));
      }));
  http_port_ = server_->port();
  return Status::Ok();
}

Status CoordinatorImpl::Open() {
  if (options_.data_dir.empty()) return InvalidArgument("data_dir: missing");
  if (options_.tls_certificate_file.empty() != options_.tls_key_file.empty()) {
    return InvalidArgument("tls: give both --tls-cert and --tls-key, or neither");
  }
  if (options_.heartbeat < kLeastHeartbeat) {
    return InvalidArgument(
        fmt::format("heartbeat: must be at least {}ms", Milliseconds(kLeastHeartbeat)));
  }
  if (options_.lease < 2 * options_.heartbeat) {
    return InvalidArgument("lease: must be at least twice the heartbeat");
  }
  LEPTON_RETURN_IF_ERROR(OpenStores());
  LEPTON_RETURN_IF_ERROR(
      api::CheckBind(options_.http_address, !keys_->empty(), !options_.tls_key_file.empty()));
  LEPTON_ASSIGN_OR_RETURN(const auto key, wire::LoadOrMakeServerKey(options_.data_dir.string()));
  LEPTON_ASSIGN_OR_RETURN(const auto pool_key, wire::LoadPoolKey(pool_key_file().string()));
  pool_key_json_ = wire::PoolKeyToJson(pool_key);
  LEPTON_RETURN_IF_ERROR(OpenLoop(key));
  gateway_ = gateway::Gateway::Make();
  pool_ = std::make_unique<WorkQueue>("api", 4);
  imports_ = std::make_unique<WorkQueue>("imports", 4);
  shard_files_ = std::make_unique<ShardFiles>(*objects_, *pool_, *loop_);
  LEPTON_RETURN_IF_ERROR(OpenLink(key));
  // As Committed does: nothing need be committed before somebody asks. HTTP waits for it.
  std::promise<void> read;
  loop_->Read([this, &read](const State& state) {
    history_->ForgetOthers(state.jobs);
    routes_.Update(state, *gateway_);
    shard_files_->Update(state);
    read.set_value();
  });
  loop_->Start(*this);
  read.get_future().wait();
  LEPTON_RETURN_IF_ERROR(OpenHttp());
  LEPTON_RETURN_IF_ERROR(Announce());
  // What a stopped coordinator had let go but not deleted yet.
  pool_->Submit([this] { loop_->keeper().ForgetStored(*objects_); });
  LOG(INFO) << "coordinator at " << url() << ", workers at " << link_endpoint() << ", data in "
            << options_.data_dir.string();
  return Status::Ok();
}

void CoordinatorImpl::Stop(Duration grace) {
  std::call_once(stopped_, [&] {
    if (lock_) Hide();
    // Followed feeds and long polls end now rather than hold up the server for all of `grace`.
    if (loop_) loop_->Read([this](const State& state) { watch_.Close(state); });
    if (server_) server_->Stop(grace);
    if (loop_) loop_->Stop();
    if (shard_files_) shard_files_->Stop();
    if (api_) StopImports();
    // What still runs on these posts to a loop that takes nothing any more.
    imports_.reset();
    pool_.reset();
    shard_files_.reset();
    server_.reset();
    link_.reset();
    if (loop_ && options_.workers_end_first) loop_->CollectAll();
    if (metadata_) {
      const Status status = metadata_->Flush();
      if (!status.ok()) LOG(WARNING) << "closing the metadata store: " << status.ToString();
    }
    loop_.reset();
    api_.reset();
    gateway_.reset();
    keys_.reset();
    history_.reset();
    metadata_.reset();
    objects_.reset();
    lock_.reset();
  });
}

}  // namespace

Result<std::unique_ptr<Coordinator>> Coordinator::Start(const CoordinatorOptions& options) {
  auto coordinator = std::make_unique<CoordinatorImpl>(options);
  LEPTON_RETURN_IF_ERROR(coordinator->Open());
  return std::unique_ptr<Coordinator>(std::move(coordinator));
}

Result<std::string> CreateApiKey(const fs::path& data_dir, const NewApiKey& key) {
  std::set<api::Scope> scopes;
  for (const auto& name : key.scopes) {
    LEPTON_ASSIGN_OR_RETURN(const api::Scope scope, api::ParseScope(name));
    scopes.insert(scope);
  }
  LEPTON_RETURN_IF_ERROR(MakeFolders(data_dir, 0700));
  auto lock = LockFolder(data_dir);
  if (!lock.ok()) {
    return Status(lock.status().code(),
                  lock.status().message() + ": ask it for a key instead (POST /v1/keys)");
  }
  LEPTON_ASSIGN_OR_RETURN(const auto metadata, storage::MetadataStore::Open(data_dir / "metadata"));
  LEPTON_ASSIGN_OR_RETURN(const auto keys, api::KeyStore::Open(*metadata, RealClock()));
  LEPTON_ASSIGN_OR_RETURN(const auto created, keys->Create(key.name, scopes, key.ttl));
  return created.secret;
}

}  // namespace lepton::scheduler
