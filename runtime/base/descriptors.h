// How many files and connections a process may have open.
#pragma once

#include <cstddef>

namespace lepton {

// RLIMIT_NOFILE's soft limit.
size_t DescriptorLimit();
// Raises it to the hard limit, 65,536 at most: the usual 1,024 of a shell is for programs that call
// select(). Children inherit it. Threads: from main, before others.
void RaiseDescriptorLimit();

}  // namespace lepton
