// Training state at a step boundary: weights, optimiser state and where the data stream stood, as
// safetensors objects plus a JSON manifest object. A manifest is written after all it refers to,
// so a checkpoint that was cut short does not exist. FORMAT.md has the fields.
//
// A gang writes a checkpoint together: each rank an object with its slices of flat tensors, then
// one of them the manifest. Who wrote what does not show: it is read whole, or by the slice, by any
// number of ranks.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "storage/objects/object_store.h"

namespace lepton::storage {

struct CheckpointInfo {
  std::string job_id;
  uint64_t step = 0;  // steps done
  uint64_t seed = 0;
  std::map<std::string, double> metrics;
  struct Samples {
    uint64_t rows = 0;
    uint64_t ids = 0;  // the sum of their numbers, modulo 2^64
  };
  std::optional<Samples> samples;  // training examples that its steps used; older ones do not say
  // Sums over the epoch so far, for whoever goes on from here; older ones do not say.
  struct EpochLoss {
    double sum = 0, predictions = 0;
  };
  std::optional<EpochLoss> epoch_loss;
  std::vector<Digest> slices;  // safetensors objects
  Digest data;                 // of version 1, which is read only: the one object, of whole tensors
};

// Elements [begin, begin + values.size()) of a flat tensor of `size` elements.
struct CheckpointSlice {
  std::string tensor;
  int64_t begin = 0;
  int64_t size = 0;
  std::span<const float> values;
};
// The object that is the `number`th of the manifest, without those of `slices` that are empty; the
// values may change on return. kInvalidArgument for names that safetensors cannot have.
Result<std::string> SerializeSlices(const CheckpointInfo& info, size_t number,
                                    const std::vector<CheckpointSlice>& slices);
// `info.slices` are in `objects`, perhaps of other workers. Durable in `objects` on return.
Result<Digest> WriteCheckpointManifest(ObjectStore& objects, const CheckpointInfo& info);

struct LoadedCheckpoint {
  CheckpointInfo info;
  std::map<std::string, std::vector<float>> tensors;
};
// kNotFound; kDataLoss when an object is corrupt; kInvalidArgument when it is no checkpoint;
// kFailedPrecondition when a newer program wrote it.
Result<LoadedCheckpoint> ReadCheckpoint(const ObjectStore& objects, const Digest& manifest);
// Each slice in turn, holding one object's in memory. They cover each tensor exactly once, else
// kDataLoss. Ends with `take`'s error.
using TakeSlice = std::function<Status(const CheckpointSlice& slice)>;
Result<CheckpointInfo> ReadCheckpointSlices(const ObjectStore& objects, const Digest& manifest,
                                            const TakeSlice& take);
// The manifest alone.
Result<CheckpointInfo> ReadCheckpointInfo(const ObjectStore& objects, const Digest& manifest);

// Which checkpoints to keep: the newest `keep_last` (at least one, for restarts) and the best
// `keep_best` by metric, the newer of equals; those without the metric are never the best, nor is
// one whose step was done again. Returns the indices into `all` (in step order) to delete.
struct RetentionPolicy {
  int keep_last = 2;
  int keep_best = 1;
  std::string metric;
  bool maximize = true;
};
std::vector<size_t> CheckpointsToDelete(const std::vector<CheckpointInfo>& all,
                                        const RetentionPolicy& policy);

}  // namespace lepton::storage
