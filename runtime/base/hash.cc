#include "runtime/base/hash.h"

#include <openssl/evp.h>
#include <sys/random.h>

#include <cstdlib>

#include "runtime/base/progress.h"

namespace lepton {
namespace {

// Takes a millisecond or so, or as long as a mapped file's pages need to come.
constexpr size_t kPiece = size_t{1} << 20;

}  // namespace

struct Sha256::Context {
  EVP_MD_CTX* md = EVP_MD_CTX_new();
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  EVP_DigestInit_ex(context_->md, EVP_sha256(), nullptr);
}
Sha256::~Sha256() {
  EVP_MD_CTX_free(context_->md);
}

void Sha256::Update(const void* bytes, size_t size) {
  const char* at = static_cast<const char*>(bytes);
  for (; size > kPiece; at += kPiece, size -= kPiece) {
    EVP_DigestUpdate(context_->md, at, kPiece);
    progress::Moved();
  }
  EVP_DigestUpdate(context_->md, at, size);
}

std::string Sha256::FinalHex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(context_->md, digest, &size);
  return ToHex({reinterpret_cast<char*>(digest), size});
}

std::string Sha256Hex(std::string_view bytes) {
  Sha256 sha;
  sha.Update(bytes);
  return sha.FinalHex();
}

std::string ToHex(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const auto b = static_cast<unsigned char>(c);
    out += kDigits[b >> 4];
    out += kDigits[b & 15];
  }
  return out;
}

std::string RandomBytes(size_t count) {
  std::string bytes(count, '\0');
  size_t done = 0;
  while (done < count) {
    const ssize_t n = ::getrandom(bytes.data() + done, count - done, 0);
    if (n <= 0) std::abort();  // no entropy source: nothing secret could be made
    done += static_cast<size_t>(n);
  }
  return bytes;
}

std::string RandomHex(size_t bytes) {
  return ToHex(RandomBytes(bytes));
}

}  // namespace lepton
