// SHA-256 (FIPS 180-4), the content address of every stored object.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace lepton {

// Incremental. Threads: one caller at a time.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Update(const void* bytes, size_t size);
  void Update(std::string_view bytes) { Update(bytes.data(), bytes.size()); }
  // 64 lower-case hex digits; the object is spent afterwards.
  std::string FinalHex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string Sha256Hex(std::string_view bytes);
// Lower-case hex of any bytes.
std::string ToHex(std::string_view bytes);
// `count` bytes from the operating system's generator.
std::string RandomBytes(size_t count);
// 2 * `bytes` hex digits from the operating system's generator.
std::string RandomHex(size_t bytes);

}  // namespace lepton
