// What the native back-end moves bytes through: links to every peer, and a window where the whole
// group shares memory.
#pragma once

#include <memory>

#include "collectives/backends/control_plane.h"
#include "collectives/transport/mesh.h"
#include "collectives/transport/shared_window.h"

namespace lepton::collectives {

struct NativeTransports {
  std::unique_ptr<Mesh> mesh;
  std::unique_ptr<SharedWindow> window;  // when the whole group shares memory
  bool crowded = false;                  // this host has more of the group's ranks than cores
};

// Shared memory where there is some, TCP elsewhere. Takes the data connections. `blind`: see
// Waiter and LinkMesh.
NativeTransports MakeNativeTransports(const GroupSpec& group, ControlPlane& control,
                                      bool blind = false);

}  // namespace lepton::collectives
