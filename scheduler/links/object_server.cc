#include "scheduler/links/object_server.h"

#include <fmt/format.h>

#include <deque>

#include "runtime/base/metrics.h"

namespace lepton::scheduler {
namespace {

constexpr size_t kMaxQueued = 256;  // requests of one worker: at most as many chunks in memory
constexpr size_t kMaxUploads = 64;  // unfinished objects of one worker
constexpr uint64_t kMaxObjectBytes = uint64_t{1} << 40;

template <typename Message>
void SetError(const Status& status, Message& message) {
  message.set_error_code(std::string(StatusCodeName(status.code())));
  message.set_error(status.message());
}

void CountBytes(const char* direction, size_t bytes) {
  metrics::Counter("lepton_object_transfer_bytes_total", "Object bytes to and from workers.",
                   {{"direction", direction}})
      .Increment(static_cast<double>(bytes));
}

}  // namespace

struct ObjectServer::Peer {
  std::mutex mutex;
  std::deque<Job> queue;
  bool running = false;
  // Touched by the one running job only.
  std::map<std::string, std::unique_ptr<storage::ObjectStore::Writer>> uploads;
};

ObjectServer::ObjectServer(storage::ObjectStore& objects, ObjectKeeper& keeper, Send send,
                           int threads)
    : objects_(objects), keeper_(keeper), send_(std::move(send)), pool_("objects", threads) {}

ObjectServer::~ObjectServer() = default;

bool ObjectServer::Enqueue(const PeerId& peer, Job job) {
  std::shared_ptr<Peer> entry;
  {
    std::lock_guard lock(mutex_);
    auto& slot = peers_[peer];
    if (!slot) slot = std::make_shared<Peer>();
    entry = slot;
  }
  std::lock_guard lock(entry->mutex);
  if (entry->queue.size() >= kMaxQueued) return false;
  entry->queue.push_back(std::move(job));
  if (!entry->running) {
    entry->running = true;
    pool_.Submit([this, entry] { RunQueue(entry); });
  }
  return true;
}

void ObjectServer::RunQueue(std::shared_ptr<Peer> peer) {
  Job job;
  {
    std::lock_guard lock(peer->mutex);
    if (peer->queue.empty()) {
      peer->running = false;
      return;
    }
    job = std::move(peer->queue.front());
    peer->queue.pop_front();
  }
  job(*peer);
  // One request a turn, so that a long upload leaves room for the other workers' requests.
  pool_.Submit([this, peer = std::move(peer)] { RunQueue(peer); });
}

void ObjectServer::Drop(const PeerId& peer) {
  std::lock_guard lock(mutex_);
  peers_.erase(peer);
}

void ObjectServer::Get(const PeerId& peer, wire::ObjectGet get) {
  const bool queued = Enqueue(peer, [this, peer, get](Peer&) { ServeGet(peer, get); });
  if (queued) return;
  wire::ToWorker message;
  auto& data = *message.mutable_object_data();
  data.set_digest(get.digest());
  data.set_offset(get.offset());
  data.set_request(get.request());
  SetError(Unavailable("too many object requests wait: ask again later"), data);
  send_(peer, message);
}

void ObjectServer::ServeGet(const PeerId& peer, const wire::ObjectGet& get) {
  wire::ToWorker message;
  auto& data = *message.mutable_object_data();
  data.set_digest(get.digest());
  data.set_offset(get.offset());
  data.set_request(get.request());
  if (!storage::IsDigest(get.digest())) {
    SetError(InvalidArgument("digest: not 64 hex digits"), data);
  } else if (const auto size = objects_.Size(get.digest()); !size.ok()) {
    SetError(size.status(), data);
  } else {
    auto bytes = objects_.GetRange(get.digest(), get.offset(), wire::kObjectChunkBytes);
    if (bytes.ok()) {
      data.set_total_bytes(*size);
      CountBytes("out", bytes->size());
      data.set_data(*std::move(bytes));
    } else {
      SetError(bytes.status(), data);
    }
  }
  send_(peer, message);
}

void ObjectServer::Put(const PeerId& peer, wire::ObjectPut put) {
  auto shared = std::make_shared<wire::ObjectPut>(std::move(put));
  const bool queued = Enqueue(peer, [this, peer, shared](Peer& entry) {
    wire::ToWorker message;
    *message.mutable_object_ack() = ServePut(entry, *shared);
    send_(peer, message);
  });
  if (queued) return;
  wire::ToWorker message;
  auto& ack = *message.mutable_object_ack();
  ack.set_digest(shared->digest());
  ack.set_request(shared->request());
  SetError(Unavailable("too many object requests wait: send again later"), ack);
  send_(peer, message);
}

wire::ObjectAck ObjectServer::ServePut(Peer& peer, const wire::ObjectPut& put) {
  wire::ObjectAck ack;
  ack.set_digest(put.digest());
  ack.set_request(put.request());
  const auto refuse = [&](const Status& status) {
    peer.uploads.erase(put.digest());
    ack.set_offset(0);
    SetError(status, ack);
    return ack;
  };
  if (!storage::IsDigest(put.digest())) {
    return refuse(InvalidArgument("digest: not 64 hex digits"));
  }
  if (put.total_bytes() > kMaxObjectBytes || put.offset() + put.data().size() > put.total_bytes()) {
    return refuse(
        InvalidArgument(fmt::format("total_bytes: {} does not fit a chunk of {} bytes at {}",
                                    put.total_bytes(), put.data().size(), put.offset())));
  }
  // It must not be collected before the worker names it: once touched it stays, if it is still
  // there.
  const auto there = [&] { return objects_.Has(put.digest()); };
  if (there() && (keeper_.Touch(put.digest()), there())) {
    peer.uploads.erase(put.digest());
    ack.set_offset(put.total_bytes());
    ack.set_complete(true);
    return ack;
  }
  auto& upload = peer.uploads[put.digest()];
  if (!upload) {
    if (peer.uploads.size() > kMaxUploads) {
      return refuse(Unavailable("too many unfinished uploads: finish some first"));
    }
    auto writer = objects_.NewObject();
    if (!writer.ok()) return refuse(writer.status());
    upload = *std::move(writer);
  }
  if (put.offset() != upload->size()) {
    ack.set_offset(upload->size());
    return ack;
  }
  if (const Status status = upload->Append(put.data()); !status.ok()) return refuse(status);
  CountBytes("in", put.data().size());
  ack.set_offset(upload->size());
  if (upload->size() < put.total_bytes()) return ack;
  const bool found = there();  // another worker sent the same meanwhile
  const auto stored = upload->Finish(put.digest());
  if (!stored.ok()) return refuse(stored.status());
  peer.uploads.erase(put.digest());
  // What is new is let go by nobody before it is named.
  if (found) keeper_.Touch(put.digest());
  ack.set_complete(true);
  return ack;
}

}  // namespace lepton::scheduler
