#include "runtime/formats/huggingface/folder.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include "runtime/base/json_text.h"
#include "runtime/formats/huggingface/sentence_modules.h"

namespace lepton::huggingface {
namespace {

using nlohmann::json;

constexpr char kSingle[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr size_t kMaxShards = 4096;
constexpr uint64_t kMaxHeader = 100'000'000;
constexpr size_t kPiece = 4 << 20;

// What is kept of a folder besides weights and config.
constexpr const char* kFurtherFiles[] = {"tokenizer.json",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json",
                                         "added_tokens.json",
                                         "vocab.json",
                                         "vocab.txt",
                                         "merges.txt",
                                         "generation_config.json",
                                         "preprocessor_config.json",
                                         "chat_template.jinja",
                                         "config_sentence_transformers.json"};

// Bytes [offset, offset + size) of the file, which has them.
Status ReadExactly(const OpenedFile& file, const std::string& name, uint64_t offset, char* out,
                   size_t size) {
  size_t done = 0;
  while (done < size) {
    const auto at = static_cast<off_t>(file.begin + offset + done);
    const ssize_t got = ::pread(file.fd->get(), out + done, size - done, at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, name);
    if (got == 0) return DataLoss(name + ": became shorter while it was read");
    done += static_cast<size_t>(got);
  }
  return Status::Ok();
}

Result<safetensors::Layout> ReadLayout(const OpenFile& open, const std::string& name) {
  LEPTON_ASSIGN_OR_RETURN(const OpenedFile file, open(name));
  std::string start(std::min<uint64_t>(file.size, 8), '\0');
  LEPTON_RETURN_IF_ERROR(ReadExactly(file, name, 0, start.data(), start.size()));
  uint64_t header = 0;
  for (size_t i = 0; i < start.size(); ++i) {
    header |= uint64_t{static_cast<unsigned char>(start[i])} << (8 * i);
  }
  // What is too long or not there is refused with the rest.
  start.resize(std::min(file.size, 8 + std::min(header, kMaxHeader)));
  LEPTON_RETURN_IF_ERROR(ReadExactly(file, name, 0, start.data(), start.size()));
  auto layout = safetensors::ParseLayout(start, file.size);
  if (!layout.ok()) return layout.status().WithContext(name);
  return layout;
}

bool PlainName(const std::string& name) {
  constexpr std::string_view kEnd = ".safetensors";
  return name.size() > kEnd.size() && name.size() <= 255 && name[0] != '.' &&
         name.find('/') == name.npos && name.find('\0') == name.npos && name.ends_with(kEnd);
}

// The index's shards, each with the tensors that it says are there.
Result<std::map<std::string, std::set<std::string>>> ReadIndex(const std::string& text) {
  const auto bad = [](const std::string& what) {
    return InvalidArgument(std::string(kIndex) + ": " + what);
  };
  if (NestedDeeper(text, 16)) return bad("is nested too deep");
  // Without a callback, which the parser asks in quadratic time.
  const json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded() || !document.is_object()) return bad("is not a JSON object");
  const auto weights = document.find("weight_map");
  if (weights == document.end() || !weights->is_object() || weights->empty()) {
    return bad("weight_map: missing: must name the file of each tensor");
  }
  std::map<std::string, std::set<std::string>> shards;
  for (const auto& [tensor, file] : weights->items()) {
    if (!file.is_string() || !PlainName(file.get<std::string>())) {
      return bad("weight_map: \"" + tensor + "\": is not in a .safetensors file of this folder");
    }
    shards[file.get<std::string>()].insert(tensor);
    if (shards.size() > kMaxShards) return bad("weight_map: names more than 4096 files");
  }
  return shards;
}

// Other errors than its absence are for whoever reads it.
bool Exists(const OpenFile& open, const std::string& name) {
  return open(name).status().code() != StatusCode::kNotFound;
}

// A file's tensors as the model's; `listed`: what the index says of it, or null.
Result<Shard> ReadShard(const OpenFile& open, const Config& config, const std::string& name,
                        const std::set<std::string>* listed, std::set<std::string>& seen) {
  LEPTON_ASSIGN_OR_RETURN(safetensors::Layout layout, ReadLayout(open, name));
  if (listed != nullptr) {
    std::set<std::string_view> there;
    for (const safetensors::TensorPlace& place : layout.tensors) there.insert(place.name);
    for (const std::string& tensor : *listed) {
      if (!there.contains(tensor)) {
        return InvalidArgument(std::string(kIndex) + ": \"" + tensor + "\" is not in " + name);
      }
    }
  }
  Shard shard{name, {}};
  int64_t passed_over = 0;
  std::string first_passed_over;
  for (safetensors::TensorPlace& place : layout.tensors) {
    if (listed != nullptr && !listed->contains(place.name)) {
      return InvalidArgument(name + ": \"" + place.name + "\" is not in " + kIndex);
    }
    const std::string stored = place.name;
    place.name = CanonicalTensorName(config, stored);
    if (place.name.empty()) {
      if (passed_over++ == 0) first_passed_over = stored;
      continue;
    }
    if (place.dtype != "F32" && place.dtype != "F16" && place.dtype != "BF16") {
      return InvalidArgument(name + ": \"" + stored + "\": dtype " + place.dtype +
                             " is not supported: must be F32, F16 or BF16");
    }
    if (!seen.insert(place.name).second) {
      return InvalidArgument(name + ": \"" + stored + "\": a tensor of this name was there before");
    }
    shard.tensors.push_back(std::move(place));
  }
  if (passed_over > 0) {
    LOG(INFO) << name << ": " << passed_over << " tensors are passed over, which a "
              << config.architecture << " does not have: \"" << first_passed_over << "\""
              << (passed_over > 1 ? ", ..." : "");
  }
  return shard;
}

// Whether a base model has a pooler is not in its config.
void SetPooler(const std::set<std::string>& tensors, Config& config) {
  const bool there =
      tensors.contains("bert.pooler.dense.weight") || tensors.contains("vit.pooler.dense.weight");
  if (config.task != Config::Task::kBase) return;
  config.model.transformer.pooler = config.model.transformer.pooler && there;
  config.model.vit.pooler = config.model.vit.pooler && there;
}

}  // namespace

Result<OpenedFile> WholeFile(UniqueFd fd, const std::string& name) {
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, name);
  if (!S_ISREG(info.st_mode)) return InvalidArgument(name + ": is not a regular file");
  return OpenedFile{std::make_shared<const UniqueFd>(std::move(fd)), 0,
                    static_cast<uint64_t>(info.st_size)};
}

Result<OpenFile> OpenFilesOf(const std::filesystem::path& folder) {
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, folder.string());
  const auto shared = std::make_shared<const UniqueFd>(std::move(fd));
  return OpenFile([shared, folder](const std::string& name) -> Result<OpenedFile> {
    // O_NONBLOCK: opening a FIFO must not hang.
    UniqueFd file(::openat(shared->get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file.valid()) return ErrnoStatus(errno, (folder / name).string());
    return WholeFile(std::move(file), name);
  });
}

Result<std::string> ReadSmallFile(const OpenFile& open, const std::string& name, size_t limit) {
  LEPTON_ASSIGN_OR_RETURN(const OpenedFile file, open(name));
  if (file.size > limit) {
    return ResourceExhausted(name + ": has " + std::to_string(file.size) + " bytes; the limit is " +
                             std::to_string(limit));
  }
  std::string bytes(file.size, '\0');
  LEPTON_RETURN_IF_ERROR(ReadExactly(file, name, 0, bytes.data(), bytes.size()));
  return bytes;
}

Status ReadPieces(const OpenFile& open, const std::string& name, uint64_t begin, uint64_t end,
                  const std::function<Status(std::string_view)>& piece) {
  LEPTON_ASSIGN_OR_RETURN(const OpenedFile file, open(name));
  if (end > file.size) return DataLoss(name + ": became shorter while it was read");
  std::string bytes;
  while (begin < end) {
    bytes.resize(std::min<uint64_t>(kPiece, end - begin));
    LEPTON_RETURN_IF_ERROR(ReadExactly(file, name, begin, bytes.data(), bytes.size()));
    LEPTON_RETURN_IF_ERROR(piece(bytes));
    begin += bytes.size();
  }
  return Status::Ok();
}

Result<Folder> ReadFolder(const OpenFile& open) {
  Folder folder;
  LEPTON_ASSIGN_OR_RETURN(folder.config_json, ReadSmallFile(open, "config.json", kMaxConfigBytes));
  LEPTON_ASSIGN_OR_RETURN(folder.config, ParseConfig(folder.config_json));
  LEPTON_RETURN_IF_ERROR(ReadSentenceModules(open, folder));
  std::set<std::string> seen;
  if (Exists(open, kSingle)) {
    LEPTON_ASSIGN_OR_RETURN(Shard shard, ReadShard(open, folder.config, kSingle, nullptr, seen));
    folder.shards.push_back(std::move(shard));
  } else if (Exists(open, kIndex)) {
    LEPTON_ASSIGN_OR_RETURN(const std::string text,
                            ReadSmallFile(open, kIndex, kMaxSmallFileBytes));
    LEPTON_ASSIGN_OR_RETURN(const auto shards, ReadIndex(text));
    folder.has_index = true;
    for (const auto& [file, tensors] : shards) {
      LEPTON_ASSIGN_OR_RETURN(Shard shard, ReadShard(open, folder.config, file, &tensors, seen));
      folder.shards.push_back(std::move(shard));
    }
  } else {
    return NotFound(std::string(kSingle) + ": missing, and so is " + kIndex +
                    ": only safetensors are read, so save the model with safe_serialization");
  }
  SetPooler(seen, folder.config);
  for (const char* file : kFurtherFiles) {
    if (Exists(open, file)) folder.files.push_back(file);
  }
  return folder;
}

}  // namespace lepton::huggingface
