#include "scheduler/loop/shard_files.h"

#include <glog/logging.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace lepton::scheduler {
namespace {

constexpr Duration kRetryIn = std::chrono::seconds(5);
// Of the disk, for the journal and whatever else must go on.
constexpr uint64_t kKeptBytes = uint64_t{64} << 20;

}  // namespace

Status CheckRoom(uint64_t bytes, uint64_t available) {
  if (available >= kKeptBytes && bytes <= available - kKeptBytes) return Status::Ok();
  return ResourceExhausted("needs " + std::to_string((bytes + kKeptBytes) >> 20) +
                           " MiB of the disk, which has " + std::to_string(available >> 20));
}

Result<storage::Digest> JoinObjects(storage::ObjectStore& objects,
                                    const std::vector<storage::Digest>& parts,
                                    const std::atomic<bool>& stopping, uint64_t* bytes, int* bad) {
  *bad = -1;
  uint64_t sum = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Result<uint64_t> size = objects.Size(parts[i]);
    if (!size.ok()) {
      if (size.status().code() == StatusCode::kNotFound) *bad = static_cast<int>(i);
      return size.status();
    }
    sum += *size;
  }
  std::error_code error;
  const std::filesystem::space_info disk = std::filesystem::space(objects.root(), error);
  if (!error) LEPTON_RETURN_IF_ERROR(CheckRoom(sum, disk.available));
  LEPTON_ASSIGN_OR_RETURN(const auto file, objects.NewObject());
  for (size_t i = 0; i < parts.size(); ++i) {
    if (stopping) return Cancelled("the coordinator ends");
    const Result<MappedFile> part = objects.Map(parts[i]);
    if (!part.ok()) {
      const StatusCode code = part.status().code();
      if (code == StatusCode::kNotFound || code == StatusCode::kDataLoss) {
        *bad = static_cast<int>(i);
      }
      return part.status();
    }
    LEPTON_RETURN_IF_ERROR(file->Append(part->bytes()));
  }
  *bytes = file->size();
  return file->Finish();
}

void ShardFiles::Update(const State& state) {
  for (const JobId& id : state.active) {
    const Job& job = state.jobs.at(id);
    const Shards& shards = job.shards();
    const bool due = shards.rows() > 0 && shards.file().empty() && job.state() != JOB_STOPPING &&
                     static_cast<int>(shards.done()) == shards.results_size();
    if (!due) continue;
    {
      std::lock_guard lock(mutex_);
      if (!under_way_.insert(id).second) continue;
    }
    std::vector<storage::Digest> parts;
    for (const ShardResult& result : shards.results()) parts.push_back(result.object());
    pool_.Submit([this, id, parts = std::move(parts)] { Join(id, parts); });
  }
}

void ShardFiles::Join(const JobId& id, const std::vector<storage::Digest>& parts) {
  ShardsStored stored;
  stored.job = id;
  // Until a record refers to it, nothing else keeps the new object.
  auto hold = loop_.keeper().HoldAll();
  Result<storage::Digest> file =
      JoinObjects(objects_, parts, stopping_, &stored.bytes, &stored.bad_shard);
  if (stopping_) return;
  if (file.ok()) {
    stored.object = *std::move(file);
  } else {
    stored.status = file.status().WithContext("predictions of job " + id.str());
    LOG(ERROR) << stored.status.ToString();
  }
  const bool wait = !stored.status.ok() && stored.bad_shard < 0;
  loop_.Post(std::move(stored), [this, id, hold, wait](const Reply& reply, const State& state) {
    if (!wait && reply.status.ok()) return Again(id, state);
    loop_.After(kRetryIn, [this, id](const State& then) { Again(id, then); });
  });
}

void ShardFiles::Again(const JobId& id, const State& state) {
  {
    std::lock_guard lock(mutex_);
    under_way_.erase(id);
  }
  Update(state);
}

}  // namespace lepton::scheduler
