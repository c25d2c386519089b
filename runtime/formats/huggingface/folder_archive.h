// A model folder as one file, to upload it: a plain tar archive (POSIX ustar) of the files that
// ReadFolder wants. The reader takes no more than that: regular files with names that have no
// slash, not compressed, each header with its checksum.
// Threads: pure functions; they block on the disk.
#pragma once

#include <string_view>

#include "runtime/formats/huggingface/folder.h"

namespace lepton::huggingface {

// Whether bytes, such as a body's first 512, begin such an archive.
bool IsArchive(std::string_view start);

// kInvalidArgument: "archive: ...".
Result<OpenFile> OpenFilesOfArchive(UniqueFd fd);

// Writes the folder's files one after another; kInvalidArgument and kNotFound as of ReadFolder,
// which has looked at it before.
Status WriteArchive(const OpenFile& open, const Folder& folder,
                    const std::function<Status(std::string_view)>& write);

}  // namespace lepton::huggingface
