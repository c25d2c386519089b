#include "worker/batch/batch_task.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "storage/manifests/manifest_reader.h"
#include "worker/batch/row_asker.h"
#include "worker/data/picture_file.h"
#include "worker/train/evaluation.h"
#include "worker/train/train_session.h"

namespace lepton::worker {
namespace {

constexpr char kFormat[] = "lepton.batch";
constexpr int kVersion = 1;
constexpr Duration kReportEvery = std::chrono::milliseconds(200);
constexpr Duration kSaveEvery = std::chrono::seconds(5);
// Blocks that each rank computes between two exchanges.
constexpr int64_t kBlocksOfRound = 4;

// What a checkpoint holds: everything up to a row.
struct Saved {
  int64_t rows = 0;
  TokenSums sums;
  std::vector<storage::Digest> parts;  // of the file, in order
};

Result<Saved> ReadSaved(const storage::ObjectStore& objects, const storage::Digest& digest) {
  LEPTON_ASSIGN_OR_RETURN(const std::string text, objects.Get(digest));
  LEPTON_ASSIGN_OR_RETURN(storage::ManifestReader reader,
                          storage::ManifestReader::Parse(text, kFormat, kVersion));
  Saved saved;
  std::vector<double> loss;
  reader.Read("rows", &saved.rows);
  reader.Read("tokens", &saved.sums.tokens);
  reader.Read("loss", &loss);
  reader.Read("parts", &saved.parts);
  if (loss.size() != 1) reader.Fail("loss", "must be one number");
  LEPTON_RETURN_IF_ERROR(reader.status());
  saved.sums.loss = loss[0];
  return saved;
}

std::string SavedText(const Saved& saved) {
  return storage::DumpManifest({{"format", kFormat},
                                {"version", kVersion},
                                {"rows", saved.rows},
                                {"tokens", saved.sums.tokens},
                                {"loss", storage::NumbersToJson(std::vector{saved.sums.loss})},
                                {"parts", saved.parts}});
}

// What a rank says at the end of a round, as words that the ranks sum at disjoint places.
enum Word { kBytes, kTokens, kLossBits, kStop, kWords };

class BatchRun {
 public:
  BatchRun(TaskContext& context, const Examples& examples, RowAsker& asker,
           const PredictionWriter& writer, collectives::Communicator& gang)
      : context_(context), examples_(examples), asker_(asker), writer_(writer), gang_(gang) {}

  Status Resume() {
    const std::string& checkpoint = context_.start().resume_checkpoint();
    if (checkpoint.empty()) return Status::Ok();
    Result<Saved> saved = ReadSaved(context_.objects(), checkpoint);
    if (!saved.ok()) return saved.status().WithContext("checkpoint " + checkpoint);
    saved_ = *std::move(saved);
    return Status::Ok();
  }

  Status Run() {
    const int64_t rows = examples_.rows();
    started_ = saved_at_ = reported_ = RealClock().Now();
    first_row_ = saved_.rows;
    if (saved_.rows == 0) pending_ = writer_.Header();
    while (saved_.rows < rows) {
      bool stop = false;
      LEPTON_RETURN_IF_ERROR(Round(&stop));
      if (!leader()) {
        if (stop) return Cancelled("stopped");
        continue;
      }
      Report();
      const bool due = RealClock().Now() - saved_at_ >= kSaveEvery;
      if (stop || (due && saved_.rows < rows)) LEPTON_RETURN_IF_ERROR(Save());
      if (stop && saved_.rows < rows) return Cancelled("stopped");
    }
    return leader() ? Finish() : Status::Ok();
  }

 private:
  bool leader() const { return gang_.rank() == 0; }

  Status Round(bool* stop) {
    const int64_t size = gang_.size();
    const int64_t first = saved_.rows;
    const int64_t blocks =
        std::min(kBlocksOfRound * size,
                 (examples_.rows() - first + asker_.block_rows() - 1) / asker_.block_rows());
    const auto edge = [&](int64_t rank) {
      return std::min(examples_.rows(), first + blocks * rank / size * asker_.block_rows());
    };
    TokenSums sums;
    Result<std::string> lines = asker_.Ask(edge(gang_.rank()), edge(gang_.rank() + 1), &sums);
    if (!lines.ok()) return AbortGang(gang_, lines.status().WithContext("batch"));

    std::vector<int64_t> words(size * kWords);
    int64_t* const own = &words[gang_.rank() * kWords];
    own[kBytes] = static_cast<int64_t>(lines->size());
    own[kTokens] = sums.tokens;
    own[kLossBits] = std::bit_cast<int64_t>(sums.loss);
    own[kStop] = context_.stop_requested();
    if (size > 1) {
      LEPTON_RETURN_IF_ERROR(gang_.AllReduce(words.data(), words.data(), words.size(),
                                             collectives::DataType::kInt64,
                                             collectives::ReduceOp::kSum));
    }
    LEPTON_RETURN_IF_ERROR(Collect(*std::move(lines), words));
    for (int64_t rank = 0; rank < size; ++rank) {
      const int64_t* said = &words[rank * kWords];
      saved_.sums.tokens += said[kTokens];
      saved_.sums.loss += std::bit_cast<double>(said[kLossBits]);
      *stop = *stop || said[kStop] != 0;
    }
    saved_.rows = edge(size);
    return Status::Ok();
  }

  // Rank 0 appends every rank's lines in order.
  Status Collect(std::string own, const std::vector<int64_t>& words) {
    using collectives::DataType;
    if (!leader()) {
      if (own.empty()) return Status::Ok();
      return gang_.Send(own.data(), own.size(), DataType::kUInt8, 0);
    }
    pending_ += own;
    for (int rank = 1; rank < gang_.size(); ++rank) {
      const auto bytes = static_cast<size_t>(words[rank * kWords + kBytes]);
      if (bytes == 0) continue;
      const size_t at = pending_.size();
      pending_.resize(at + bytes);
      LEPTON_RETURN_IF_ERROR(gang_.Recv(pending_.data() + at, bytes, DataType::kUInt8, rank));
    }
    return Status::Ok();
  }

  // Stores what is new as a part.
  Status StorePart() {
    if (pending_.empty()) return Status::Ok();
    LEPTON_ASSIGN_OR_RETURN(storage::Digest part, context_.objects().Put(pending_));
    saved_.parts.push_back(std::move(part));
    pending_.clear();
    return Status::Ok();
  }

  Status Save() {
    LEPTON_RETURN_IF_ERROR(StorePart());
    LEPTON_ASSIGN_OR_RETURN(const storage::Digest digest,
                            context_.objects().Put(SavedText(saved_)));
    wire::TaskCheckpoint report;
    report.set_step(static_cast<uint64_t>(saved_.rows));
    report.set_manifest(digest);
    for (const auto& part : saved_.parts) report.add_objects(part);
    context_.ReportCheckpoint(report);
    saved_at_ = RealClock().Now();
    return Status::Ok();
  }

  void Report() {
    const MonotonicTime now = RealClock().Now();
    if (now - reported_ < kReportEvery && saved_.rows < examples_.rows()) return;
    reported_ = now;
    const double seconds = std::chrono::duration<double>(now - started_).count();
    wire::TaskProgress report;
    report.set_step(static_cast<uint64_t>(saved_.rows));
    report.set_total_steps(static_cast<uint64_t>(examples_.rows()));
    if (seconds > 0) {
      report.set_samples_per_second(static_cast<double>(saved_.rows - first_row_) / seconds);
    }
    context_.ReportProgress(report);
  }

  Status Finish() {
    LEPTON_ASSIGN_OR_RETURN(const auto file, context_.objects().NewObject());
    for (const auto& part : saved_.parts) {
      LEPTON_ASSIGN_OR_RETURN(const MappedFile bytes, context_.objects().Map(part));
      LEPTON_RETURN_IF_ERROR(file->Append(bytes.bytes()));
    }
    LEPTON_RETURN_IF_ERROR(file->Append(pending_));
    LEPTON_ASSIGN_OR_RETURN(const storage::Digest digest, file->Finish());
    wire::TaskFinished result;
    result.set_steps(static_cast<uint64_t>(saved_.rows));
    (*result.mutable_files())[writer_.FileName()] = digest;
    result.add_objects(digest);
    auto& metrics = *result.mutable_metrics();
    metrics["rows"] = static_cast<double>(saved_.rows);
    if (saved_.sums.tokens > 0) {
      metrics["loss"] = saved_.sums.loss / static_cast<double>(saved_.sums.tokens);
      metrics["perplexity"] = std::exp(metrics["loss"]);
    }
    metrics["seconds"] = std::chrono::duration<double>(RealClock().Now() - started_).count();
    context_.SetResult(result);
    LOG(INFO) << fmt::format("{} rows in {}", saved_.rows, writer_.FileName());
    return Status::Ok();
  }

  TaskContext& context_;
  const Examples& examples_;
  RowAsker& asker_;
  const PredictionWriter& writer_;
  collectives::Communicator& gang_;
  Saved saved_;
  std::string pending_;  // behind the last part; rank 0
  int64_t first_row_ = 0;
  MonotonicTime started_, saved_at_, reported_;
};

PredictionWriter::Options WriterOptions(const spec::BatchSpec& batch,
                                        const storage::ModelManifest& model,
                                        const StoredDataset& dataset) {
  PredictionWriter::Options options;
  options.format = batch.output.format;
  options.kind = model.input.per_token ? PredictionWriter::Kind::kTokens
                 : model.loss == "mse" ? PredictionWriter::Kind::kValues
                                       : PredictionWriter::Kind::kClasses;
  options.classes = model.classes;
  options.files = dataset.manifest.kind == storage::DatasetKind::kImages;
  options.positions = dataset.manifest.kind == storage::DatasetKind::kText ||
                      dataset.manifest.kind == storage::DatasetKind::kTokens;
  options.generated = batch.generate.max_tokens > 0;
  return options;
}

ExamplesPtr PartOf(const PreparedData& data, const std::string& rows) {
  if (rows == "train") return data.train_plain;
  return rows == "validation" ? data.validation : data.test;
}

}  // namespace

Status RunBatch(TaskContext& context) {
  const spec::JobSpec& spec = context.spec();
  if (!spec.batch) return InvalidArgument("kind: batch needs an output");
  auto model =
      LoadedModel::Load(context.objects(), context.start().model_manifest(), spec.precision);
  if (!model.ok()) return model.status().WithContext("model.from");
  const storage::ModelManifest& manifest = (*model)->manifest();
  if (spec.batch->generate.max_tokens > 0 && !manifest.input.per_token) {
    return InvalidArgument("generate: the model is no language model");
  }
  Result<StoredDataset> dataset =
      LoadDataset(context.objects(), context.start().dataset_manifest());
  if (!dataset.ok()) return dataset.status().WithContext("dataset");
  TaskData tools(context);
  LEPTON_ASSIGN_OR_RETURN(const PreparedData data,
                          PrepareData(*dataset,
                                      {.dataset = spec.dataset,
                                       .loss = manifest.loss,
                                       .like = &manifest,
                                       .tokenizer = context.start().tokenizer(),
                                       .labels = spec.batch->output.rows != "all"},
                                      tools.tools()));
  const ExamplesPtr examples = PartOf(data, spec.batch->output.rows);
  if (examples->rows() == 0) {
    return InvalidArgument("output.rows: the " + spec.batch->output.rows + " part has no rows");
  }
  std::function<std::string_view(int64_t)> file_of;
  StoredImages images;
  if (dataset->manifest.kind == storage::DatasetKind::kImages) {
    LEPTON_ASSIGN_OR_RETURN(images, LoadImages(context.objects(), dataset->manifest));
    file_of = [&images](int64_t row) { return images.index.Path(row); };
  }
  const PredictionWriter writer(WriterOptions(*spec.batch, manifest, *dataset));
  RowAsker asker(**model, *examples, writer, spec.batch->generate, std::move(file_of));
  LEPTON_ASSIGN_OR_RETURN(const std::unique_ptr<collectives::Communicator> gang,
                          context.JoinGang());
  BatchRun run(context, *examples, asker, writer, *gang);
  LEPTON_RETURN_IF_ERROR(run.Resume());
  return run.Run();
}

}  // namespace lepton::worker
