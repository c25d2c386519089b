// What must hold of a job that is asked for now. Not part of parsing: a journal may have jobs of a
// version that did not check it, and a trial's spec is one of a template.
#include <algorithm>
#include <array>

#include "runtime/base/json.h"
#include "runtime/base/json_text.h"
#include "runtime/base/pattern.h"
#include "runtime/spec/fields.h"
#include "runtime/spec/job_spec.h"

namespace lepton::spec {
namespace {

using nlohmann::json;

std::string Joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// What parts of the data are measured by, with any of the losses that the trials may have.
std::vector<std::string> Figures(const JobSpec& spec) {
  std::vector<std::string> losses = {spec.loss}, figures = {"loss"};
  if (spec.search) {
    for (const Dimension& dimension : spec.search->space) {
      if (dimension.path != "loss") continue;
      for (const std::string& choice : dimension.choices) {
        const json value = json::parse(choice, nullptr, /*allow_exceptions=*/false);
        if (value.is_string()) losses.push_back(value.get<std::string>());
      }
    }
  }
  const auto add = [&](const char* name) {
    if (std::find(figures.begin(), figures.end(), name) == figures.end()) figures.push_back(name);
  };
  for (const std::string& loss : losses) {
    if (loss == "mse") {
      add("mse");
      add("r2");
    } else {
      add("accuracy");
      if (loss == "next_token") add("perplexity");
    }
  }
  return figures;
}

Status CheckMetric(const std::string& field, const std::string& metric,
                   std::initializer_list<const char*> parts, std::vector<std::string> others,
                   const JobSpec& spec) {
  std::vector<std::string> known;
  for (const char* part : parts) {
    for (const std::string& figure : Figures(spec)) known.push_back(part + ("/" + figure));
  }
  known.insert(known.end(), others.begin(), others.end());
  if (std::find(known.begin(), known.end(), metric) != known.end()) return Status::Ok();
  const std::string near(Nearest(metric, known));
  return InvalidArgument(field + ": \"" + metric + "\" is not reported with loss " + spec.loss +
                         (near.empty() ? "." : "; did you mean " + near + "?") + " There are " +
                         Joined(known));
}

// A part without rows is not measured.
Status CheckPart(const JobSpec& spec) {
  const std::string& metric = spec.search->metric;
  const SplitSpec& split = spec.dataset.split;
  constexpr double kRounding = 1e-9;  // 1 - 0.8 - 0.2 is not quite 0
  const bool no_validation = split.validation < kRounding && metric.starts_with("validation/");
  const bool no_test =
      1 - split.train - split.validation < kRounding && metric.starts_with("test/");
  if (!no_validation && !no_test) return Status::Ok();
  return InvalidArgument("search.metric: " + metric + " needs rows in the " +
                         (no_test ? "test" : "validation") + " part: change dataset.split");
}

// What is the whole search's: bound, or read, when it begins.
constexpr std::array<std::string_view, 26> kNotATrials = {
    "kind",          "name",         "queue",          "priority",
    "deadline",      "restart",      "register",       "labels",
    "resources",     "parallel",     "search",         "checkpoint",
    "dataset.uri",   "dataset.name", "dataset.format", "dataset.token_type",
    "dataset.label", "dataset.text", "dataset.split",  "dataset.tokenizer",
    "model.from",    "model.onnx",   "model.hf",       "dataset.text_pair",
    "epochs",        "steps"};

// A dimension that is a field's whole: what a value of it names besides.
Status CheckWhole(const Dimension& dimension) {
  if (dimension.path != "dataset" && dimension.path != "model") return Status::Ok();
  for (const std::string& choice : dimension.choices) {
    const nlohmann::json value = ParseJson(choice).value_or(nlohmann::json());
    std::string field = value.is_string() ? dimension.path == "model" ? "from" : "name" : "";
    for (const std::string_view fixed : kNotATrials) {
      if (!value.is_object() || !fixed.starts_with(dimension.path + ".")) continue;
      const std::string key(fixed.substr(dimension.path.size() + 1));
      if (value.contains(key)) field = key;
    }
    if (field.empty()) continue;
    return InvalidArgument("search.space: " + dimension.path + ": " + choice + ": " +
                           dimension.path + "." + field +
                           " is the whole search's, and the same for all trials; submit a search "
                           "for each");
  }
  return Status::Ok();
}

// A field of whole numbers takes both ends of a range, and nothing that is drawn between them.
Status CheckBetween(const JobSpec& spec) {
  constexpr double kSomewhere = 0.3819660113;  // of no range of whole numbers a whole number
  std::map<std::string, std::string> values = TrialCorners(*spec.search).back();
  for (const Dimension& d : spec.search->space) {
    if (d.type != Dimension::Type::kUniform && d.type != Dimension::Type::kLogUniform) continue;
    values[d.path] = json(d.low + kSomewhere * (d.high - d.low)).dump();
  }
  // What only goes ill together fails the trials that it happens to.
  const Status status = ApplyTrial(spec, values).status();
  if (status.message().find("is not a whole number") == std::string::npos) return Status::Ok();
  return InvalidArgument(
      "search.space: " + status.message() +
      "; whole numbers are drawn by {int: [low, high]} and {logint: [low, high]}");
}

Status CheckDimensions(const JobSpec& spec) {
  for (const Dimension& dimension : spec.search->space) {
    LEPTON_RETURN_IF_ERROR(CheckWhole(dimension));
    for (const std::string_view fixed : kNotATrials) {
      const bool within = dimension.path.starts_with(std::string(fixed) + ".");
      if (dimension.path != fixed && !within) continue;
      if (fixed == "epochs" || fixed == "steps") {
        return InvalidArgument(
            "search.space: " + dimension.path +
            " is the budget of every trial: give the most that one may have as " + dimension.path +
            "; algorithm: asha stops those early that are behind");
      }
      return InvalidArgument("search.space: " + dimension.path +
                             " is the whole search's, and the same for all trials; a dimension is "
                             "a field of the training itself, such as optimizer.lr");
    }
  }
  return Status::Ok();
}

// Here and not as a spec is read: what an older release took is to be read again.
Status CheckPatterns(const RestartSpec& restart) {
  for (size_t i = 0; i < restart.log_policies.size(); ++i) {
    const auto pattern = Pattern::Compile(restart.log_policies[i].pattern);
    if (pattern.ok()) continue;
    return pattern.status().WithContext("restart.log_policies." + std::to_string(i) + ".pattern");
  }
  return Status::Ok();
}

}  // namespace

Status CheckSubmission(const JobSpec& spec) {
  LEPTON_RETURN_IF_ERROR(CheckPatterns(spec.restart));
  if (spec.collectives == "nccl" && spec.resources.device != "cuda") {
    return InvalidArgument("collectives: nccl needs resources.device: cuda, not " +
                           spec.resources.device);
  }
  if (spec.precision == "int8" && spec.resources.device != "cpu") {
    return InvalidArgument(
        "precision: int8 is computed with resources.device: cpu only; with cuda it must be f32, "
        "bf16 "
        "or model");
  }
  const bool trains = spec.kind != JobKind::kEvaluate && spec.kind != JobKind::kBatch;
  if (trains && spec.checkpoint.keep_best.count > 0) {
    LEPTON_RETURN_IF_ERROR(CheckMetric("checkpoint.keep_best.metric",
                                       spec.checkpoint.keep_best.metric, {"validation", "train"},
                                       {}, spec));
  }
  if (!spec.search) return Status::Ok();
  LEPTON_RETURN_IF_ERROR(CheckMetric("search.metric", spec.search->metric,
                                     {"validation", "test", "train"},
                                     {"seconds", "samples_per_second", "grad_norm"}, spec));
  LEPTON_RETURN_IF_ERROR(CheckPart(spec));
  LEPTON_RETURN_IF_ERROR(CheckDimensions(spec));
  return CheckBetween(spec);
}

}  // namespace lepton::spec
