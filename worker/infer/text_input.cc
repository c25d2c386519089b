#include "worker/infer/text_input.h"

#include <array>

#include "worker/data/picture_file.h"

namespace lepton::worker {
namespace {

constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// With or without padding at the end; nothing else in between.
Result<std::string> FromBase64(std::string_view text) {
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const size_t value = kBase64.find(c);
    if (value == kBase64.npos) return InvalidArgument("not base64");
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 255);
  }
  return bytes;
}

// A tokenizer that came with a model may know more tokens than that has rows for. Found here, it is
// the fault of one request, not of all that are computed with it.
Status CheckIds(const TokenText& text, int64_t vocabulary) {
  for (const int32_t id : text.ids) {
    if (id < vocabulary || vocabulary == 0) continue;  // of some ONNX models: not known
    return InvalidArgument("token " + std::to_string(id) + " is none of the model's " +
                           std::to_string(vocabulary));
  }
  return Status::Ok();
}

}  // namespace

Status EncodeTexts(const ServedModel& model, const std::vector<std::string>& texts,
                   const std::vector<std::string>* pairs, ModelRows* rows) {
  if (model.encoder == nullptr) {
    return FailedPrecondition("the model's tokenizer is not known, so it cannot take texts");
  }
  const storage::ModelInput& input = model.manifest->input;
  const int64_t context = input.context;
  for (size_t i = 0; i < texts.size(); ++i) {
    Result<TokenText> tokens = pairs == nullptr
                                   ? model.encoder->EncodeText(texts[i], context)
                                   : model.encoder->EncodePair(texts[i], (*pairs)[i], context);
    if (!tokens.ok()) return tokens.status().WithContext("row " + std::to_string(i));
    LEPTON_RETURN_IF_ERROR(
        CheckIds(*tokens, input.vocabulary).WithContext("row " + std::to_string(i)));
    rows->texts.push_back(*std::move(tokens));
  }
  rows->rows = static_cast<int64_t>(rows->texts.size());
  return Status::Ok();
}

Status DecodePicture(const ServedModel& model, const std::string& path, std::string_view base64,
                     std::vector<double>* pixels) {
  const storage::ModelInput& input = model.manifest->input;
  const Result<std::string> file = FromBase64(base64);
  if (!file.ok()) return file.status().WithContext(path);
  const Result<std::vector<uint8_t>> bytes = PixelsOfFile(
      *file, {input.channels, input.height, input.width}, {input.fit, input.edge, input.resample});
  if (!bytes.ok()) return bytes.status().WithContext(path);
  for (const uint8_t byte : *bytes) pixels->push_back(byte / 255.0);
  return Status::Ok();
}

}  // namespace lepton::worker
