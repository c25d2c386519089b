#include "storage/metadata/journal_format.h"

#include "storage/metadata/crc32c.h"
#include "storage/metadata/metadata_store.h"

namespace lepton::storage {
namespace {

constexpr size_t kChecksumBytes = 4;

void AppendU32(std::string* out, uint32_t value) {
  for (int i = 0; i < 4; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

uint32_t TakeU32(std::string_view* in) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<uint8_t>((*in)[i]);
  in->remove_prefix(4);
  return value;
}

// Checksum of the key too, so that a value that turns up under another key is noticed.
std::string Seal(std::string_view key, std::string body) {
  std::string out;
  out.reserve(kChecksumBytes + body.size());
  AppendU32(&out, Crc32c(body, Crc32c(key)));
  return out += body;
}

Result<std::string_view> Unseal(std::string_view key, std::string_view value,
                                const std::string& what) {
  if (value.size() < kChecksumBytes) return DataLoss(what + ": cut short");
  const uint32_t expected = TakeU32(&value);
  if (Crc32c(value, Crc32c(key)) != expected) return DataLoss(what + ": wrong checksum");
  return value;
}

}  // namespace

std::string KeyU64(uint64_t value) {
  std::string key(8, '\0');
  for (int i = 7; i >= 0; --i, value >>= 8) key[i] = static_cast<char>(value & 0xFF);
  return key;
}

uint64_t U64FromKey(std::string_view eight_bytes) {
  uint64_t value = 0;
  for (const char c : eight_bytes.substr(0, 8)) value = value << 8 | static_cast<uint8_t>(c);
  return value;
}

std::string JournalKey(uint64_t first_seq) {
  return std::string(kJournalPrefix) + KeyU64(first_seq);
}

Result<uint64_t> FirstSeqOfKey(std::string_view key) {
  if (key.size() != kJournalPrefix.size() + 8) return DataLoss("journal: a key of wrong length");
  return U64FromKey(key.substr(kJournalPrefix.size()));
}

std::string EncodeBatch(uint64_t first_seq, const std::vector<std::string>& records) {
  std::string body;
  size_t size = 4;
  for (const std::string& record : records) size += 4 + record.size();
  body.reserve(size);
  AppendU32(&body, static_cast<uint32_t>(records.size()));
  for (const std::string& record : records) {
    AppendU32(&body, static_cast<uint32_t>(record.size()));
    body += record;
  }
  return Seal(JournalKey(first_seq), std::move(body));
}

Result<DecodedBatch> DecodeBatch(std::string_view key, std::string_view value) {
  DecodedBatch batch;
  LEPTON_ASSIGN_OR_RETURN(batch.first_seq, FirstSeqOfKey(key));
  const std::string what = "journal batch " + std::to_string(batch.first_seq);
  LEPTON_ASSIGN_OR_RETURN(std::string_view body, Unseal(key, value, what));
  if (body.size() < 4) return DataLoss(what + ": cut short");
  const uint32_t count = TakeU32(&body);
  for (uint32_t i = 0; i < count; ++i) {
    if (body.size() < 4) return DataLoss(what + ": cut short");
    const uint32_t size = TakeU32(&body);
    if (body.size() < size) return DataLoss(what + ": cut short");
    batch.records.push_back(body.substr(0, size));
    body.remove_prefix(size);
  }
  if (count == 0 || !body.empty()) return DataLoss(what + ": wrong number of records");
  return batch;
}

std::string EncodeSnapshot(uint64_t seq, uint64_t dropped_seq, std::string_view state) {
  std::string body = KeyU64(seq) + KeyU64(dropped_seq);
  body += state;
  return Seal(kSnapshotKey, std::move(body));
}

Result<DecodedSnapshot> DecodeSnapshot(std::string_view value) {
  LEPTON_ASSIGN_OR_RETURN(const std::string_view body, Unseal(kSnapshotKey, value, "snapshot"));
  if (body.size() < 16) return DataLoss("snapshot: cut short");
  return DecodedSnapshot{U64FromKey(body), U64FromKey(body.substr(8)), body.substr(16)};
}

}  // namespace lepton::storage
