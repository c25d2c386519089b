// A small file system of its own, to be filled up or made read-only. Needs root.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "runtime/base/file.h"

namespace lepton {

class SmallDisk {
 public:
  // Null, with the reason in `why`, where this process may not mount.
  static std::unique_ptr<SmallDisk> Mount(size_t bytes, std::string* why);
  ~SmallDisk();

  const std::filesystem::path& path() const { return folder_.path(); }
  // Leaves no free block; the file "ballast" holds them.
  void FillUp();
  // Frees what FillUp took.
  void MakeRoom();
  // False when the kernel refuses, as it does while a file is open for writing.
  bool SetReadOnly(bool read_only);

 private:
  SmallDisk() : folder_("lepton-disk") {}
  TempFolder folder_;
  bool mounted_ = false;
};

}  // namespace lepton
