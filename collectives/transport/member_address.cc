#include "collectives/transport/member_address.h"

#include <unistd.h>

#include <charconv>
#include <vector>

#include "collectives/transport/lanes.h"
#include "runtime/base/file.h"

namespace lepton::collectives {
namespace {

constexpr char kVersion[] = "lepton-collectives-4";

std::string LinkTarget(const char* path) {
  char target[128];
  ssize_t size = readlink(path, target, sizeof(target));
  return size > 0 ? std::string(target, static_cast<size_t>(size)) : std::string();
}

template <typename Number>
bool ParseNumber(const std::string& text, Number* out) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string HostIdentity() {
  std::string boot = ReadFile("/proc/sys/kernel/random/boot_id", 256).value_or("");
  while (!boot.empty() && boot.back() == '\n') boot.pop_back();
  // Without a boot id nothing can be said of other processes.
  if (boot.empty()) boot = "unknown-" + std::to_string(getpid());
  return boot + "/" + LinkTarget("/proc/self/ns/pid") + "/" + std::to_string(geteuid());
}

std::string MemberAddress::Encode() const {
  std::string out = kVersion;
  for (const std::string& field : {backend, place, host_identity, std::to_string(pid), host,
                                   std::to_string(port), std::to_string(lanes)}) {
    out += "|" + field;
  }
  return out;
}

Result<MemberAddress> MemberAddress::Decode(const std::string& bytes, std::string_view backend) {
  std::vector<std::string> fields(1);
  for (char c : bytes) {
    if (c == '|') {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  MemberAddress out;
  if (fields.size() != 8 || fields[0] != kVersion || (!backend.empty() && fields[1] != backend) ||
      !ParseNumber(fields[4], &out.pid) || !ParseNumber(fields[6], &out.port) ||
      !ParseNumber(fields[7], &out.lanes) || out.pid <= 0 || out.port == 0 || out.lanes < 0 ||
      out.lanes > kMaxLanes) {
    return InvalidArgument("members: not an address of this version's " +
                           (backend.empty() ? "" : std::string(backend) + " ") + "back-end");
  }
  out.backend = fields[1];
  out.place = fields[2];
  out.host_identity = fields[3];
  out.host = fields[5];
  return out;
}

}  // namespace lepton::collectives
