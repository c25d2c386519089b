#include "runtime/spec/dataset_spec.h"

#include "runtime/spec/job_spec.h"
#include "runtime/spec/job_spec_fields.h"

namespace lepton::spec {
namespace {

bool IsFileUri(const std::string& uri) {
  return uri.rfind("file:///", 0) == 0;
}

Status CheckPlace(const DatasetSpec& dataset) {
  if (dataset.uri.empty() == dataset.name.empty()) {
    return InvalidArgument(dataset.uri.empty()
                               ? "dataset: missing; give uri: file:///... or name: a registered one"
                               : "dataset: has both uri and name; give one of them");
  }
  if (!dataset.uri.empty() && !IsFileUri(dataset.uri)) {
    return InvalidArgument("dataset.uri: '" + dataset.uri + "' must start with file:///");
  }
  if (dataset.name.empty()) return Status::Ok();
  if (dataset.format != "auto" || dataset.token_type != "auto") {
    return InvalidArgument(std::string("dataset.") +
                           (dataset.format != "auto" ? "format" : "token_type") +
                           ": belongs to uri; a registered dataset has been read already");
  }
  return ParseReference("dataset.name", dataset.name).status();
}

Status CheckText(const DatasetSpec& dataset) {
  if (!dataset.text_pair.empty() && dataset.text.empty()) {
    return InvalidArgument("dataset.text_pair: needs dataset.text, the first text of each pair");
  }
  if (!dataset.text.empty() && dataset.text == dataset.text_pair) {
    return InvalidArgument("dataset.text_pair: must be another column than dataset.text");
  }
  if (!dataset.text.empty() && !dataset.messages.empty()) {
    return InvalidArgument("dataset.messages: cannot go with dataset.text; give one of them");
  }
  if (!(dataset.text + dataset.messages).empty() && dataset.pixels()) {
    return InvalidArgument("dataset.image: cannot go with dataset." +
                           std::string(dataset.text.empty() ? "messages" : "text") +
                           "; a row is one or the other");
  }
  const std::string& tokenizer = dataset.tokenizer;
  if (tokenizer.empty() || tokenizer == "bytes" || IsFileUri(tokenizer)) return Status::Ok();
  return InvalidArgument("dataset.tokenizer: '" + tokenizer +
                         "' must be bytes or start with file:///");
}

Status CheckImage(const PictureSpec& image) {
  if ((image.height > 0) != (image.width > 0)) {
    return InvalidArgument("dataset.image: has only one of height and width; give both");
  }
  if (image.mean.empty() != image.std.empty()) {
    return InvalidArgument("dataset.image: has only one of mean and std; give both, or none");
  }
  const std::pair<const char*, const std::vector<double>*> lists[] = {{"mean", &image.mean},
                                                                      {"std", &image.std}};
  for (const auto& [name, values] : lists) {
    const auto size = static_cast<int64_t>(values->size());
    if (size <= 1 || image.channels == 0 || size == image.channels) continue;
    return InvalidArgument(std::string("dataset.image.") + name + ": has " + std::to_string(size) +
                           " numbers; must have one, or one for each of the " +
                           std::to_string(image.channels) + " channels");
  }
  if (image.mean.size() != image.std.size()) {
    return InvalidArgument("dataset.image.std: must have as many numbers as dataset.image.mean");
  }
  for (size_t i = 0; i < image.std.size(); ++i) {
    if (image.std[i] > 0) continue;
    return InvalidArgument("dataset.image.std." + std::to_string(i) + ": must be greater than 0");
  }
  return Status::Ok();
}

}  // namespace

Status CheckDataset(const DatasetSpec& dataset, const std::string& loss) {
  LEPTON_RETURN_IF_ERROR(CheckPlace(dataset));
  LEPTON_RETURN_IF_ERROR(CheckText(dataset));
  LEPTON_RETURN_IF_ERROR(CheckImage(dataset.image));
  if (dataset.label.empty()) return InvalidArgument("dataset.label: must not be empty");
  if (dataset.label == dataset.text || dataset.label == dataset.text_pair) {
    return InvalidArgument("dataset.label: '" + dataset.label +
                           "' is the text too; must be another column");
  }
  if (loss == "next_token" && dataset.pixels()) {
    return InvalidArgument("loss: next_token is for text and tokens, not for pixels");
  }
  if (dataset.split.train + dataset.split.validation > 1 + 1e-9) {
    return InvalidArgument("dataset.split: train + validation is more than 1");
  }
  return Status::Ok();
}

void Visit(FieldVisitor& v, DatasetSpec& s) {
  constexpr int64_t kMaxSide = 16384;
  v.Text("uri", s.uri,
         "a file, or a folder of pictures: file:///data/digits.csv, within the coordinator's file "
         "roots");
  v.Text("name", s.name, "a registered dataset: digits, or a version of it: digits@3");
  v.Choice("format", s.format, {"auto", "csv", "jsonl", "text", "tokens", "images"},
           "what uri is read as; auto goes by suffix, then by the first bytes");
  v.Choice("token_type", s.token_type, {"auto", "u16", "u32"},
           "of a raw file of token ids; auto is u16");
  v.Text("label", s.label, "tables: the column to predict");
  v.Text("text", s.text, "tables: the column of text to learn from, in place of numbers");
  v.Text("text_pair", s.text_pair, "tables: a second text of each row");
  v.Text("messages", s.messages,
         "kind batch with generate: the column of chats, each a JSON list of {role, content}; the "
         "model's chat_template makes the prompt of it");
  v.Text("tokenizer", s.tokenizer,
         "bytes, or file:///tokenizer.json; if not given, the one that comes with the model");
  v.Integer("context", s.context, 0, 1 << 20,
            "tokens of a row at most; 0: what the model takes, else 128");
  v.BeginObject("image",
                "pictures; with a table, its columns are the pixels: [channels, height, "
                "width]");
  v.Integer("channels", s.image.channels, 0, 4096, "1 grey, 3 colour; 0: the model's, else 3");
  v.Integer("height", s.image.height, 0, kMaxSide, "0: the model's, else the pictures'");
  v.Integer("width", s.image.width, 0, kMaxSide, "0: the model's, else the pictures'");
  v.NumberList("mean", s.image.mean, {.min = -1e9, .max = 1e9}, 4096,
               "subtracted, a channel or once; of files on a scale from 0 to 1; measured if empty");
  v.NumberList("std", s.image.std, {.min = 0, .max = 1e9, .above_min = true}, 4096,
               "divided by then; measured if empty");
  v.Choice("fit", s.image.fit, {"stretch", "crop"},
           "files: take the whole picture to the size, or its largest centred part of that shape");
  v.Bool("flip", s.image.flip, "training: mirror half of the pictures, by chance");
  v.Integer("shift", s.image.shift, 0, 256, "training: move pictures by up to so many pixels");
  v.EndObject();
  v.BeginObject("split", "how rows are divided; the test part gets 1 - train - validation");
  v.Number("train", s.split.train, {.min = 0, .max = 1, .above_min = true}, "share of rows");
  v.Number("validation", s.split.validation, {.min = 0, .max = 1, .below_max = true},
           "share of rows");
  v.Seed("seed", s.split.seed, "of the division; texts and tokens are cut in order");
  v.EndObject();
  v.Choice("normalize", s.normalize, {"standard", "none"},
           "standard: (x - mean) / standard deviation, measured on the train part");
  v.Choice("missing", s.missing, {"mean", "error"}, "what an empty numeric cell becomes");
}

}  // namespace lepton::spec
