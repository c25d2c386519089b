// Faults of a link on purpose, for tests alone: what no tool outside can do to bytes that TCP
// guards. Without LEPTON_TEST_LINK_FAULTS, a folder, it does nothing. While that folder holds a
// file named
//   corrupt  one bit of what is received next flips, once: the first process that sees the file
//            removes it
//   slow     every send takes three milliseconds more; a file `slowed` has a byte for each
//   hold     the next send waits until it is gone; a file `held` says that one does
// Threads: any.
#pragma once

#include <cstddef>

namespace lepton::collectives {

class LinkFaults {
 public:
  static bool Enabled();
  static void BeforeSend();
  static void AfterReceive(void* data, size_t size);
};

}  // namespace lepton::collectives
