#include "runtime/spec/job_spec.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/ids.h"
#include "runtime/base/json.h"
#include "runtime/spec/job_spec_fields.h"

namespace lepton::spec {
namespace {

using nlohmann::json;

constexpr std::pair<JobKind, std::string_view> kKinds[] = {{JobKind::kTrain, "train"},
                                                           {JobKind::kTune, "tune"},
                                                           {JobKind::kDistill, "distill"},
                                                           {JobKind::kEvaluate, "evaluate"},
                                                           {JobKind::kBatch, "batch"}};

std::string KindNames() {
  std::string names;
  for (const auto& [kind, name] : kKinds) names += (names.empty() ? "" : ", ") + std::string(name);
  return names;
}

Result<JobKind> ReadKind(const json& document) {
  if (!document.is_object()) return InvalidArgument("the spec must be a mapping of fields");
  const auto it = document.find("kind");
  if (it == document.end()) {
    return InvalidArgument("kind: missing; must be one of " + KindNames());
  }
  for (const auto& [kind, name] : kKinds) {
    if (it->is_string() && it->get<std::string>() == name) return kind;
  }
  return InvalidArgument("kind: " + it->dump() + " is not one of " + KindNames());
}

bool Has(const json& document, std::string_view object, std::string_view field) {
  const auto it = document.find(std::string(object));
  if (it == document.end() || !it->is_object()) return false;
  const auto inner = it->find(std::string(field));
  return inner != it->end() && !inner->is_null();
}

// Fields that belong to one kind only say so, rather than "unknown field".
Status CheckKindsOwnFields(const json& document, JobKind kind) {
  const std::pair<const char*, JobKind> owned[] = {
      {"search", JobKind::kTune},         {"teacher", JobKind::kDistill},
      {"temperature", JobKind::kDistill}, {"alpha", JobKind::kDistill},
      {"output", JobKind::kBatch},        {"generate", JobKind::kBatch}};
  for (const auto& [field, owner] : owned) {
    if (document.contains(field) && kind != owner) {
      return InvalidArgument(std::string(field) + ": belongs to kind " +
                             std::string(JobKindName(owner)) + ", but kind is " +
                             std::string(JobKindName(kind)));
    }
  }
  return Status::Ok();
}

// The paths of `all` that `given` does not have.
void AddNotGiven(const json& all, const json& given, const std::string& path,
                 std::vector<std::string>& to) {
  for (const auto& [key, value] : all.items()) {
    const json inner = given.is_object() ? given.value(key, json()) : json();
    if (value.is_object()) {
      AddNotGiven(value, inner, path + "." + key, to);
    } else if (inner.is_null()) {
      to.push_back(path + "." + key);
    }
  }
}

// Which way a metric is better.
std::string ModeOf(std::string_view metric) {
  const std::string_view figure = metric.substr(metric.find('/') + 1);
  for (const char* less : {"loss", "mse", "perplexity", "seconds", "grad_norm"}) {
    if (figure == less) return "min";
  }
  return "max";
}

// See JobSpec::left_open.
std::vector<std::string> LeftOpen(const json& document, const JobSpec& spec) {
  std::vector<std::string> open;
  const auto chosen = [&spec](std::string_view path) {
    const std::vector<Dimension>& space = spec.search->space;
    return std::any_of(space.begin(), space.end(),
                       [path](const Dimension& d) { return d.path == path; });
  };
  if (chosen("model.arch") || chosen("model.style")) {
    json given = document.value("model", json());
    if (given.is_string()) given = {{"from", given}};
    AddNotGiven(ModelSpecToJson(spec.model), given, "model", open);
  }
  if (chosen("optimizer.name") && !Has(document, "optimizer", "weight_decay")) {
    open.emplace_back("optimizer.weight_decay");
  }
  const json checkpoint = document.value("checkpoint", json());
  if (chosen("loss") && !Has(checkpoint, "keep_best", "metric")) {
    open.emplace_back("checkpoint.keep_best.metric");
    if (!Has(checkpoint, "keep_best", "mode")) open.emplace_back("checkpoint.keep_best.mode");
  }
  return open;
}

// Removes the field on a path, and objects that have no other.
void Erase(json& object, std::string_view path) {
  const size_t dot = path.find('.');
  const std::string key(path.substr(0, dot));
  if (!object.is_object() || !object.contains(key)) return;
  if (dot != std::string_view::npos) {
    Erase(object[key], path.substr(dot + 1));
    if (!object[key].empty()) return;
  }
  object.erase(key);
}

Status CheckSearch(const JobSpec& spec) {
  const SearchSpec& search = *spec.search;
  if (search.space.empty()) {
    return InvalidArgument("search.space: must name at least one dimension");
  }
  // Both corners and every choice must make a valid spec, so that no trial fails for its path or
  // its limits.
  for (const auto& values : TrialCorners(search)) {
    LEPTON_RETURN_IF_ERROR(ApplyTrial(spec, values).status().WithContext("search.space"));
  }
  return Status::Ok();
}

// The model to start from comes from one place.
Status CheckStart(const ModelSpec& model) {
  const int places = !model.from.empty() + !model.onnx.empty() + !model.hf.empty();
  if (places > 1) {
    return InvalidArgument(std::string("model.") + (model.onnx.empty() ? "hf" : "onnx") +
                           ": give one of from, onnx and hf, not several");
  }
  if (model.hf.empty() || SaysNoArchitecture(model)) return Status::Ok();
  return InvalidArgument(
      "model.hf: the folder says the architecture: only dropout may be given beside it");
}

// A registered version, or a folder with a model.
Status CheckModelReference(std::string_view field, const std::string& text) {
  if (text.rfind("file:///", 0) == 0) return Status::Ok();
  return ParseReference(field, text).status();
}

Status CheckGradients(const GradientsSpec& gradients) {
  if (gradients.bucket_bytes == 0 || gradients.bucket_bytes >= 1 << 10) return Status::Ok();
  return InvalidArgument("gradients.bucket_bytes: " + std::to_string(gradients.bucket_bytes) +
                         " is less than 1024; 0 is as measured");
}

// What the training state cannot be cut up with.
Status CheckParallel(const JobSpec& spec) {
  if (spec.parallel.zero == 0) return Status::Ok();
  if (spec.parallel.zero >= 2 && spec.gradients.compression != "none") {
    return InvalidArgument("parallel.zero: stages 2 and 3 need gradients.compression: none, not " +
                           spec.gradients.compression + "; stage 1 takes any");
  }
  if (spec.resources.device != "cpu") {
    return InvalidArgument(
        "parallel.zero: works with resources.device: cpu only so far; with cuda it must be 0");
  }
  return Status::Ok();
}

// What parallel.tensor does not go with, and what to write instead; empty: nothing.
std::string AgainstTensor(const JobSpec& spec) {
  const bool of_elsewhere =
      SaysNoArchitecture(spec.model) && (!spec.model.from.empty() || !spec.model.hf.empty());
  if (spec.kind != JobKind::kTrain) {
    return "is for kind train only; with " + std::string(JobKindName(spec.kind)) + " it must be 1";
  }
  if (spec.model.arch != "transformer" && !of_elsewhere) {
    return "divides layers of model.arch transformer only; with " + spec.model.arch +
           " it must be 1";
  }
  if (spec.parallel.zero > 0) return "needs parallel.zero: 0";
  if (spec.gradients.compression == "low_rank") {
    return "needs gradients.compression: none or bf16, not low_rank";
  }
  if (spec.local_sgd.inner_steps > 0) return "needs local_sgd.inner_steps: 0";
  if (spec.resources.device != "cpu") {
    return "works with resources.device: cpu only so far; with cuda it must be 1";
  }
  if (spec.collectives == "nccl") return "needs collectives: auto, native or mpi, not nccl";
  if (spec.elastic.recovery != "restart") {
    return "needs elastic.recovery: restart: no other rank holds what a lost one held";
  }
  return "";
}

// Layers over several ranks. What a model from elsewhere has is known when it is built.
Status CheckTensor(const JobSpec& spec) {
  const int ranks = spec.parallel.tensor;
  if (ranks == 1) return Status::Ok();
  if (const std::string against = AgainstTensor(spec); !against.empty()) {
    return InvalidArgument("parallel.tensor: " + against);
  }
  const ResourceSpec& resources = spec.resources;
  if (resources.max_workers % ranks != 0) {
    return InvalidArgument("resources.max_workers: " + std::to_string(resources.max_workers) +
                           " must be a multiple of parallel.tensor, " + std::to_string(ranks));
  }
  if (resources.min_workers != resources.max_workers) {
    return InvalidArgument("resources.min_workers: " + std::to_string(resources.min_workers) +
                           " must be max_workers, " + std::to_string(resources.max_workers) +
                           ", with parallel.tensor");
  }
  if (spec.model.arch != "transformer") return Status::Ok();
  const TransformerSpec& model = spec.model.transformer;
  for (const auto& [field, count] : {std::pair<const char*, int64_t>{"heads", model.heads},
                                     {"kv_heads", model.kv_heads},
                                     {"mlp_width", model.mlp_width}}) {
    if (count % ranks == 0) continue;
    return InvalidArgument("parallel.tensor: " + std::to_string(ranks) + " must divide model." +
                           field + ", " + std::to_string(count));
  }
  return Status::Ok();
}

// What rounds of steps on weights of one's own do not go with.
Status CheckLocalSgd(const JobSpec& spec) {
  if (spec.local_sgd.inner_steps == 0) return Status::Ok();
  if (spec.parallel.zero > 0) {
    return InvalidArgument(
        "local_sgd.inner_steps: each worker steps alone and needs the whole optimizer's state: "
        "parallel.zero must be 0, not " +
        std::to_string(spec.parallel.zero) + ", or inner_steps 0");
  }
  if (spec.gradients.compression == "low_rank") {
    return InvalidArgument(
        "local_sgd.inner_steps: needs gradients.compression: none or bf16, not low_rank, or "
        "inner_steps 0");
  }
  return Status::Ok();
}

Status CheckTogether(const JobSpec& spec) {
  LEPTON_RETURN_IF_ERROR(CheckName("name", spec.name));
  LEPTON_RETURN_IF_ERROR(CheckName("queue", spec.queue));
  if (!spec.register_as.empty()) {
    LEPTON_RETURN_IF_ERROR(CheckName("register", spec.register_as));
    if (spec.kind == JobKind::kEvaluate || spec.kind == JobKind::kBatch) {
      return InvalidArgument("register: kind " + std::string(JobKindName(spec.kind)) +
                             " makes no model");
    }
  }
  LEPTON_RETURN_IF_ERROR(CheckDataset(spec.dataset, spec.loss));
  if (!spec.dataset.messages.empty() && (!spec.batch || spec.batch->generate.max_tokens < 1)) {
    return InvalidArgument(
        "dataset.messages: is what a batch job goes on from: kind: batch, with "
        "generate.max_tokens");
  }
  LEPTON_RETURN_IF_ERROR(CheckStart(spec.model));
  if (spec.model.arch == "onnx" && spec.model.from.empty() && spec.model.onnx.empty()) {
    return InvalidArgument("model.onnx: missing; name the ONNX file");
  }
  if (!spec.model.from.empty()) {
    LEPTON_RETURN_IF_ERROR(CheckModelReference("model.from", spec.model.from));
  } else if (spec.model.onnx.empty() && spec.model.hf.empty() &&
             (spec.kind == JobKind::kEvaluate || spec.kind == JobKind::kBatch)) {
    return InvalidArgument("model.from: missing; name the model to " +
                           std::string(spec.kind == JobKind::kBatch ? "ask" : "evaluate") +
                           ", such as digits@1");
  }
  if (spec.resources.min_workers > spec.resources.max_workers) {
    return InvalidArgument("resources.min_workers: " + std::to_string(spec.resources.min_workers) +
                           " is more than max_workers, " +
                           std::to_string(spec.resources.max_workers));
  }
  LEPTON_RETURN_IF_ERROR(CheckGradients(spec.gradients));
  LEPTON_RETURN_IF_ERROR(CheckParallel(spec));
  LEPTON_RETURN_IF_ERROR(CheckTensor(spec));
  LEPTON_RETURN_IF_ERROR(CheckLocalSgd(spec));
  if (spec.schedule.name == "step" && spec.schedule.step_size == 0) {
    return InvalidArgument("schedule.step_size: must be at least 1 with schedule step");
  }
  for (size_t i = 0; i < spec.restart.log_policies.size(); ++i) {
    const std::string path = "restart.log_policies." + std::to_string(i) + ".";
    const LogPolicy& policy = spec.restart.log_policies[i];
    if (policy.pattern.empty() || policy.action.empty()) {
      return InvalidArgument(path + (policy.pattern.empty() ? "pattern" : "action") + ": missing");
    }
  }
  if (spec.distill) {
    if (spec.distill->teacher.empty()) {
      return InvalidArgument("teacher: missing; name a registered model, such as digits@1");
    }
    LEPTON_RETURN_IF_ERROR(CheckModelReference("teacher", spec.distill->teacher));
    if (spec.loss != "cross_entropy") {
      return InvalidArgument("loss: distillation needs cross_entropy, not " + spec.loss);
    }
  }
  if (spec.search) return CheckSearch(spec);
  return Status::Ok();
}

std::string DefaultName(const JobSpec& spec) {
  std::string data = spec.dataset.name.substr(0, spec.dataset.name.find('@'));
  if (data.empty()) {
    data = spec.dataset.uri.substr(spec.dataset.uri.rfind('/') + 1);
    data = data.substr(0, data.rfind('.'));
  }
  const std::string name = std::string(JobKindName(spec.kind)) + "-" + data;
  return CheckName("name", name).ok() ? name : std::string(JobKindName(spec.kind));
}

}  // namespace

std::string_view JobKindName(JobKind kind) {
  for (const auto& [known, name] : kKinds) {
    if (known == kind) return name;
  }
  return "train";
}

std::vector<std::string_view> JobKindNames() {
  std::vector<std::string_view> names;
  for (const auto& [kind, name] : kKinds) names.push_back(name);
  return names;
}

Result<JobSpec> JobSpecFromJson(const json& document) {
  LEPTON_ASSIGN_OR_RETURN(const JobKind kind, ReadKind(document));
  LEPTON_RETURN_IF_ERROR(CheckKindsOwnFields(document, kind));
  JobSpec spec;
  spec.kind = kind;
  if (kind == JobKind::kEvaluate || kind == JobKind::kBatch) spec.precision = "model";
  if (document.contains("model")) spec.model = ModelDefaultsFor(document["model"]);
  LEPTON_RETURN_IF_ERROR(ReadFields(document, [&](FieldVisitor& v) { Visit(v, spec, kind); }));
  if (!Has(document, "optimizer", "weight_decay") && spec.optimizer.name != "adamw") {
    spec.optimizer.weight_decay = 0;
  }
  const json checkpoint = document.value("checkpoint", json::object());
  const bool measured_by_loss = spec.loss == "mse" || spec.loss == "next_token";
  if (measured_by_loss && !Has(checkpoint, "keep_best", "metric")) {
    spec.checkpoint.keep_best.metric = "validation/loss";
  }
  if (measured_by_loss && spec.search && !Has(document, "search", "metric")) {
    spec.search->metric = "validation/loss";
  }
  if (!Has(checkpoint, "keep_best", "mode")) {
    spec.checkpoint.keep_best.mode = ModeOf(spec.checkpoint.keep_best.metric);
  }
  if (spec.search && !Has(document, "search", "mode")) {
    spec.search->mode = ModeOf(spec.search->metric);
  }
  if (spec.parallel.tensor > 1) {
    if (!Has(document, "elastic", "recovery")) spec.elastic.recovery = "restart";
    if (!Has(document, "resources", "min_workers")) {
      spec.resources.min_workers = spec.resources.max_workers;
    }
  }
  if (spec.name.empty()) spec.name = DefaultName(spec);
  if (spec.search) spec.left_open = LeftOpen(document, spec);
  LEPTON_RETURN_IF_ERROR(CheckTogether(spec));
  return spec;
}

Result<JobSpec> ParseJobSpec(std::string_view text) {
  LEPTON_ASSIGN_OR_RETURN(const json document, DocumentToJson(text));
  return JobSpecFromJson(document);
}

json JobSpecToJson(const JobSpec& spec) {
  JobSpec copy = spec;
  json document = WriteFields([&](FieldVisitor& v) { Visit(v, copy, spec.kind); });
  for (const std::string& path : spec.left_open) Erase(document, path);
  return document;
}

json JobSpecSchema() {
  JobSpec defaults;
  json schema = SchemaOfFields([&](FieldVisitor& v) { Visit(v, defaults, std::nullopt); });
  schema["required"] = {"kind", "dataset"};
  return schema;
}

Result<JobSpec> ApplyTrial(const JobSpec& tune, const std::map<std::string, std::string>& values) {
  JobSpec base = tune;
  base.kind = JobKind::kTrain;
  base.search.reset();
  json document = JobSpecToJson(base);
  for (const auto& [path, text] : values) {
    json* at = &document;
    size_t begin = 0;
    while (begin <= path.size()) {
      const size_t dot = std::min(path.find('.', begin), path.size());
      const std::string key = path.substr(begin, dot - begin);
      if (!at->is_object() && !at->is_null()) {
        return InvalidArgument(path + ": no such field in a train spec");
      }
      at = &(*at)[key];
      begin = dot + 1;
    }
    *at = json::parse(text, nullptr, false);
    if (at->is_discarded()) return InvalidArgument(path + ": '" + text + "' is not a JSON value");
  }
  return JobSpecFromJson(document);
}

std::vector<std::map<std::string, std::string>> TrialCorners(const SearchSpec& search) {
  const auto corner = [&search](bool high) {
    std::map<std::string, std::string> values;
    for (const Dimension& d : search.space) {
      const bool whole = d.type == Dimension::Type::kInt || d.type == Dimension::Type::kLogInt;
      const double value = high ? d.high : d.low;
      if (d.type == Dimension::Type::kChoice) {
        values[d.path] = high ? d.choices.back() : d.choices.front();
      } else {
        values[d.path] = whole ? std::to_string(std::llround(value)) : json(value).dump();
      }
    }
    return values;
  };
  std::vector<std::map<std::string, std::string>> corners = {corner(true), corner(false)};
  std::map<std::string, std::string> values = corners.back();
  for (const Dimension& d : search.space) {
    for (size_t i = 1; i + 1 < d.choices.size(); ++i) {
      values[d.path] = d.choices[i];
      corners.push_back(values);
    }
    if (!d.choices.empty()) values[d.path] = d.choices.front();
  }
  return corners;
}

Result<DeploymentSpec> DeploymentSpecFromJson(const json& document) {
  DeploymentSpec spec;
  LEPTON_RETURN_IF_ERROR(ReadFields(document, [&](FieldVisitor& v) { Visit(v, spec); }));
  LEPTON_RETURN_IF_ERROR(CheckName("name", spec.name));
  const Result<Reference> model = ParseReference("model", spec.model);
  if (!model.ok()) return model.status();
  return spec;
}

json DeploymentSpecToJson(const DeploymentSpec& spec) {
  DeploymentSpec copy = spec;
  return WriteFields([&](FieldVisitor& v) { Visit(v, copy); });
}

json DeploymentSpecSchema() {
  DeploymentSpec defaults;
  json schema = SchemaOfFields([&](FieldVisitor& v) { Visit(v, defaults); });
  schema["required"] = {"name", "model"};
  return schema;
}

Result<Reference> ParseReference(std::string_view field, std::string_view text) {
  const size_t at = text.find('@');
  Reference reference;
  reference.name = std::string(text.substr(0, at));
  LEPTON_RETURN_IF_ERROR(CheckName(field, reference.name));
  if (at != std::string_view::npos) {
    reference.reference = std::string(text.substr(at + 1));
    LEPTON_RETURN_IF_ERROR(CheckName(field, reference.reference));
  }
  return reference;
}

}  // namespace lepton::spec
