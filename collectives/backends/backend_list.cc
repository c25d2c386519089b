#include "collectives/backends/native_backend.h"
#include "collectives/communicator.h"

namespace lepton::collectives {

const std::vector<const Backend*>& Backends() {
  static const auto* backends = new std::vector<const Backend*>{new NativeBackend};
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
