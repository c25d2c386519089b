// What the kernel counts of a TCP connection. Costs one system call. Threads: any.
#pragma once

#include "collectives/transport/link_rates.h"

namespace lepton::collectives {

// Zeros where the kernel does not tell (Linux before 4.13, other kernels that speak its calls).
LinkLook LookAtTcp(int fd);

}  // namespace lepton::collectives
