// Training state at a step boundary: weights, optimiser state and where the data stream stood, as
// safetensors objects plus a JSON manifest object. A manifest is written after all it refers to,
// so a checkpoint that was cut short does not exist. FORMAT.md has the fields.
//
// Written whole (one object), or slice by slice by a gang of which nobody holds everything (an
// object a slice). Both read alike, whole or by the slice: what wrote a checkpoint does not show.
#pragma once

#include <functional>
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
  Digest data;  // safetensors object; WriteCheckpoint fills it. Empty when it was written in slices
  std::vector<Digest> slices;  // of one that was: safetensors objects
};

// Durable in `objects` on return.
struct WrittenCheckpoint {
  Digest manifest;
  Digest data;
};
Result<WrittenCheckpoint> WriteCheckpoint(ObjectStore& objects, CheckpointInfo info,
                                          const std::vector<CheckpointTensor>& tensors);
// The same in two parts: once the tensors are copied they may change, while the copy is written.
Result<std::string> CopyCheckpoint(const CheckpointInfo& info,
                                   const std::vector<CheckpointTensor>& tensors);
Result<WrittenCheckpoint> WriteCheckpoint(ObjectStore& objects, CheckpointInfo info,
                                          const std::string& copy);

// Elements [begin, begin + values.size()) of a flat tensor of `size` elements.
struct CheckpointSlice {
  std::string tensor;
  int64_t begin = 0;
  int64_t size = 0;
  std::span<const float> values;
};
// Which elements of a tensor have been seen: each may be once.
class SliceCover {
 public:
  bool Add(const CheckpointSlice& slice);  // false when it does not fit the others
  bool whole() const;

 private:
  int64_t size_ = 0;
  std::map<int64_t, int64_t> parts_;  // begin -> end
};
// Writes a checkpoint in slices of flat tensors, holding one object's in memory at a time. Threads:
// one caller.
class SlicedCheckpointWriter {
 public:
  // `objects` outlives it. `info` without data and slices.
  SlicedCheckpointWriter(ObjectStore& objects, CheckpointInfo info);
  // One object more. kInvalidArgument when a tensor's size is not what an earlier slice said.
  Status Add(const std::vector<CheckpointSlice>& slices);
  // The manifest. kInvalidArgument when the slices do not cover each tensor exactly once.
  struct Written {
    Digest manifest;
    std::vector<Digest> slices;
  };
  Result<Written> Finish();

 private:
  ObjectStore& objects_;
  CheckpointInfo info_;
  std::map<std::string, SliceCover> covers_;
};

struct LoadedCheckpoint {
  CheckpointInfo info;
  std::map<std::string, std::vector<float>> tensors;
};
// kNotFound; kDataLoss when an object is corrupt; kInvalidArgument when it is no checkpoint;
// kFailedPrecondition when a newer program wrote it.
Result<LoadedCheckpoint> ReadCheckpoint(const ObjectStore& objects, const Digest& manifest);
// Each slice in turn, holding one object's in memory: of a checkpoint that was written whole, each
// tensor. They cover each tensor exactly once, else kDataLoss. Ends with `take`'s error.
using TakeSlice = std::function<Status(const CheckpointSlice& slice)>;
Result<CheckpointInfo> ReadCheckpointSlices(const ObjectStore& objects, const Digest& manifest,
                                            const TakeSlice& take);
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
