// API keys: who may call what. A key is `lk_<id>_<secret>`: 8 hex digits of id, by which its row is
// found, and 256 random bits of secret in hex. Only BLAKE2b-256 of the secret, keyed with a random
// salt of the row's own, is stored (libsodium's crypto_generichash), and compared in constant time.
// A slow password hash (Argon2) would add nothing: it protects guessable passwords, and 256 random
// bits cannot be guessed at any speed; it would cost 50 ms and 64 MiB on every request.
//
// Threads: any. The rows are cached, so that Check touches no disk.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <map>
#include <memory>
#include <set>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"
#include "storage/metadata/metadata_store.h"

namespace lepton::api {

// admin allows everything; submit includes read, since who starts work must be able to follow it;
// predict and read allow only themselves. kNone: open to all, keys or not (health checks).
enum class Scope { kNone, kRead, kPredict, kSubmit, kAdmin };
std::string_view ScopeName(Scope scope);
// kInvalidArgument naming the known scopes.
Result<Scope> ParseScope(std::string_view name);

struct ApiKey {
  std::string id;
  std::string name;
  std::set<Scope> scopes;
  int64_t created_ms = 0;
  int64_t expires_ms = 0;  // 0: never
  std::string salt, hash;  // hex
};

class KeyStore {
 public:
  // Loads all keys. `store` and `clock` must outlive this.
  static Result<std::unique_ptr<KeyStore>> Open(storage::MetadataStore& store, Clock& clock);

  struct Created {
    ApiKey key;
    std::string secret;  // the full "lk_..." text: the only time it exists
  };
  // Durable on return. `ttl` zero: no expiry. kInvalidArgument: no scope, or a negative ttl.
  Result<Created> Create(const std::string& name, const std::set<Scope>& scopes, Duration ttl);
  // kNotFound. kFailedPrecondition for the last one that may make keys: nobody could make others,
  // and without any the API is open to all who reach it on loopback.
  Status Revoke(const std::string& id);
  std::vector<ApiKey> List() const;
  bool empty() const;

  // The key behind "lk_...". kPermissionDenied, without telling why, for an unknown, malformed,
  // revoked or expired one.
  Result<ApiKey> Check(std::string_view text) const;

 private:
  KeyStore(storage::MetadataStore& store, Clock& clock) : store_(store), clock_(clock) {}
  storage::MetadataStore& store_;
  Clock& clock_;
  mutable std::shared_mutex mutex_;
  std::map<std::string, ApiKey> keys_;  // by id
};

bool Allows(const ApiKey& key, Scope needed);

// What to tell people about a key: everything but its hash.
nlohmann::json KeyView(const ApiKey& key);

}  // namespace lepton::api
