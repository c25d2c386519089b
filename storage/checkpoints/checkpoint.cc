#include "storage/checkpoints/checkpoint.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/formats/safetensors/safetensors.h"
#include "storage/manifests/manifest_reader.h"

namespace lepton::storage {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are stored little-endian");

constexpr char kFormat[] = "lepton.checkpoint";
constexpr int kVersion = 2;
constexpr char kOwnerKey[] = "lepton.checkpoint";

// Written into the data object too: two steps with equal tensors are still two objects, so deleting
// one checkpoint cannot take another's data along.
std::string Owner(const CheckpointInfo& info) {
  return info.job_id + "/" + std::to_string(info.step) + "/" + std::to_string(info.seed);
}

nlohmann::json ToJson(const CheckpointInfo& info) {
  nlohmann::json json = {{"format", kFormat},     {"version", kVersion},
                         {"job_id", info.job_id}, {"step", info.step},
                         {"seed", info.seed},     {"metrics", NumbersToJson(info.metrics)},
                         {"slices", info.slices}};
  if (info.samples) json["samples"] = {{"rows", info.samples->rows}, {"ids", info.samples->ids}};
  if (info.epoch_loss) {
    json["epoch_loss"] = NumbersToJson(
        {{"sum", info.epoch_loss->sum}, {"predictions", info.epoch_loss->predictions}});
  }
  return json;
}

std::string SliceOwner(const CheckpointInfo& info, size_t number) {
  return Owner(info) + "/" + std::to_string(number);
}

// A slice's name in its file: "optimizer@16384/40000", where it begins and how large the whole is.
std::string SliceName(const CheckpointSlice& slice) {
  return slice.tensor + "@" + std::to_string(slice.begin) + "/" + std::to_string(slice.size);
}

Result<CheckpointSlice> ParseSliceName(const std::string& name) {
  CheckpointSlice slice;
  const size_t at = name.rfind('@'), cut = name.rfind('/');
  if (at == std::string::npos || cut == std::string::npos || cut < at) {
    return DataLoss("slice \"" + name + "\": the name does not say where it belongs");
  }
  slice.tensor = name.substr(0, at);
  const char* const end = name.data() + name.size();
  const auto begin = std::from_chars(name.data() + at + 1, end, slice.begin);
  const auto size = std::from_chars(name.data() + cut + 1, end, slice.size);
  if (begin.ec != std::errc() || begin.ptr != name.data() + cut || size.ec != std::errc() ||
      size.ptr != end || slice.begin < 0 || slice.size < 0) {
    return DataLoss("slice \"" + name + "\": the name does not say where it belongs");
  }
  return slice;
}

std::string_view AsBytes(std::span<const float> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

// One data object: `owner` is what its metadata must name.
Status Decode(const std::string& bytes, const std::string& wanted, bool sliced,
              const TakeSlice& take) {
  LEPTON_ASSIGN_OR_RETURN(const safetensors::File file, safetensors::Parse(bytes));
  const auto owner = file.metadata.find(kOwnerKey);
  if (owner == file.metadata.end() || owner->second != wanted) {
    return DataLoss("the data object belongs to another checkpoint");
  }
  for (const safetensors::TensorView& t : file.tensors) {
    if (t.dtype != "F32") return DataLoss("tensor \"" + t.name + "\" is " + t.dtype + ", not F32");
    std::vector<float> values(t.bytes.size() / sizeof(float));
    if (!values.empty()) std::memcpy(values.data(), t.bytes.data(), t.bytes.size());
    CheckpointSlice slice{t.name, 0, static_cast<int64_t>(values.size()), {}};
    if (sliced) {
      LEPTON_ASSIGN_OR_RETURN(slice, ParseSliceName(t.name));
    }
    slice.values = values;
    LEPTON_RETURN_IF_ERROR(take(slice));
  }
  return Status::Ok();
}

// Which elements of a tensor have been seen: each may be once.
class SliceCover {
 public:
  // False when it does not fit the others.
  bool Add(const CheckpointSlice& slice) {
    const auto length = static_cast<int64_t>(slice.values.size());
    if (parts_.empty()) size_ = slice.size;
    if (slice.size != size_ || length > size_ || slice.begin < 0 || slice.begin > size_ - length) {
      return false;
    }
    return slice.values.empty() || parts_.emplace(slice.begin, slice.begin + length).second;
  }

  bool whole() const {
    int64_t at = 0;
    for (const auto& [begin, end] : parts_) {
      if (begin != at) return false;
      at = end;
    }
    return at == size_;
  }

 private:
  int64_t size_ = 0;
  std::map<int64_t, int64_t> parts_;  // begin -> end
};

}  // namespace

Result<std::string> SerializeSlices(const CheckpointInfo& info, size_t number,
                                    const std::vector<CheckpointSlice>& slices) {
  std::vector<safetensors::TensorView> views;
  for (const CheckpointSlice& slice : slices) {
    if (slice.values.empty()) continue;
    views.push_back({SliceName(slice),
                     "F32",
                     {static_cast<int64_t>(slice.values.size())},
                     AsBytes(slice.values)});
  }
  auto bytes = safetensors::Serialize(views, {{kOwnerKey, SliceOwner(info, number)}});
  if (bytes.ok()) return bytes;
  return bytes.status().WithContext("checkpoint " + std::to_string(info.step));
}

Result<Digest> WriteCheckpointManifest(ObjectStore& objects, const CheckpointInfo& info) {
  auto manifest = objects.Put(DumpManifest(ToJson(info)));
  if (manifest.ok()) return manifest;
  return manifest.status().WithContext("checkpoint " + std::to_string(info.step));
}

Result<CheckpointInfo> ReadCheckpointInfo(const ObjectStore& objects, const Digest& manifest) {
  auto text = objects.Get(manifest);
  if (!text.ok()) return text.status().WithContext("checkpoint manifest");
  LEPTON_ASSIGN_OR_RETURN(ManifestReader reader, ManifestReader::Parse(*text, kFormat, kVersion));
  CheckpointInfo info;
  reader.Read("job_id", &info.job_id);
  reader.Read("step", &info.step);
  reader.Read("seed", &info.seed);
  reader.Read("metrics", &info.metrics);
  if (reader.Has("samples")) {
    ManifestReader samples = reader.ReadObject("samples");
    info.samples = CheckpointInfo::Samples();
    samples.Read("rows", &info.samples->rows);
    samples.Read("ids", &info.samples->ids);
  }
  if (reader.Has("epoch_loss")) {
    std::map<std::string, double> loss;
    reader.Read("epoch_loss", &loss);
    info.epoch_loss = {loss["sum"], loss["predictions"]};
  }
  uint64_t version = 1;
  reader.Read("version", &version);
  if (version == 1) {
    reader.ReadDigest("data", &info.data);
  } else {
    reader.Read("slices", &info.slices);
    for (const Digest& slice : info.slices) {
      if (!IsDigest(slice)) reader.Fail("slices", "\"" + slice + "\" is not a digest");
    }
  }
  LEPTON_RETURN_IF_ERROR(reader.status());
  return info;
}

Result<CheckpointInfo> ReadCheckpointSlices(const ObjectStore& objects, const Digest& manifest,
                                            const TakeSlice& take) {
  LEPTON_ASSIGN_OR_RETURN(CheckpointInfo info, ReadCheckpointInfo(objects, manifest));
  const std::string where = "checkpoint " + std::to_string(info.step);
  const bool sliced = info.data.empty();
  uint64_t stored = 0;
  for (const Digest& slice : info.slices) {
    const Result<uint64_t> bytes = objects.Size(slice);
    if (!bytes.ok()) return bytes.status().WithContext(where);
    stored += *bytes;
  }
  std::map<std::string, SliceCover> covers;
  const auto checked = [&](const CheckpointSlice& slice) {
    const bool plausible = !sliced || static_cast<uint64_t>(slice.size) <= stored / sizeof(float);
    if (!plausible || !covers[slice.tensor].Add(slice)) {
      return DataLoss("slice " + SliceName(slice) + " does not fit the others");
    }
    return take(slice);
  };
  for (size_t i = 0; i < (sliced ? info.slices.size() : 1); ++i) {
    auto bytes = objects.Get(sliced ? info.slices[i] : info.data);
    if (!bytes.ok()) return bytes.status().WithContext(where);
    const Status taken =
        Decode(*bytes, sliced ? SliceOwner(info, i) : Owner(info), sliced, checked);
    if (!taken.ok()) return taken.WithContext(where);
  }
  for (const auto& [name, cover] : covers) {
    if (!cover.whole()) return DataLoss(where + ": " + name + " is not there as a whole");
  }
  return info;
}

Result<LoadedCheckpoint> ReadCheckpoint(const ObjectStore& objects, const Digest& manifest) {
  LoadedCheckpoint loaded;
  LEPTON_ASSIGN_OR_RETURN(
      loaded.info, ReadCheckpointSlices(objects, manifest, [&](const CheckpointSlice& slice) {
        std::vector<float>& values = loaded.tensors[slice.tensor];
        values.resize(static_cast<size_t>(slice.size));
        std::copy(slice.values.begin(), slice.values.end(), values.begin() + slice.begin);
        return Status::Ok();
      }));
  return loaded;
}

std::vector<size_t> CheckpointsToDelete(const std::vector<CheckpointInfo>& all,
                                        const RetentionPolicy& policy) {
  std::set<size_t> keep;
  const size_t newest = std::min<size_t>(all.size(), std::max(policy.keep_last, 1));
  for (size_t i = all.size() - newest; i < all.size(); ++i) keep.insert(i);

  std::vector<std::pair<double, size_t>> ranked;  // larger is better, then newer
  for (size_t i = 0; i < all.size(); ++i) {
    if (i + 1 < all.size() && all[i + 1].step == all[i].step) continue;
    const auto metric = all[i].metrics.find(policy.metric);
    if (metric == all[i].metrics.end() || std::isnan(metric->second)) continue;
    ranked.emplace_back(policy.maximize ? metric->second : -metric->second, i);
  }
  std::sort(ranked.rbegin(), ranked.rend());
  const size_t best = std::min<size_t>(ranked.size(), std::max(policy.keep_best, 0));
  for (size_t i = 0; i < best; ++i) keep.insert(ranked[i].second);

  std::vector<size_t> to_delete;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!keep.contains(i)) to_delete.push_back(i);
  }
  return to_delete;
}

}  // namespace lepton::storage
