#include "collectives/transport/link_faults.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#include "runtime/base/logging.h"

namespace lepton::collectives {
namespace {

constexpr std::chrono::milliseconds kSlowness{3};

const std::string& FaultFolder() {
  static const std::string folder = [] {
    const char* text = std::getenv("LEPTON_TEST_LINK_FAULTS");
    return std::string(text == nullptr ? "" : text);
  }();
  return folder;
}

bool Told(const char* fault) {
  return access((FaultFolder() + fault).c_str(), F_OK) == 0;
}

// For who told it.
void Mark(const char* done) {
  std::ofstream(FaultFolder() + done, std::ios::app) << '.';
}

}  // namespace

bool LinkFaults::Enabled() {
  return !FaultFolder().empty();
}

void LinkFaults::BeforeSend() {
  if (Told("/hold")) Mark("/held");
  while (Told("/hold")) std::this_thread::sleep_for(kSlowness);
  if (!Told("/slow")) return;
  std::this_thread::sleep_for(kSlowness);
  Mark("/slowed");
}

void LinkFaults::AfterReceive(void* data, size_t size) {
  if (size == 0 || unlink((FaultFolder() + "/corrupt").c_str()) != 0) return;
  static_cast<unsigned char*>(data)[size / 2] ^= 0x10;
  LOG(WARNING) << "test fault: a bit of " << size << " received bytes flipped";
}

}  // namespace lepton::collectives
