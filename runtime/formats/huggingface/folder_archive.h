// A model folder as one file, to upload it: a plain tar archive (POSIX ustar). The reader takes no
// more than that: regular files with names that have no slash (but for the config.json of a folder
// within), not compressed, each header with its checksum. Threads: pure functions; they block on
// the disk.
#pragma once

#include <string_view>

#include "runtime/formats/huggingface/folder.h"

namespace lepton::huggingface {

// Whether bytes, such as a body's first 512, begin such an archive.
bool IsArchive(std::string_view start);

// kInvalidArgument: "archive: ...".
Result<OpenFile> OpenFilesOfArchive(UniqueFd fd);

// The names of all files of a folder that ReadFolder has looked at.
std::vector<std::string> FilesOf(const Folder& folder);
// Writes files one after another.
Status WriteArchive(const OpenFile& open, const std::vector<std::string>& names,
                    const std::function<Status(std::string_view)>& write);

}  // namespace lepton::huggingface
