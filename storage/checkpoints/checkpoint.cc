#include "storage/checkpoints/checkpoint.h"

#include <algorithm>
#include <bit>
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
constexpr int kVersion = 1;
constexpr char kOwnerKey[] = "lepton.checkpoint";

// Written into the data object too: two steps with equal tensors are still two objects, so deleting
// one checkpoint cannot take another's data along.
std::string Owner(const CheckpointInfo& info) {
  return info.job_id + "/" + std::to_string(info.step) + "/" + std::to_string(info.seed);
}

nlohmann::json ToJson(const CheckpointInfo& info) {
  return {{"format", kFormat}, {"version", kVersion}, {"job_id", info.job_id},
          {"step", info.step}, {"seed", info.seed},   {"metrics", NumbersToJson(info.metrics)},
          {"data", info.data}};
}

std::string_view AsBytes(std::span<const float> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

Result<LoadedCheckpoint> Decode(CheckpointInfo info, const std::string& bytes) {
  LEPTON_ASSIGN_OR_RETURN(const safetensors::File file, safetensors::Parse(bytes));
  const auto owner = file.metadata.find(kOwnerKey);
  if (owner == file.metadata.end() || owner->second != Owner(info)) {
    return DataLoss("the data object belongs to another checkpoint");
  }
  LoadedCheckpoint loaded{std::move(info), {}};
  for (const safetensors::TensorView& t : file.tensors) {
    if (t.dtype != "F32") return DataLoss("tensor \"" + t.name + "\" is " + t.dtype + ", not F32");
    std::vector<float>& values = loaded.tensors[t.name];
    values.resize(t.bytes.size() / sizeof(float));
    if (!values.empty()) std::memcpy(values.data(), t.bytes.data(), t.bytes.size());
  }
  return loaded;
}

}  // namespace

Result<WrittenCheckpoint> WriteCheckpoint(ObjectStore& objects, CheckpointInfo info,
                                          const std::vector<CheckpointTensor>& tensors) {
  const std::string where = "checkpoint " + std::to_string(info.step);
  std::vector<safetensors::TensorView> views;
  views.reserve(tensors.size());
  for (const CheckpointTensor& t : tensors) {
    views.push_back({t.name, "F32", t.shape, AsBytes(t.values)});
  }
  auto bytes = safetensors::Serialize(views, {{kOwnerKey, Owner(info)}});
  if (!bytes.ok()) return bytes.status().WithContext(where);
  auto data = objects.Put(*bytes);
  if (!data.ok()) return data.status().WithContext(where);
  info.data = *data;
  auto manifest = objects.Put(DumpManifest(ToJson(info)));
  if (!manifest.ok()) return manifest.status().WithContext(where);
  return WrittenCheckpoint{*std::move(manifest), *std::move(data)};
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
  reader.ReadDigest("data", &info.data);
  LEPTON_RETURN_IF_ERROR(reader.status());
  return info;
}

Result<LoadedCheckpoint> ReadCheckpoint(const ObjectStore& objects, const Digest& manifest) {
  LEPTON_ASSIGN_OR_RETURN(CheckpointInfo info, ReadCheckpointInfo(objects, manifest));
  const std::string where = "checkpoint " + std::to_string(info.step);
  auto bytes = objects.Get(info.data);
  if (!bytes.ok()) return bytes.status().WithContext(where);
  auto loaded = Decode(std::move(info), *bytes);
  if (!loaded.ok()) return loaded.status().WithContext(where);
  return loaded;
}

std::vector<size_t> CheckpointsToDelete(const std::vector<CheckpointInfo>& all,
                                        const RetentionPolicy& policy) {
  std::set<size_t> keep;
  const size_t newest = std::min<size_t>(all.size(), std::max(policy.keep_last, 1));
  for (size_t i = all.size() - newest; i < all.size(); ++i) keep.insert(i);

  std::vector<std::pair<double, size_t>> ranked;  // larger is better, then newer
  for (size_t i = 0; i < all.size(); ++i) {
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
