#include "cli/launch.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "runtime/base/file.h"

#ifdef LEPTON_HAS_PMIX
#include <pmix.h>
#endif

namespace lepton::cli {
namespace {

int Number(const char* name, int fallback) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::atoi(text) : fallback;
}

std::string Variable(const char* name) {
  const char* text = std::getenv(name);
  return text != nullptr ? text : "";
}

}  // namespace

Launch DetectLaunch() {
  Launch launch;
  launch.info = worker::DetectLauncher();
  launch.local_size = launch.info.name == "mpirun" ? Number("OMPI_COMM_WORLD_LOCAL_SIZE", 1)
                      : launch.info.name == "srun" ? Number("SLURM_TASKS_PER_NODE", 1)
                                                   : 1;
  return launch;
}

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "localhost";
}

namespace {

std::string TextOf(const in_addr& address) {
  char text[INET_ADDRSTRLEN] = {};
  return ::inet_ntop(AF_INET, &address, text, sizeof(text)) != nullptr ? text : "";
}

// The source address of what is sent by the default route; "" without one. Connecting a datagram
// socket sends nothing.
std::string AddressOfTheRoute() {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in target{}, self{};
  socklen_t size = sizeof(self);
  target.sin_family = AF_INET;
  target.sin_port = htons(9);
  ::inet_pton(AF_INET, "192.0.2.1", &target.sin_addr);  // TEST-NET-1, never routed to anybody
  const bool found =
      fd.valid() &&
      ::connect(fd.get(), reinterpret_cast<sockaddr*>(&target), sizeof(target)) == 0 &&
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&self), &size) == 0;
  return found ? TextOf(self.sin_addr) : "";
}

// Of the first interface that is up and no loopback, as in a cluster's network without a way out.
std::string AddressOfAnInterface() {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return "";
  std::string found;
  for (const ifaddrs* one = all; one != nullptr && found.empty(); one = one->ifa_next) {
    const bool serves = one->ifa_addr != nullptr && one->ifa_addr->sa_family == AF_INET &&
                        (one->ifa_flags & IFF_UP) != 0 && (one->ifa_flags & IFF_RUNNING) != 0 &&
                        (one->ifa_flags & IFF_LOOPBACK) == 0;
    if (serves) found = TextOf(reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr);
  }
  ::freeifaddrs(all);
  return found;
}

}  // namespace

std::string HostAddress() {
  if (const std::string chosen = Variable("LEPTON_HOST_ADDRESS"); !chosen.empty()) return chosen;
  if (const std::string routed = AddressOfTheRoute(); !routed.empty()) return routed;
  const std::string own = AddressOfAnInterface();
  return own.empty() ? "127.0.0.1" : own;  // where nobody else could come anyway
}

#ifdef LEPTON_HAS_PMIX

Result<std::string> ShareFromRankZero(const Launch& launch, const std::string& message,
                                      Deadline deadline) {
  constexpr char kKey[] = "lepton.meeting";
  const auto check = [](pmix_status_t status, const char* what) {
    if (status == PMIX_SUCCESS) return Status::Ok();
    const StatusCode code =
        status == PMIX_ERR_TIMEOUT ? StatusCode::kDeadlineExceeded : StatusCode::kUnavailable;
    return Status(code, std::string("PMIx ") + what + ": " + PMIx_Error_string(status));
  };
  pmix_proc_t self;
  LEPTON_RETURN_IF_ERROR(check(PMIx_Init(&self, nullptr, 0), "init"));
  Result<std::string> shared = [&]() -> Result<std::string> {
    if (launch.info.rank == 0) {
      pmix_value_t value;
      value.type = PMIX_STRING;
      value.data.string = const_cast<char*>(message.c_str());
      LEPTON_RETURN_IF_ERROR(check(PMIx_Put(PMIX_GLOBAL, kKey, &value), "put"));
      LEPTON_RETURN_IF_ERROR(check(PMIx_Commit(), "commit"));
    }
    // The fence hands what rank 0 committed to every process. A server that does not know the
    // time-out leaves it to the launcher's own.
    int seconds = std::max(1, deadline.LeftMs() / 1000);
    bool collect = true;
    pmix_info_t* info = nullptr;
    PMIX_INFO_CREATE(info, 2);
    PMIX_INFO_LOAD(&info[0], PMIX_COLLECT_DATA, &collect, PMIX_BOOL);
    PMIX_INFO_LOAD(&info[1], PMIX_TIMEOUT, &seconds, PMIX_INT);
    const pmix_status_t fenced = PMIx_Fence(nullptr, 0, info, 2);
    PMIX_INFO_FREE(info, 2);
    LEPTON_RETURN_IF_ERROR(check(fenced, "fence"));
    if (launch.info.rank == 0) return message;
    pmix_proc_t root;
    PMIX_PROC_CONSTRUCT(&root);
    std::memcpy(root.nspace, self.nspace, sizeof(root.nspace));
    root.rank = 0;
    pmix_value_t* value = nullptr;
    LEPTON_RETURN_IF_ERROR(check(PMIx_Get(&root, kKey, nullptr, 0, &value), "get"));
    std::string text =
        value->type == PMIX_STRING && value->data.string != nullptr ? value->data.string : "";
    PMIX_VALUE_RELEASE(value);
    return text;
  }();
  PMIx_Finalize(nullptr, 0);
  return shared;
}

#else

Result<std::string> ShareFromRankZero(const Launch&, const std::string&, Deadline) {
  return Unavailable("this build has no PMIx; configure with libpmix to run under mpirun or srun");
}

#endif

}  // namespace lepton::cli
