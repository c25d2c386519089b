// Training state at a step boundary: weights, optimiser state and where the data stream stood, as
// one safetensors object plus a JSON manifest object. A manifest is written after all it refers to,
// so a checkpoint that was cut short does not exist. FORMAT.md has the fields.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "storage/objects/object_store.h"

namespace lepton::storage {

struct CheckpointTensor {
  std::string name;  // "weights", "optimizer", or a parameter's name
  std::vector<int64_t> shape;
  std::span<const float> values;
};

struct CheckpointInfo {
  std::string job_id;
  uint64_t step = 0;  // steps done
  uint64_t seed = 0;
  std::map<std::string, double> metrics;
  Digest data;  // safetensors object; WriteCheckpoint fills it
};

// Durable in `objects` on return.
struct WrittenCheckpoint {
  Digest manifest;
  Digest data;
};
Result<WrittenCheckpoint> WriteCheckpoint(ObjectStore& objects, CheckpointInfo info,
                                          const std::vector<CheckpointTensor>& tensors);

struct LoadedCheckpoint {
  CheckpointInfo info;
  std::map<std::string, std::vector<float>> tensors;
};
// kNotFound; kDataLoss when an object is corrupt; kInvalidArgument when it is no checkpoint;
// kFailedPrecondition when a newer program wrote it.
Result<LoadedCheckpoint> ReadCheckpoint(const ObjectStore& objects, const Digest& manifest);
// The manifest alone.
Result<CheckpointInfo> ReadCheckpointInfo(const ObjectStore& objects, const Digest& manifest);

// Which checkpoints to keep: the newest `keep_last` (at least one, for restarts) and the best
// `keep_best` by metric, the newer of equals; those without the metric are never the best. Returns
// the indices into `all` (in step order) to delete.
struct RetentionPolicy {
  int keep_last = 2;
  int keep_best = 1;
  std::string metric;
  bool maximize = true;
};
std::vector<size_t> CheckpointsToDelete(const std::vector<CheckpointInfo>& all,
                                        const RetentionPolicy& policy);

}  // namespace lepton::storage
