#include "collectives/backends/mpi_backend.h"
#include "collectives/backends/native_backend.h"
#include "collectives/backends/nccl_backend.h"
#include "collectives/communicator.h"

namespace lepton::collectives {

// The first one is "auto". A back-end that was not compiled in is listed too, so that it can say
// so.
const std::vector<const Backend*>& Backends() {
  static const auto* backends =
      new std::vector<const Backend*>{new NativeBackend, new MpiBackend, new NcclBackend};
  return *backends;
}

Result<const Backend*> FindBackend(std::string_view name) {
  if (name == "auto") return Backends().front();
  std::string names = "auto";
  for (const Backend* backend : Backends()) {
    if (backend->name() == name) return backend;
    names += ", " + std::string(backend->name());
  }
  return InvalidArgument("collectives: '" + std::string(name) + "' is not one of " + names);
}

}  // namespace lepton::collectives
