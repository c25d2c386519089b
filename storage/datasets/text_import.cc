// Plain text: checked and counted on its way into the store.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "storage/datasets/csv_scanner.h"
#include "storage/datasets/formats.h"
#include "storage/manifests/manifest_reader.h"

namespace lepton::storage {
namespace {

// Checks UTF-8 over pieces that may end within a character.
class Utf8Stream {
 public:
  Status Add(std::string_view piece) {
    carry_ += piece;
    const size_t whole = EndOfWholeCharacters(carry_);
    const std::string_view complete = std::string_view(carry_).substr(0, whole);
    const Status status = CheckUtf8(complete);
    if (!status.ok()) return Renumbered(status);
    lines_ += std::count(complete.begin(), complete.end(), '\n');
    characters_ +=
        std::count_if(complete.begin(), complete.end(), [](char c) { return (c & 0xC0) != 0x80; });
    carry_.erase(0, whole);
    return Status::Ok();
  }
  Status Finish() { return carry_.empty() ? Status::Ok() : Renumbered(CheckUtf8(carry_)); }
  int64_t newlines() const { return lines_; }
  int64_t characters() const { return characters_; }

 private:
  // Up to before a last character that is not all there.
  static size_t EndOfWholeCharacters(std::string_view text) {
    for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
      const auto c = static_cast<unsigned char>(text[text.size() - back]);
      if ((c & 0xC0) == 0x80) continue;
      const size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
      return length > back ? text.size() - back : text.size();
    }
    return text.size();
  }
  // "line 3: ..." of a piece as the line of the file.
  Status Renumbered(const Status& status) const {
    const std::string& message = status.message();
    const size_t colon = message.find(':');
    if (message.rfind("line ", 0) != 0 || colon == message.npos) return status;
    const int64_t line = std::atoll(message.c_str() + 5) + lines_;
    return InvalidArgument("line " + std::to_string(line) + message.substr(colon));
  }

  std::string carry_;
  int64_t lines_ = 0, characters_ = 0;
};

}  // namespace

Result<DatasetManifest> ImportTextFile(ObjectStore& objects, ByteSource& source,
                                       const ImportOptions& options) {
  if (source.size() > options.limits.stream_bytes) {
    return ResourceExhausted("has " + std::to_string(source.size()) + " bytes; the limit is " +
                             std::to_string(options.limits.stream_bytes));
  }
  LEPTON_ASSIGN_OR_RETURN(const auto writer, objects.NewObject());
  Utf8Stream text;
  char last = '\n';
  for (;;) {
    LEPTON_ASSIGN_OR_RETURN(const std::string_view piece, source.Next());
    if (piece.empty()) break;
    LEPTON_RETURN_IF_ERROR(text.Add(piece));
    LEPTON_RETURN_IF_ERROR(writer->Append(piece));
    last = piece.back();
    LEPTON_RETURN_IF_ERROR(ReportProgress(options, "reading text", writer->size(), source.size()));
  }
  LEPTON_RETURN_IF_ERROR(text.Finish());
  if (writer->size() == 0) return InvalidArgument("the file is empty");

  DatasetManifest manifest;
  manifest.kind = DatasetKind::kText;
  manifest.rows = text.newlines() + (last == '\n' ? 0 : 1);
  const nlohmann::json profile = {{"rows", manifest.rows},
                                  {"bytes", writer->size()},
                                  {"lines", manifest.rows},
                                  {"characters", text.characters()}};
  manifest.profile_json = DumpManifest(profile);
  LEPTON_ASSIGN_OR_RETURN(manifest.source, writer->Finish());
  return manifest;
}

}  // namespace lepton::storage
