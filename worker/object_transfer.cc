#include "worker/object_transfer.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "runtime/base/logging.h"
#include "runtime/wire/channel.h"

namespace lepton::worker {
namespace {

constexpr size_t kRequestsAhead = 4;
constexpr int kStalledAnswers = 5;  // of an upload, that do not move its offset
constexpr Duration kAskAgainIn = std::chrono::milliseconds(100);  // where the coordinator is busy

Status RemoteError(const std::string& code, const std::string& message) {
  return Status(StatusCodeFromName(code), message).WithContext("coordinator");
}

bool AskAgain(const Status& status) {
  return status.code() == StatusCode::kUnavailable;
}

// Fails when a transfer has stood still for too long.
class Patience {
 public:
  explicit Patience(Duration limit) : limit_(limit), deadline_(Deadline::In(limit)) {}
  void Moved() { deadline_ = Deadline::In(limit_); }
  Status Check() const {
    if (!deadline_.Expired()) return Status::Ok();
    return Unavailable("nothing moved for " + FormatSeconds());
  }

 private:
  std::string FormatSeconds() const {
    return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(limit_).count()) + " s";
  }
  const Duration limit_;
  Deadline deadline_;
};

}  // namespace

ObjectTransfer::ObjectTransfer(storage::ObjectStore* store, Sender send, Limits limits)
    : store_(store), send_(std::move(send)), limits_(limits) {}

void ObjectTransfer::OnConnected() {
  std::lock_guard lock(mutex_);
  connected_ = true;
  oldest_valid_ = next_request_;
  changed_.notify_all();
}

void ObjectTransfer::OnDisconnected() {
  std::lock_guard lock(mutex_);
  connected_ = false;
  oldest_valid_ = next_request_;
  changed_.notify_all();
}

void ObjectTransfer::OnData(wire::ObjectData data) {
  std::lock_guard lock(mutex_);
  const auto at = requests_.find(data.request());
  if (at == requests_.end()) return;  // nobody waits any more
  at->second = Answer{std::move(data), std::nullopt};
  changed_.notify_all();
}

void ObjectTransfer::OnAck(wire::ObjectAck ack) {
  std::lock_guard lock(mutex_);
  uploaded_at_ = RealClock().Now();
  const auto at = requests_.find(ack.request());
  if (at == requests_.end()) return;
  at->second = Answer{std::nullopt, std::move(ack)};
  changed_.notify_all();
}

MonotonicTime ObjectTransfer::uploaded_at() const {
  std::lock_guard lock(mutex_);
  return uploaded_at_;
}

void ObjectTransfer::Wake() {
  std::lock_guard lock(mutex_);
  changed_.notify_all();
}

void ObjectTransfer::Shutdown() {
  std::lock_guard lock(mutex_);
  shut_down_ = true;
  changed_.notify_all();
}

Result<bool> ObjectTransfer::AwaitConnection(const std::atomic<bool>& cancelled) {
  std::unique_lock lock(mutex_);
  const bool away = !connected_;
  changed_.wait(lock, [&] { return connected_ || Ended(cancelled); });
  if (Ended(cancelled)) return Cancelled("the transfer was stopped");
  return away;
}

uint64_t ObjectTransfer::Ask(wire::ToCoordinator message) {
  uint64_t request = 0;
  {
    std::lock_guard lock(mutex_);
    request = next_request_++;
    requests_.emplace(request, std::nullopt);
  }
  if (message.has_object_get()) {
    message.mutable_object_get()->set_request(request);
  } else {
    message.mutable_object_put()->set_request(request);
  }
  send_(message);
  return request;
}

Result<ObjectTransfer::Answer> ObjectTransfer::Await(uint64_t request,
                                                     const std::atomic<bool>& cancelled) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, RealClock().Now() + limits_.answer, [&] {
    return requests_[request].has_value() || request < oldest_valid_ || Ended(cancelled);
  });
  std::optional<Answer> answer = std::move(requests_[request]);
  requests_.erase(request);
  if (Ended(cancelled)) return Cancelled("the transfer was stopped");
  if (!answer) return Unavailable("no answer");
  return *std::move(answer);
}

// The coordinator has too many at once, or cannot store just now.
void ObjectTransfer::Pause(const std::atomic<bool>& cancelled) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, RealClock().Now() + kAskAgainIn, [&] { return Ended(cancelled); });
}

void ObjectTransfer::Drop(uint64_t request) {
  std::lock_guard lock(mutex_);
  requests_.erase(request);
}

// One attempt at an object: chunks in order, some requested ahead.
class ObjectTransfer::Fetching {
 public:
  Fetching(ObjectTransfer* transfer, const wire::ObjectRef& object, const Arrived& arrived)
      : transfer_(transfer), object_(object), arrived_(arrived) {}
  ~Fetching() { Restart(); }

  Status Run(const std::atomic<bool>& cancelled) {
    LEPTON_ASSIGN_OR_RETURN(writer_, transfer_->store_->NewObject());
    Patience patience(transfer_->limits_.progress);
    while (!total_ || writer_->size() < *total_) {
      // Only time with a coordinator counts as standing still.
      LEPTON_ASSIGN_OR_RETURN(const bool was_away, transfer_->AwaitConnection(cancelled));
      if (was_away) patience.Moved();
      RequestAhead();
      const uint64_t request = ahead_.front();
      ahead_.pop_front();
      Result<Answer> answer = transfer_->Await(request, cancelled);
      if (!answer.ok()) {
        if (!AskAgain(answer.status())) return answer.status();
        LEPTON_RETURN_IF_ERROR(patience.Check());
        Restart();
        continue;
      }
      if (const Status taken = Take(*answer); AskAgain(taken)) {
        if (!patience.Check().ok()) return taken;
        Restart();
        transfer_->Pause(cancelled);
        continue;
      } else if (!taken.ok()) {
        return taken;
      }
      patience.Moved();
      Tell();
    }
    return writer_->Finish(object_.digest()).status();
  }

 private:
  void RequestAhead() {
    if (ahead_.empty()) next_offset_ = writer_->size();
    const size_t wanted = total_ ? kRequestsAhead : 1;
    while (ahead_.empty() || (ahead_.size() < wanted && next_offset_ < *total_)) {
      wire::ToCoordinator get;
      get.mutable_object_get()->set_digest(object_.digest());
      get.mutable_object_get()->set_offset(next_offset_);
      ahead_.push_back(transfer_->Ask(std::move(get)));
      next_offset_ += chunk_;
    }
  }

  Status Take(const Answer& answer) {
    if (!answer.data) return Internal("an upload's answer to a fetch");
    const wire::ObjectData& data = *answer.data;
    if (!data.error_code().empty()) return RemoteError(data.error_code(), data.error());
    if (data.digest() != object_.digest() || data.offset() != writer_->size() ||
        data.offset() + data.data().size() > data.total_bytes() ||
        (total_ && *total_ != data.total_bytes()) ||
        (data.data().empty() && data.total_bytes() > 0)) {
      return DataLoss("the coordinator's answer does not fit the request");
    }
    if (object_.bytes() > 0 && object_.bytes() != data.total_bytes()) {
      return DataLoss("the coordinator has " + std::to_string(data.total_bytes()) + " bytes, not " +
                      std::to_string(object_.bytes()));
    }
    total_ = data.total_bytes();
    LEPTON_RETURN_IF_ERROR(writer_->Append(data.data()));
    // A store may cut otherwise than we asked ahead.
    if (writer_->size() < *total_ && data.data().size() != chunk_) {
      chunk_ = data.data().size();
      Restart();
    }
    return Status::Ok();
  }

  void Tell() {
    {
      std::lock_guard lock(transfer_->mutex_);
      transfer_->fetching_[object_.digest()] = writer_->size();
    }
    transfer_->changed_.notify_all();
    if (arrived_) arrived_(writer_->size());
  }

  void Restart() {
    for (const uint64_t request : ahead_) transfer_->Drop(request);
    ahead_.clear();
  }

  ObjectTransfer* const transfer_;
  const wire::ObjectRef& object_;
  const Arrived& arrived_;
  std::unique_ptr<storage::ObjectStore::Writer> writer_;
  std::deque<uint64_t> ahead_;
  uint64_t next_offset_ = 0;
  uint64_t chunk_ = wire::kObjectChunkBytes;
  std::optional<uint64_t> total_;
};

Status ObjectTransfer::FetchOnce(const wire::ObjectRef& object, const std::atomic<bool>& cancelled,
                                 const Arrived& arrived) {
  Status status;
  for (int attempt = 0; attempt < limits_.attempts; ++attempt) {
    status = Fetching(this, object, arrived).Run(cancelled);
    if (status.code() != StatusCode::kDataLoss) return status;
    LOG(WARNING) << "object " << object.digest() << ": " << status.ToString();
  }
  return status;
}

// Tasks of one job want the same objects at the same time.
Result<bool> ObjectTransfer::AwaitOther(const storage::Digest& digest,
                                        const std::atomic<bool>& cancelled,
                                        const Arrived& arrived) {
  std::unique_lock lock(mutex_);
  uint64_t seen = 0;
  while (true) {
    auto other = fetching_.end();
    changed_.wait(lock, [&] {
      other = fetching_.find(digest);
      return other == fetching_.end() || other->second != seen || Ended(cancelled);
    });
    if (Ended(cancelled)) return Cancelled("the transfer was stopped");
    if (other == fetching_.end()) break;
    seen = other->second;
    if (!arrived) continue;
    lock.unlock();
    arrived(seen);
    lock.lock();
  }
  if (store_->Has(digest)) return true;
  fetching_[digest] = 0;
  return false;
}

Status ObjectTransfer::Fetch(const wire::ObjectRef& object, const std::atomic<bool>& cancelled,
                             const Arrived& arrived) {
  if (!storage::IsDigest(object.digest())) {
    return InvalidArgument("object: not a digest: " + object.digest());
  }
  LEPTON_ASSIGN_OR_RETURN(const bool here, AwaitOther(object.digest(), cancelled, arrived));
  if (here) return Status::Ok();
  Status status = FetchOnce(object, cancelled, arrived);
  {
    std::lock_guard lock(mutex_);
    fetching_.erase(object.digest());
    changed_.notify_all();
  }
  return status.WithContext("object " + object.digest());
}

Status ObjectTransfer::Upload(const storage::Digest& digest, const std::atomic<bool>& cancelled) {
  const std::string context = "object " + digest;
  if (!storage::IsDigest(digest)) return InvalidArgument("object: not a digest: " + digest);
  LEPTON_ASSIGN_OR_RETURN(const uint64_t total, store_->Size(digest));
  Patience patience(limits_.progress);
  uint64_t offset = 0;
  for (int stalled = 0; stalled < kStalledAnswers;) {
    LEPTON_ASSIGN_OR_RETURN(const bool was_away, AwaitConnection(cancelled));
    if (was_away) patience.Moved();
    wire::ToCoordinator message;
    wire::ObjectPut* put = message.mutable_object_put();
    put->set_digest(digest);
    put->set_offset(offset);
    put->set_total_bytes(total);
    if (offset < total) {
      LEPTON_ASSIGN_OR_RETURN(*put->mutable_data(),
                              store_->GetRange(digest, offset, wire::kObjectChunkBytes));
    }
    const uint64_t sent_to = offset + put->data().size();
    Result<Answer> answer = Await(Ask(std::move(message)), cancelled);
    if (!answer.ok()) {
      if (!AskAgain(answer.status())) return answer.status().WithContext(context);
      LEPTON_RETURN_IF_ERROR(patience.Check().WithContext(context));
      continue;
    }
    if (!answer->ack) return Internal(context + ": a fetch's answer to an upload");
    const wire::ObjectAck& ack = *answer->ack;
    if (!ack.error_code().empty()) {
      const Status refused = RemoteError(ack.error_code(), ack.error());
      if (!AskAgain(refused) || !patience.Check().ok()) return refused.WithContext(context);
      offset = 0;  // what it had of it is gone
      Pause(cancelled);
      continue;
    }
    if (ack.complete()) return Status::Ok();
    // Less than we sent: it restarted and asks for what it lost.
    stalled = ack.offset() == sent_to && sent_to > offset ? 0 : stalled + 1;
    offset = std::min<uint64_t>(ack.offset(), total);
    patience.Moved();
  }
  return Internal(context + ": the coordinator does not complete it");
}

}  // namespace lepton::worker
