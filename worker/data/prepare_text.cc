// Text and tokens: streams for language models, and texts in the rows of a table.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "runtime/nn/onnx_model.h"
#include "worker/data/chat_prompts.h"
#include "worker/data/table_labels.h"
#include "worker/data/text_encoder.h"
#include "worker/data/text_rows.h"
#include "worker/data/token_windows.h"

namespace lepton::worker {
namespace {

constexpr int64_t kDefaultContext = 128;

int64_t ChooseContext(const DataRequest& request) {
  if (request.dataset.context > 0) return request.dataset.context;
  if (request.like != nullptr && request.like->input.context > 0) {
    return request.like->input.context;
  }
  if (request.model != nullptr && request.model->transformer.context > 0) {
    return request.model->transformer.context;
  }
  if (request.model != nullptr && request.model->onnx_graph != nullptr) {
    const int64_t places = nn::OnnxContext(*request.model).value_or(0);
    if (places > 0) return std::min(places, kDefaultContext);
  }
  return kDefaultContext;
}

Result<std::shared_ptr<const TextEncoder>> LoadEncoder(const DataRequest& request,
                                                       const DataTools& tools) {
  if (request.tokenizer.empty()) {
    return InvalidArgument(
        "dataset.tokenizer: missing: give bytes, or file:///... of a tokenizer.json");
  }
  return TextEncoder::Load(tools.objects, request.tokenizer);
}

void DescribeTokens(const DataRequest& request, int64_t vocabulary, int64_t context,
                    PreparedData* data) {
  data->shape.kind = nn::DataShape::Kind::kTokens;
  data->shape.vocabulary = vocabulary;
  data->shape.context = context;
  data->shape.per_token = request.loss == "next_token";
  data->input.kind = "tokens";
  data->input.vocabulary = vocabulary;
  data->input.context = context;
  data->input.per_token = data->shape.per_token;
  data->input.tokenizer = request.tokenizer;
}

// The vocabulary of a stream that was tokenised elsewhere.
Result<int64_t> VocabularyOfTokens(const storage::DatasetManifest& manifest,
                                   const DataRequest& request, const DataTools& tools) {
  int64_t vocabulary = 0;
  if (!request.tokenizer.empty()) {
    LEPTON_ASSIGN_OR_RETURN(const auto encoder,
                            TextEncoder::Load(tools.objects, request.tokenizer));
    vocabulary = encoder->vocabulary();
  }
  if (request.like != nullptr) vocabulary = std::max(vocabulary, request.like->input.vocabulary);
  if (request.model != nullptr) {
    vocabulary = std::max(vocabulary, request.model->transformer.vocabulary);
  }
  if (vocabulary == 0) return manifest.max_token + 1;
  if (manifest.max_token < vocabulary) return vocabulary;
  return InvalidArgument(
      fmt::format("dataset: token {} at position {} is outside of the vocabulary, which has {}",
                  manifest.max_token, manifest.max_token_at, vocabulary));
}

struct Spans {
  TokenWindows::Part train, validation, test;
};

// The stream cut in order by the shares; no part with a share is too short for a target.
Result<Spans> CutStream(int64_t tokens, const DataRequest& request) {
  Spans spans;
  const spec::SplitSpec& split = request.dataset.split;
  const auto share = [&](double part) {
    return static_cast<int64_t>(std::llround(static_cast<double>(tokens) * part));
  };
  const int64_t first = request.labels ? share(split.train) : 0;
  const int64_t second = request.labels ? std::min(tokens, first + share(split.validation)) : 0;
  spans.train = {0, first};
  spans.validation = {first, second};
  spans.test = {second, tokens};
  constexpr double kRounding = 1e-9;
  const double test = 1 - split.train - split.validation;
  if (request.labels && test < kRounding) spans.validation.end = spans.test.begin = tokens;
  const std::tuple<const char*, double, const TokenWindows::Part*> parts[] = {
      {"train", request.labels ? split.train : 0, &spans.train},
      {"validation", request.labels ? split.validation : 0, &spans.validation},
      {"test", request.labels ? test : 1, &spans.test}};
  for (const auto& [name, part, span] : parts) {
    if (part < kRounding || span->size() >= 2) continue;
    return InvalidArgument(
        fmt::format("dataset.split: {} tokens are too few: the {} part would have {}", tokens, name,
                    span->size()));
  }
  return spans;
}

ExamplesPtr RowsOf(std::shared_ptr<const TokenRows> tokens, const std::vector<int64_t>& rows,
                   int64_t context, const RowLabels& labels, const std::string& loss) {
  auto examples =
      std::make_shared<TextRows>(std::move(tokens), rows, context, loss == "next_token");
  GiveLabels(labels, loss, rows, *examples);
  return examples;
}

Result<const storage::Column*> TextColumn(const storage::Table& table, const char* field,
                                          const std::string& name) {
  const storage::Column* column = table.Find(name);
  if (column == nullptr) {
    return InvalidArgument(fmt::format("{}: no column \"{}\" in the data", field, name));
  }
  if (column->type == storage::ColumnType::kText) return column;
  return InvalidArgument(fmt::format("{}: column \"{}\" holds numbers, not text", field, name));
}

// Prompts for a language model to go on from.
Result<PreparedData> PrepareChats(const StoredDataset& dataset, const DataRequest& request,
                                  const DataTools& tools) {
  if (request.like == nullptr || !request.like->input.per_token) {
    return InvalidArgument("dataset.messages: the model is no language model");
  }
  LEPTON_ASSIGN_OR_RETURN(const auto encoder, LoadEncoder(request, tools));
  LEPTON_ASSIGN_OR_RETURN(const auto prompts,
                          ChatPrompts::Load(tools.objects, *request.like, encoder));
  LEPTON_ASSIGN_OR_RETURN(const storage::Column* const chats,
                          TextColumn(dataset.table, "dataset.messages", request.dataset.messages));
  LEPTON_ASSIGN_OR_RETURN(const RowLabels labels, LabelsOfTable(dataset, request));
  const int64_t context = ChooseContext(request);
  LEPTON_ASSIGN_OR_RETURN(const auto tokens,
                          TokensOfChats(dataset.manifest.table, *chats, *prompts, *encoder, context,
                                        tools.derived, tools.progress));
  PreparedData data;
  DescribeTokens(request, encoder->vocabulary(), context, &data);
  const auto part = [&](const std::vector<int64_t>& rows) {
    return RowsOf(tokens, rows, context, labels, request.loss);
  };
  data.train = data.train_plain = part(labels.split.train);
  data.validation = part(labels.split.validation);
  data.test = part(labels.split.test);
  return data;
}

}  // namespace

Result<PreparedData> PrepareStream(const StoredDataset& dataset, const DataRequest& request,
                                   const DataTools& tools) {
  if (request.loss != "next_token") {
    return InvalidArgument("loss: a stream of text has no labels for loss " + request.loss +
                           "; use next_token");
  }
  const storage::DatasetManifest& manifest = dataset.manifest;
  std::shared_ptr<const TokenStream> stream;
  int64_t vocabulary = 0;
  if (manifest.kind == storage::DatasetKind::kText) {
    LEPTON_ASSIGN_OR_RETURN(const auto encoder, LoadEncoder(request, tools));
    LEPTON_ASSIGN_OR_RETURN(stream, TokensOfText(tools.objects, manifest.source, *encoder,
                                                 tools.derived, tools.progress));
    vocabulary = encoder->vocabulary();
  } else {
    LEPTON_ASSIGN_OR_RETURN(vocabulary, VocabularyOfTokens(manifest, request, tools));
    LEPTON_ASSIGN_OR_RETURN(MappedFile ids, tools.objects.Map(manifest.source, /*verify=*/false));
    if (static_cast<int64_t>(ids.size()) != manifest.rows * manifest.token_bytes) {
      return DataLoss("the tokens have another size than their manifest says");
    }
    stream = std::make_shared<const TokenStream>(std::make_shared<const MappedFile>(std::move(ids)),
                                                 static_cast<int>(manifest.token_bytes), 0,
                                                 manifest.rows);
  }
  LEPTON_ASSIGN_OR_RETURN(const Spans spans, CutStream(stream->size(), request));
  PreparedData data;
  const int64_t context = ChooseContext(request);
  DescribeTokens(request, vocabulary, context, &data);
  const auto plain = [&](const TokenWindows::Part& part) -> ExamplesPtr {
    if (part.size() < 2) return NoExamples();
    return TokenWindows::ForEvaluation(stream, part, context);
  };
  data.train = spans.train.size() < 2
                   ? NoExamples()
                   : TokenWindows::ForTraining(stream, spans.train, context, request.seed);
  data.train_plain = plain(spans.train);
  data.validation = plain(spans.validation);
  data.test = plain(spans.test);
  return data;
}

Result<PreparedData> PrepareTexts(const StoredDataset& dataset, const DataRequest& request,
                                  const DataTools& tools) {
  LEPTON_ASSIGN_OR_RETURN(const auto encoder, LoadEncoder(request, tools));
  if (!request.dataset.messages.empty()) return PrepareChats(dataset, request, tools);
  const storage::ModelManifest* like = request.like;
  const bool own = !request.dataset.text.empty() || like == nullptr;
  const std::string& text_name = own ? request.dataset.text : like->input.text;
  const std::string& pair_name = own ? request.dataset.text_pair : like->input.text_pair;
  LEPTON_ASSIGN_OR_RETURN(const storage::Column* const text,
                          TextColumn(dataset.table, "dataset.text", text_name));
  const storage::Column* pair = nullptr;
  if (!pair_name.empty()) {
    LEPTON_ASSIGN_OR_RETURN(pair, TextColumn(dataset.table, "dataset.text_pair", pair_name));
  }
  LEPTON_ASSIGN_OR_RETURN(const RowLabels labels, LabelsOfTable(dataset, request));
  const int64_t context = ChooseContext(request);
  LEPTON_ASSIGN_OR_RETURN(const auto tokens,
                          TokensOfRows(dataset.manifest.table, *text, pair, *encoder, context,
                                       tools.derived, tools.progress));
  PreparedData data;
  DescribeTokens(request, encoder->vocabulary(), context, &data);
  data.input.text = text_name;
  data.input.text_pair = pair_name;
  data.label_name = labels.name;
  data.classes = labels.classes;
  data.shape.outputs = OutputsOf(request.loss, labels.classes.size());
  const auto part = [&](const std::vector<int64_t>& rows) {
    return RowsOf(tokens, rows, context, labels, request.loss);
  };
  data.train = data.train_plain = part(labels.split.train);
  data.validation = part(labels.split.validation);
  data.test = part(labels.split.test);
  return data;
}

}  // namespace lepton::worker
