#include "runtime/formats/huggingface/folder_archive.h"

#include <unistd.h>

#include <cstdio>
#include <map>

namespace lepton::huggingface {
namespace {

constexpr size_t kBlock = 512;
constexpr size_t kMaxFiles = 8192;

// The fields of a header that matter (POSIX pax, section "ustar Interchange Format").
constexpr size_t kNameEnd = 100, kSizeAt = 124, kChecksumAt = 148, kTypeAt = 156, kMagicAt = 257,
                 kPrefixAt = 345;

Status BadArchive(const std::string& what) {
  return InvalidArgument("archive: " + what);
}

// Octal digits, or, with the first bit set, a binary number. -1 for anything else.
int64_t NumberAt(std::string_view header, size_t at, size_t size) {
  const std::string_view field = header.substr(at, size);
  int64_t number = 0;
  if (static_cast<unsigned char>(field[0]) == 0x80) {
    for (const char c : field.substr(size - 8)) {
      if (number >= int64_t{1} << 55) return -1;
      number = number << 8 | static_cast<unsigned char>(c);
    }
    return number;
  }
  bool digits = false;
  for (const char c : field) {
    if (c == ' ' && !digits) continue;
    if (c == ' ' || c == '\0') break;
    if (c < '0' || c > '7') return -1;
    number = number * 8 + (c - '0');
    digits = true;
  }
  return digits ? number : -1;
}

int64_t Checksum(std::string_view header) {
  int64_t sum = 0;
  for (size_t i = 0; i < kBlock; ++i) {
    const bool itself = i >= kChecksumAt && i < kChecksumAt + 8;
    sum += itself ? ' ' : static_cast<unsigned char>(header[i]);
  }
  return sum;
}

// A file of the folder, or the config.json of a folder within.
bool InFolder(std::string_view name) {
  const size_t slash = name.find('/');
  if (slash == name.npos) return !name.empty();
  return slash > 0 && name[0] != '.' && name.substr(slash + 1) == "config.json";
}

struct Entry {
  std::string name;
  uint64_t size = 0;
};
Result<Entry> ReadHeader(std::string_view header) {
  if (!IsArchive(header)) return BadArchive("a header is damaged, or of another kind of archive");
  Entry entry;
  entry.name = std::string(header.substr(0, kNameEnd).substr(0, header.find('\0')));
  if (entry.name.size() > kNameEnd) entry.name.resize(kNameEnd);
  const int64_t size = NumberAt(header, kSizeAt, 12);
  const char type = header[kTypeAt];
  if (type != '0' && type != '\0') {
    return BadArchive("\"" + entry.name + "\" is not a regular file");
  }
  if (!InFolder(entry.name) || header[kPrefixAt] != '\0') {
    return BadArchive("\"" + entry.name + "\" is not the name of a file in a folder");
  }
  if (size < 0) return BadArchive("\"" + entry.name + "\": its size is not a number");
  entry.size = static_cast<uint64_t>(size);
  return entry;
}

std::string Header(const std::string& name, uint64_t size) {
  std::string header(kBlock, '\0');
  const auto put = [&](size_t at, std::string_view text) { text.copy(&header[at], text.size()); };
  put(0, name);
  put(100, "0000644");
  put(108, "0000000");
  put(116, "0000000");
  if (size < uint64_t{1} << 33) {
    char octal[32];
    std::snprintf(octal, sizeof(octal), "%011llo", static_cast<unsigned long long>(size));
    put(kSizeAt, octal);
  } else {
    header[kSizeAt] = static_cast<char>(0x80);
    for (int i = 0; i < 8; ++i) header[kSizeAt + 11 - i] = static_cast<char>(size >> (8 * i));
  }
  put(136, "00000000000");
  header[kTypeAt] = '0';
  put(kMagicAt, std::string_view("ustar\00000", 8));
  char checksum[32];
  std::snprintf(checksum, sizeof(checksum), "%06llo",
                static_cast<unsigned long long>(Checksum(header)));
  put(kChecksumAt, std::string_view(checksum, 7));
  header[kChecksumAt + 7] = ' ';
  return header;
}

}  // namespace

bool IsArchive(std::string_view start) {
  return start.size() >= kBlock && start.substr(kMagicAt, 5) == "ustar" &&
         NumberAt(start, kChecksumAt, 8) == Checksum(start);
}

Result<OpenFile> OpenFilesOfArchive(UniqueFd fd) {
  LEPTON_ASSIGN_OR_RETURN(const OpenedFile whole, WholeFile(std::move(fd), "archive"));
  auto files = std::make_shared<std::map<std::string, OpenedFile>>();
  for (uint64_t at = 0; at < whole.size;) {
    if (whole.size - at < kBlock) return BadArchive("is cut short");
    std::string header(kBlock, '\0');
    const ssize_t got = ::pread(whole.fd->get(), header.data(), kBlock, static_cast<off_t>(at));
    if (got != static_cast<ssize_t>(kBlock)) return BadArchive("could not be read");
    if (header.find_first_not_of('\0') == header.npos) break;  // the end
    LEPTON_ASSIGN_OR_RETURN(const Entry entry, ReadHeader(header));
    at += kBlock;
    if (entry.size > whole.size - at) return BadArchive("\"" + entry.name + "\" is cut short");
    if (!files->insert({entry.name, {whole.fd, at, entry.size}}).second) {
      return BadArchive("\"" + entry.name + "\" is there twice");
    }
    if (files->size() > kMaxFiles) return BadArchive("has more than 8192 files");
    at += (entry.size + kBlock - 1) / kBlock * kBlock;
  }
  if (files->empty()) return BadArchive("has no files");
  return OpenFile([files](const std::string& name) -> Result<OpenedFile> {
    const auto found = files->find(name);
    if (found == files->end()) return NotFound(name + ": is not in the archive");
    return found->second;
  });
}

std::vector<std::string> FilesOf(const Folder& folder) {
  std::vector<std::string> names = {"config.json"};
  for (const Shard& shard : folder.shards) names.push_back(shard.file);
  if (folder.has_index) names.push_back("model.safetensors.index.json");
  names.insert(names.end(), folder.files.begin(), folder.files.end());
  names.insert(names.end(), folder.module_files.begin(), folder.module_files.end());
  return names;
}

Status WriteArchive(const OpenFile& open, const std::vector<std::string>& names,
                    const std::function<Status(std::string_view)>& write) {
  for (const std::string& name : names) {
    if (name.size() >= kNameEnd) return InvalidArgument(name + ": the name is too long");
    LEPTON_ASSIGN_OR_RETURN(const OpenedFile file, open(name));
    LEPTON_RETURN_IF_ERROR(write(Header(name, file.size)));
    LEPTON_RETURN_IF_ERROR(ReadPieces(open, name, 0, file.size, write));
    LEPTON_RETURN_IF_ERROR(write(std::string((kBlock - file.size % kBlock) % kBlock, '\0')));
  }
  return write(std::string(2 * kBlock, '\0'));
}

}  // namespace lepton::huggingface
