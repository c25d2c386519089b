#include "worker/evaluate/evaluate_task.h"

#include "worker/device.h"
#include "worker/train/evaluation.h"
#include "worker/train/model_files.h"
#include "worker/train/train_session.h"

namespace lepton::worker {
namespace {

Result<ExamplesPtr> ChooseRows(TaskContext& context, const StoredDataset& dataset,
                               const StoredModel& model) {
  spec::DatasetSpec spec = context.spec().dataset;
  TaskData tools(context);
  const DataRequest request{.dataset = spec,
                            .loss = model.manifest.loss,
                            .like = &model.manifest,
                            .tokenizer = context.start().tokenizer()};
  LEPTON_ASSIGN_OR_RETURN(PreparedData data, PrepareData(dataset, request, tools.tools()));
  if (data.test->rows() > 0) return data.test;
  spec.split.train = spec.split.validation = 0;
  LEPTON_ASSIGN_OR_RETURN(data, PrepareData(dataset, request, tools.tools()));
  return data.test;
}

}  // namespace

Status RunEvaluate(TaskContext& context) {
  const wire::StartTask& start = context.start();
  Result<StoredModel> model = LoadModel(context.objects(), start.model_manifest());
  if (!model.ok()) return model.status().WithContext("model.from");
  if (model->manifest.labels_tokens()) {
    return InvalidArgument("model.from: the model gives a class per token, rows have one label");
  }
  Result<StoredDataset> dataset = LoadDataset(context.objects(), start.dataset_manifest());
  if (!dataset.ok()) return dataset.status().WithContext("dataset");
  LEPTON_ASSIGN_OR_RETURN(const ExamplesPtr part, ChooseRows(context, *dataset, *model));
  LEPTON_ASSIGN_OR_RETURN(const std::unique_ptr<kernels::DeviceBackend> device,
                          OpenDevice(context.spec().resources.device));
  LEPTON_ASSIGN_OR_RETURN(const std::unique_ptr<nn::TrainingProgram> program,
                          BuildEvaluator(*model, context.spec().precision, device.get()));
  LEPTON_ASSIGN_OR_RETURN(const std::unique_ptr<collectives::Communicator> gang,
                          context.JoinGang());
  LEPTON_ASSIGN_OR_RETURN(const Evaluation evaluation,
                          Evaluate(*program, *part, part->rows(), *gang));

  std::map<std::string, double> metrics;
  evaluation.AddTo("test", metrics);
  metrics["test/rows"] = static_cast<double>(evaluation.rows);
  if (evaluation.tokens > 0) metrics["test/tokens"] = static_cast<double>(evaluation.tokens);
  const std::vector<std::string>& classes = model->manifest.classes;
  for (size_t i = 0; i < classes.size() && i < evaluation.class_rows.size(); ++i) {
    if (evaluation.class_rows[i] == 0) continue;
    metrics["recall/" + classes[i]] = static_cast<double>(evaluation.class_correct[i]) /
                                      static_cast<double>(evaluation.class_rows[i]);
  }
  wire::TaskFinished result;
  result.mutable_metrics()->insert(metrics.begin(), metrics.end());
  context.SetResult(result);
  return Status::Ok();
}

}  // namespace lepton::worker
