#include <fmt/format.h>

#include <utility>

#include "scheduler/core/turn.h"

namespace lepton::scheduler {

void Turn::On(const CreateDataset& create) {
  if (Status status = CheckName("name", create.name); !status.ok()) return Answer(status);
  uint32_t version = 1;
  if (auto it = state_.datasets.find(create.name); it != state_.datasets.end()) {
    const Dataset& dataset = it->second;
    version = static_cast<uint32_t>(dataset.versions_size()) + 1;
    if (dataset.versions(dataset.versions_size() - 1).manifest() == create.manifest) {
      return Answer(Status::Ok(), fmt::format("{}@{}", create.name, version - 1), true);
    }
  }
  Record record;
  record.mutable_dataset_registered()->set_name(create.name);
  DatasetVersion& made = *record.mutable_dataset_registered()->mutable_version();
  made.set_version(version);
  made.set_manifest(create.manifest);
  made.set_rows(create.rows);
  for (const wire::ObjectRef& ref : create.objects) *made.add_objects() = ref;
  Persist(std::move(record));
  Answer(Status::Ok(), fmt::format("{}@{}", create.name, version));
}

void Turn::On(const RegisterModel& registered) {
  if (Status status = CheckName("name", registered.name); !status.ok()) return Answer(status);
  uint32_t version = 1;
  if (auto it = state_.models.find(registered.name); it != state_.models.end()) {
    const Model& model = it->second;
    version = static_cast<uint32_t>(model.versions_size()) + 1;
    if (model.versions(model.versions_size() - 1).manifest() == registered.manifest) {
      return Answer(Status::Ok(), fmt::format("{}@{}", registered.name, version - 1), true);
    }
  }
  Record record;
  record.mutable_model_registered()->set_name(registered.name);
  ModelVersion& made = *record.mutable_model_registered()->mutable_version();
  made.set_version(version);
  made.set_manifest(registered.manifest);
  for (const std::string& digest : registered.objects) made.add_objects(digest);
  made.mutable_metrics()->insert(registered.metrics.begin(), registered.metrics.end());
  Persist(std::move(record));
  Answer(Status::Ok(), fmt::format("{}@{}", registered.name, version));
}

void Turn::On(const SetAlias& set) {
  if (Status status = CheckName("alias", set.alias); !status.ok()) return Answer(status);
  // "digits@7" must mean version 7.
  if (set.alias.find_first_not_of("0123456789") == std::string::npos) {
    return Answer(InvalidArgument(
        fmt::format("alias: '{}' is a number: versions are numbers, aliases are not", set.alias)));
  }
  auto it = state_.models.find(set.name);
  if (it == state_.models.end()) return Answer(NotFound(fmt::format("no model '{}'", set.name)));
  const auto newest = static_cast<uint32_t>(it->second.versions_size());
  // Nor 0: it is the version in the result of a job that registered nothing.
  if (set.version == 0 || set.version > newest) {
    return Answer(NotFound(fmt::format("model '{}' has no version {}: versions 1 to {}", set.name,
                                       set.version, newest)));
  }
  Record record;
  record.mutable_alias_set()->set_name(set.name);
  record.mutable_alias_set()->set_alias(set.alias);
  record.mutable_alias_set()->set_version(set.version);
  Persist(std::move(record));
  Answer(Status::Ok(), fmt::format("{}@{}", set.name, set.version));
}

void Turn::RegisterResult(const Job& job, const JobResult& result) {
  const std::string& name = state_.Spec(JobId(job.id())).register_as;
  auto it = state_.models.find(name);
  const int versions = it == state_.models.end() ? 0 : it->second.versions_size();
  Record record;
  record.mutable_model_registered()->set_name(name);
  ModelVersion& made = *record.mutable_model_registered()->mutable_version();
  made.set_version(static_cast<uint32_t>(versions) + 1);
  made.set_manifest(result.model_manifest());
  *made.mutable_objects() = result.objects();
  made.set_job_id(job.id());
  made.set_dataset(job.inputs().dataset_name());
  made.set_parent(job.inputs().model_name());
  made.set_teacher(job.inputs().teacher_name());
  *made.mutable_metrics() = result.metrics();
  Persist(std::move(record));
}

}  // namespace lepton::scheduler
