// A model folder as it lies on a disk: config.json, weights in one safetensors file or in shards
// with an index, a tokenizer. Only what is needed of each file is read: the tensors stay where they
// are. Bytes from outside: bounded, never trusted.
// Threads: plain values; reading blocks on the disk.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/formats/huggingface/config.h"
#include "runtime/formats/safetensors/safetensors.h"

namespace lepton::huggingface {

// A file, or the part of one that stands for it: bytes [begin, begin + size) of a descriptor.
struct OpenedFile {
  std::shared_ptr<const UniqueFd> fd;
  uint64_t begin = 0;
  uint64_t size = 0;
};
// Opens a file of the folder for reading; kNotFound when there is none of that name. Callers that
// read on others' behalf confine it. Names have no slash in them, but for the config.json of a
// folder within.
using OpenFile = std::function<Result<OpenedFile>(const std::string& name)>;
// The whole of a regular file; kInvalidArgument, starting with `name`, for anything else.
Result<OpenedFile> WholeFile(UniqueFd fd, const std::string& name);
// Of a folder that the caller may read. kNotFound when there is no such folder.
Result<OpenFile> OpenFilesOf(const std::filesystem::path& folder);

struct Shard {
  std::string file;
  // Those that the model uses, by the names that it gives them; F32, F16 or BF16.
  std::vector<safetensors::TensorPlace> tensors;
};

struct Folder {
  Config config;
  std::string config_json;  // as it is in the folder
  std::vector<Shard> shards;
  bool has_index = false;  // the shards are listed in model.safetensors.index.json
  // Further files that are there and belong to the model: tokenizer.json, generation_config.json..
  std::vector<std::string> files;
  // Those of a model of sentence-transformers, which the model says in other words.
  std::vector<std::string> module_files;
};

inline constexpr size_t kMaxSmallFileBytes = 64 << 20;  // of each further file

// kInvalidArgument names the file and what is wrong in it; kNotFound the file that is missing.
Result<Folder> ReadFolder(const OpenFile& open);

// The files, by name, by which sentence-transformers makes of such a body's tokens what our model
// of head none makes of them; its pooler is off. ReadFolder reads them back.
std::vector<std::pair<std::string, std::string>> SentenceModules(const spec::ModelSpec& model,
                                                                 int64_t text_tokens);

// The whole of a small file.
Result<std::string> ReadSmallFile(const OpenFile& open, const std::string& name, size_t limit);
// Bytes [begin, end) of a file, in pieces, in order; kDataLoss when it is shorter.
Status ReadPieces(const OpenFile& open, const std::string& name, uint64_t begin, uint64_t end,
                  const std::function<Status(std::string_view)>& piece);

}  // namespace lepton::huggingface
