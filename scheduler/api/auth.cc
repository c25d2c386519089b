#include "scheduler/api/auth.h"

#include <fmt/format.h>
#include <glog/logging.h>
#include <sodium.h>

#include <algorithm>
#include <mutex>

#include "runtime/base/hash.h"
#include "runtime/base/json.h"

namespace lepton::api {
namespace {

constexpr std::string_view kTable = "keys";
constexpr size_t kIdBytes = 4;
constexpr size_t kSecretBytes = 32;
constexpr size_t kMaxKeys = 10'000;
constexpr std::pair<Scope, std::string_view> kScopes[] = {
    {Scope::kNone, "none"},     {Scope::kRead, "read"},   {Scope::kPredict, "predict"},
    {Scope::kSubmit, "submit"}, {Scope::kAdmin, "admin"},
};

std::string HashSecret(std::string_view secret, std::string_view salt) {
  std::string out(crypto_generichash_BYTES, '\0');
  CHECK_EQ(crypto_generichash(reinterpret_cast<unsigned char*>(out.data()), out.size(),
                              reinterpret_cast<const unsigned char*>(secret.data()), secret.size(),
                              reinterpret_cast<const unsigned char*>(salt.data()), salt.size()),
           0);
  return ToHex(out);
}

std::string ToRow(const ApiKey& key) {
  nlohmann::json row = KeyView(key);
  row["salt"] = key.salt;
  row["hash"] = key.hash;
  return row.dump();
}

Result<ApiKey> FromRow(const std::string& id, const std::string& text) {
  ApiKey key;
  key.id = id;
  try {
    const nlohmann::json row = nlohmann::json::parse(text);
    key.name = row.at("name").get<std::string>();
    key.created_ms = row.at("created_ms").get<int64_t>();
    key.expires_ms = row.at("expires_ms").get<int64_t>();
    key.salt = row.at("salt").get<std::string>();
    key.hash = row.at("hash").get<std::string>();
    for (const auto& name : row.at("scopes").get<std::vector<std::string>>()) {
      LEPTON_ASSIGN_OR_RETURN(const Scope scope, ParseScope(name));
      key.scopes.insert(scope);
    }
  } catch (const nlohmann::json::exception& error) {
    return DataLoss(fmt::format("key {}: the stored row is damaged: {}", id, error.what()));
  }
  return key;
}

}  // namespace

std::string_view ScopeName(Scope scope) {
  for (const auto& [value, name] : kScopes) {
    if (value == scope) return name;
  }
  return "none";
}

Result<Scope> ParseScope(std::string_view name) {
  for (const auto& [value, known] : kScopes) {
    if (known == name && value != Scope::kNone) return value;
  }
  return InvalidArgument(
      fmt::format("scopes: unknown scope \"{}\": use admin, submit, predict or read", name));
}

bool Allows(const ApiKey& key, Scope needed) {
  if (needed == Scope::kNone || key.scopes.contains(Scope::kAdmin)) return true;
  if (key.scopes.contains(needed)) return true;
  return needed == Scope::kRead && key.scopes.contains(Scope::kSubmit);
}

nlohmann::json KeyView(const ApiKey& key) {
  nlohmann::json scopes = nlohmann::json::array();
  for (const Scope scope : key.scopes) scopes.push_back(ScopeName(scope));
  return {{"id", key.id},
          {"name", key.name},
          {"scopes", scopes},
          {"created_ms", key.created_ms},
          {"expires_ms", key.expires_ms}};
}

Result<std::unique_ptr<KeyStore>> KeyStore::Open(storage::MetadataStore& store, Clock& clock) {
  if (sodium_init() < 0) return Internal("libsodium does not start");
  auto keys = std::unique_ptr<KeyStore>(new KeyStore(store, clock));
  LEPTON_ASSIGN_OR_RETURN(const auto rows, store.Scan(kTable, "", "", kMaxKeys));
  for (const auto& [id, text] : rows) {
    LEPTON_ASSIGN_OR_RETURN(ApiKey key, FromRow(id, text));
    keys->keys_.emplace(id, std::move(key));
  }
  return keys;
}

Result<KeyStore::Created> KeyStore::Create(const std::string& name, const std::set<Scope>& scopes,
                                           Duration ttl) {
  if (scopes.empty())
    return InvalidArgument("scopes: name at least one of admin, submit, predict, read");
  if (ttl.count() < 0) return InvalidArgument("ttl: must not be negative");
  if (name.size() > 200) return InvalidArgument("name: longer than 200 characters");
  Created created;
  ApiKey& key = created.key;
  key.id = RandomHex(kIdBytes);
  key.name = name;
  key.scopes = scopes;
  key.created_ms = clock_.WallMs();
  if (ttl.count() > 0) {
    key.expires_ms =
        key.created_ms + std::chrono::duration_cast<std::chrono::milliseconds>(ttl).count();
  }
  const std::string secret = RandomHex(kSecretBytes);
  key.salt = RandomHex(crypto_generichash_KEYBYTES / 2);
  key.hash = HashSecret(secret, key.salt);
  created.secret = fmt::format("lk_{}_{}", key.id, secret);

  std::unique_lock lock(mutex_);
  if (keys_.size() >= kMaxKeys) return ResourceExhausted("10000 keys exist: revoke some first");
  if (keys_.contains(key.id)) return Aborted("the random key id is taken: try again");
  LEPTON_RETURN_IF_ERROR(store_.Put(kTable, {{key.id, ToRow(key)}}));
  LEPTON_RETURN_IF_ERROR(store_.Flush());
  keys_.emplace(key.id, key);
  return created;
}

Status KeyStore::Revoke(const std::string& id) {
  std::unique_lock lock(mutex_);
  const auto found = keys_.find(id);
  if (found == keys_.end()) return NotFound(fmt::format("key {}: no such key", id));
  const int64_t now = clock_.WallMs();
  const bool another = std::any_of(keys_.begin(), keys_.end(), [&](const auto& entry) {
    const ApiKey& key = entry.second;
    return key.id != id && key.scopes.contains(Scope::kAdmin) &&
           (key.expires_ms == 0 || now < key.expires_ms);
  });
  if (found->second.scopes.contains(Scope::kAdmin) && !another) {
    return FailedPrecondition(
        fmt::format("key {}: the last one with scope admin: make another first", id));
  }
  LEPTON_RETURN_IF_ERROR(store_.Delete(kTable, {id}));
  LEPTON_RETURN_IF_ERROR(store_.Flush());
  keys_.erase(found);
  return Status::Ok();
}

std::vector<ApiKey> KeyStore::List() const {
  std::shared_lock lock(mutex_);
  std::vector<ApiKey> all;
  for (const auto& [id, key] : keys_) all.push_back(key);
  return all;
}

bool KeyStore::empty() const {
  std::shared_lock lock(mutex_);
  return keys_.empty();
}

Result<ApiKey> KeyStore::Check(std::string_view text) const {
  const Status refused = PermissionDenied("the API key is not valid");
  constexpr size_t kIdAt = 3, kSecretAt = kIdAt + 2 * kIdBytes + 1;
  if (text.size() != kSecretAt + 2 * kSecretBytes || text.substr(0, kIdAt) != "lk_" ||
      text[kSecretAt - 1] != '_') {
    return refused;
  }
  std::shared_lock lock(mutex_);
  const auto found = keys_.find(std::string(text.substr(kIdAt, 2 * kIdBytes)));
  if (found == keys_.end()) return refused;
  const ApiKey& key = found->second;
  const std::string hash = HashSecret(text.substr(kSecretAt), key.salt);
  if (hash.size() != key.hash.size() ||
      sodium_memcmp(hash.data(), key.hash.data(), hash.size()) != 0) {
    return refused;
  }
  if (key.expires_ms != 0 && clock_.WallMs() >= key.expires_ms) return refused;
  return key;
}

}  // namespace lepton::api
