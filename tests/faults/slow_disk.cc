// Preloaded into a worker and its tasks: a disk that takes long for what is large, and moves on all
// the while. LEPTON_TEST_MS_PER_MIB says how long.
#include <dlfcn.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kLarge = kMiB / 4;

// Neither a pipe nor a socket.
bool IsFile(int fd) {
  char target[256] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  return readlink(link.c_str(), target, sizeof(target) - 1) > 0 && target[0] == '/';
}

double MsPerMiB() {
  const char* const text = std::getenv("LEPTON_TEST_MS_PER_MIB");
  return text == nullptr ? 0 : std::atof(text);
}

}  // namespace

extern "C" ssize_t write(int fd, const void* bytes, size_t size) {
  using Write = ssize_t (*)(int, const void*, size_t);
  static const auto next = reinterpret_cast<Write>(dlsym(RTLD_NEXT, "write"));
  if (size >= kLarge && IsFile(fd)) {
    const double ms = MsPerMiB() * static_cast<double>(size) / static_cast<double>(kMiB);
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(ms));
  }
  return next(fd, bytes, size);
}
