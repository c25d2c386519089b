#include "worker/batch/batch_task.h"

#include <glog/logging.h>

#include <algorithm>
#include <string>
#include <utility>

#include "runtime/base/progress.h"
#include "worker/batch/row_asker.h"
#include "worker/data/picture_file.h"
#include "worker/device.h"
#include "worker/train/train_session.h"

namespace lepton::worker {
namespace {

// Rows of a shard when nobody says: so many shards a worker, but not so small that reports would be
// most of the work, nor so large that much is lost with a worker.
constexpr int64_t kShardsPerWorker = 16;
constexpr int64_t kMostShardRows = 65'536;
// The coordinator keeps a line for each.
constexpr int64_t kMostShards = 16'384;

// Does shards until it is told to stop.
class BatchRun {
 public:
  BatchRun(TaskContext& context, RowAsker& asker, const PredictionWriter& writer)
      : context_(context), shards_(*context.shards()), asker_(asker), writer_(writer) {}

  Status Run() {
    while (true) {
      LEPTON_ASSIGN_OR_RETURN(const Shard shard, shards_.Next());
      const Status status = Do(shard);
      if (status.code() == StatusCode::kAborted) {
        LOG(INFO) << status.message();
        continue;
      }
      LEPTON_RETURN_IF_ERROR(status);
    }
  }

 private:
  Status Do(const Shard& shard) {
    const progress::Computing computing("shard", shard.index);
    std::string lines = shard.index == 0 ? writer_.Header() : "";
    TokenSums sums;
    const MonotonicTime started = RealClock().Now();
    for (int64_t first = shard.first; first < shard.last; first += asker_.ask_rows()) {
      const int64_t last = std::min(shard.last, first + asker_.ask_rows());
      // By the pace so far; the first block is begun in any case.
      const auto go_on = [&](double share) {
        const double done =
            static_cast<double>(first - shard.first) + share * static_cast<double>(last - first);
        const double left = static_cast<double>(shard.last - shard.first) - done;
        return shards_.GoOn(shard, done <= 0 ? Duration::zero()
                                             : std::chrono::duration_cast<Duration>(
                                                   left / done * (RealClock().Now() - started)));
      };
      LEPTON_RETURN_IF_ERROR(go_on(0));
      LEPTON_ASSIGN_OR_RETURN(const std::string block, asker_.Ask(first, last, &sums, go_on));
      lines += block;
    }
    wire::TaskShardDone done;
    {
      const progress::Waiting disk;
      LEPTON_ASSIGN_OR_RETURN(*done.mutable_object(), context_.objects().Put(lines));
    }
    done.set_shard(shard.index);
    done.set_bytes(lines.size());
    done.set_tokens(sums.tokens);
    done.set_loss(sums.loss);
    shards_.Done(done);
    return Status::Ok();
  }

  TaskContext& context_;
  ShardSource& shards_;
  RowAsker& asker_;
  const PredictionWriter& writer_;
};

PredictionWriter::Options WriterOptions(const spec::BatchSpec& batch, const std::string& messages,
                                        const storage::ModelManifest& model, int64_t outputs,
                                        const StoredDataset& dataset) {
  PredictionWriter::Options options;
  options.format = batch.output.format;
  options.kind = model.input.per_token ? PredictionWriter::Kind::kTokens
                 : model.loss == "mse" ? PredictionWriter::Kind::kValues
                                       : PredictionWriter::Kind::kClasses;
  options.classes = model.classes;
  options.values = outputs;
  options.files = dataset.manifest.kind == storage::DatasetKind::kImages;
  options.positions = dataset.manifest.kind == storage::DatasetKind::kText ||
                      dataset.manifest.kind == storage::DatasetKind::kTokens;
  options.losses = messages.empty();  // nobody asks how likely a chat's question is
  options.generated = batch.generate.max_tokens > 0;
  return options;
}

ExamplesPtr PartOf(const PreparedData& data, const std::string& rows) {
  if (rows == "train") return data.train_plain;
  return rows == "validation" ? data.validation : data.test;
}

}  // namespace

int64_t ShardRows(int64_t asked, int64_t rows, int64_t block_rows, int64_t together,
                  int max_workers) {
  const int64_t workers = std::max(1, max_workers);
  const int64_t even =
      std::max(rows / (kShardsPerWorker * workers), std::min(together, rows / workers));
  int64_t wanted = asked > 0 ? asked : std::min(even, kMostShardRows);
  wanted = std::max(wanted, (rows + kMostShards - 1) / kMostShards);
  return std::max<int64_t>(1, (wanted + block_rows - 1) / block_rows) * block_rows;
}

Status RunBatch(TaskContext& context) {
  const spec::JobSpec& spec = context.spec();
  if (!spec.batch) return InvalidArgument("kind: batch needs an output");
  if (context.shards() == nullptr) {
    return FailedPrecondition(
        "the coordinator deals no shards: install the same version of lepton "
        "there as on the workers");
  }
  LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<kernels::DeviceBackend> device,
                          OpenDevice(spec.resources.device));
  auto model = LoadedModel::Load(context.objects(), context.start().model_manifest(),
                                 spec.precision, std::move(device));
  if (!model.ok()) return model.status().WithContext("model.from");
  LEPTON_RETURN_IF_ERROR((*model)->Adopt(context.objects(), context.start().tokenizer()));
  const storage::ModelManifest& manifest = (*model)->manifest();
  if (manifest.labels_tokens()) {
    return InvalidArgument("model.from: the model gives a class per token, rows have one answer");
  }
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
  const PredictionWriter writer(
      WriterOptions(*spec.batch, spec.dataset.messages, manifest, (*model)->outputs(), *dataset));
  RowAsker asker(**model, *examples, writer, spec.batch->generate, std::move(file_of));
  context.shards()->Ready(
      examples->rows(),
      ShardRows(spec.batch->output.shard_rows, examples->rows(), asker.block_rows(),
                asker.together(), spec.resources.max_workers));
  return BatchRun(context, asker, writer).Run().WithContext("batch");
}

}  // namespace lepton::worker
