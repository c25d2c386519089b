#include <fcntl.h>
#include <sys/stat.h>
#include <zmq.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/base/file.h"
#include "runtime/base/logging.h"
#include "runtime/wire/channel.h"

namespace lepton::wire {
namespace {

using nlohmann::json;

constexpr size_t kZ85KeyChars = 40;
constexpr size_t kMaxKeyFileBytes = 4096;

// The file's text, if nobody but its owner can read it.
Result<std::string> ReadSecretFile(const std::filesystem::path& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, path.string());
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, path.string());
  if ((info.st_mode & 077) != 0) {
    return PermissionDenied(path.string() +
                            ": others can read this key; run chmod 600 on it, and make new keys "
                            "if they may have been copied");
  }
  return ReadFile(path, kMaxKeyFileBytes);
}

Result<json> ParseObject(std::string_view text) {
  json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return InvalidArgument("not a JSON object");
  return document;
}

Result<std::string> KeyField(const json& document, const char* name) {
  const auto at = document.find(name);
  if (at == document.end() || !at->is_string()) {
    return InvalidArgument(std::string(name) + ": missing");
  }
  std::string key = at->get<std::string>();
  uint8_t raw[32];
  if (key.size() != kZ85KeyChars || zmq_z85_decode(raw, key.c_str()) == nullptr) {
    return InvalidArgument(std::string(name) + ": not a Z85-encoded CURVE key of 40 characters");
  }
  return key;
}

Result<CurveKeyPair> KeyPairFields(const json& document, const char* public_name,
                                   const char* secret_name) {
  CurveKeyPair pair;
  LEPTON_ASSIGN_OR_RETURN(pair.public_key, KeyField(document, public_name));
  LEPTON_ASSIGN_OR_RETURN(pair.secret_key, KeyField(document, secret_name));
  char derived[kZ85KeyChars + 1];
  if (zmq_curve_public(derived, pair.secret_key.c_str()) != 0 || pair.public_key != derived) {
    return InvalidArgument(std::string(secret_name) + ": does not belong to " + public_name);
  }
  return pair;
}

std::string ServerKeyToJson(const ServerKey& key) {
  return json{{"server_public", key.server.public_key},
              {"server_secret", key.server.secret_key},
              {"worker_public", key.worker_public}}
             .dump(2) +
         "\n";
}

Result<ServerKey> ServerKeyFromJson(std::string_view text) {
  LEPTON_ASSIGN_OR_RETURN(const json document, ParseObject(text));
  ServerKey key;
  LEPTON_ASSIGN_OR_RETURN(key.server, KeyPairFields(document, "server_public", "server_secret"));
  LEPTON_ASSIGN_OR_RETURN(key.worker_public, KeyField(document, "worker_public"));
  return key;
}

bool Exists(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// The pool key is written first: alone, it is the trace of a crash and safe to replace.
Result<ServerKey> MakeKeys(const std::filesystem::path& server_path,
                           const std::filesystem::path& pool_path) {
  const PoolKey pool{"", MakeCurveKeyPair()};
  const ServerKey server{MakeCurveKeyPair(), pool.worker.public_key};
  LEPTON_RETURN_IF_ERROR(
      WriteFileAtomic(pool_path, PoolKeyToJson({server.server.public_key, pool.worker}), 0600));
  LEPTON_RETURN_IF_ERROR(WriteFileAtomic(server_path, ServerKeyToJson(server), 0600));
  return server;
}

}  // namespace

CurveKeyPair MakeCurveKeyPair() {
  char public_key[kZ85KeyChars + 1];
  char secret_key[kZ85KeyChars + 1];
  CHECK_EQ(zmq_curve_keypair(public_key, secret_key), 0) << "libzmq was built without CURVE";
  return {public_key, secret_key};
}

Result<ServerKey> LoadOrMakeServerKey(const std::string& folder) {
  const std::filesystem::path server_path = std::filesystem::path(folder) / "server.key";
  const std::filesystem::path pool_path = std::filesystem::path(folder) / "pool.key";
  if (!Exists(server_path)) {
    LEPTON_RETURN_IF_ERROR(MakeFolders(folder, 0700));
    return MakeKeys(server_path, pool_path);
  }
  LEPTON_ASSIGN_OR_RETURN(const std::string text, ReadSecretFile(server_path));
  Result<ServerKey> server = ServerKeyFromJson(text);
  if (!server.ok()) return server.status().WithContext(server_path.string());
  if (!Exists(pool_path)) {
    return FailedPrecondition(pool_path.string() +
                              " is missing beside server.key: put it back, or remove server.key "
                              "to make new keys for the whole pool");
  }
  LEPTON_ASSIGN_OR_RETURN(const PoolKey pool, LoadPoolKey(pool_path));
  if (pool.server_public != server->server.public_key ||
      pool.worker.public_key != server->worker_public) {
    return FailedPrecondition(pool_path.string() + " does not belong to server.key beside it");
  }
  return server;
}

Result<PoolKey> LoadPoolKey(const std::string& path) {
  LEPTON_ASSIGN_OR_RETURN(const std::string text, ReadSecretFile(path));
  Result<PoolKey> key = PoolKeyFromJson(text);
  if (!key.ok()) return key.status().WithContext(path);
  return key;
}

std::string PoolKeyToJson(const PoolKey& key) {
  return json{{"server_public", key.server_public},
              {"worker_public", key.worker.public_key},
              {"worker_secret", key.worker.secret_key}}
             .dump(2) +
         "\n";
}

Result<PoolKey> PoolKeyFromJson(std::string_view text) {
  LEPTON_ASSIGN_OR_RETURN(const json document, ParseObject(text));
  PoolKey key;
  LEPTON_ASSIGN_OR_RETURN(key.server_public, KeyField(document, "server_public"));
  LEPTON_ASSIGN_OR_RETURN(key.worker, KeyPairFields(document, "worker_public", "worker_secret"));
  return key;
}

}  // namespace lepton::wire
