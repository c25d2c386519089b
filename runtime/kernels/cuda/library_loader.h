// The vendor's libraries, opened at run time. Threads: any.
#pragma once

#include <dlfcn.h>

#include <string>

namespace lepton::kernels::cuda {

// `name` from where the dynamic loader looks (LD_LIBRARY_PATH, the system's folders), else from
// `folder`. Null: dlerror says why.
inline void* OpenLibrary(const std::string& name, const std::string& folder) {
  void* const found = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (found != nullptr) return found;
  return ::dlopen((folder + "/" + name).c_str(), RTLD_NOW | RTLD_LOCAL);
}

// The functions of an open library, one by one.
class LibraryLoader {
 public:
  // `library`: what dlopen gave.
  explicit LibraryLoader(void* library) : library_(library) {}
  template <typename Function>
  void Find(const char* name, Function& function) {
    function = reinterpret_cast<Function>(::dlsym(library_, name));
    if (function == nullptr && missing_.empty()) missing_ = name;
  }
  // The first that was not found; empty: all were.
  const std::string& missing() const { return missing_; }

 private:
  void* library_;
  std::string missing_;
};

}  // namespace lepton::kernels::cuda
