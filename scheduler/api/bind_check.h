// Which HTTP addresses may be served how.
#pragma once

#include <string>

#include "runtime/base/status.h"

namespace lepton::api {

// 127.0.0.0/8, ::1 and localhost.
bool IsLoopback(const std::string& address);

// Loopback is open to this machine's users. Any other address needs at least one API key and TLS:
// kFailedPrecondition says how to make them.
Status CheckBind(const std::string& address, bool has_keys, bool has_tls);

}  // namespace lepton::api
