#include "runtime/formats/huggingface/rope_options.h"

#include <cmath>

namespace lepton::huggingface {
namespace {

using nlohmann::json;
using spec::RopeSpec;

constexpr char kOriginal[] = "original_max_position_embeddings";
constexpr double kMostFactor = 1e6;

// The attention factor as it is in the end: which options it follows from, and how, has changed
// between versions of public code.
void ReadAttentionFactor(ConfigFields& fields, RopeSpec& rope) {
  double given = 0, scale = 0, all_scale = 0;
  if (rope.scaling == "yarn") {
    fields.Number("mscale", scale, 0, kMostFactor);
    fields.Number("mscale_all_dim", all_scale, 0, kMostFactor);
  }
  fields.Number("attention_factor", given, 1e-6, kMostFactor);
  rope.attention_factor = given != 0 ? given : spec::AttentionFactor(rope);
  if (given != 0 || scale == 0 || all_scale == 0 || rope.factor <= 1) return;
  const double grown = 0.1 * std::log(rope.factor);
  rope.attention_factor = (grown * scale + 1) / (grown * all_scale + 1);
}

void ReadYarn(ConfigFields& fields, RopeSpec& rope) {
  fields.Number("beta_fast", rope.beta_fast, 1e-3, kMostFactor);
  fields.Number("beta_slow", rope.beta_slow, 1e-3, kMostFactor);
  fields.Bool("truncate", rope.truncate);
  fields.PassOver({"finetuned"});
  if (rope.beta_fast < rope.beta_slow) fields.Fail("beta_fast", "must not be less than beta_slow");
  if (rope.base <= 1) fields.Fail("rope_theta", "must be above 1 for yarn");
  ReadAttentionFactor(fields, rope);
}

void ReadLongRope(ConfigFields& fields, const spec::TransformerSpec& t, RopeSpec& rope) {
  const auto pairs = static_cast<size_t>(t.head_size / 2);
  for (const char* key : {"short_factor", "long_factor"}) fields.Require(key);
  fields.NumberList("short_factor", rope.short_factor, 1e-6, kMostFactor, pairs);
  fields.NumberList("long_factor", rope.long_factor, 1e-6, kMostFactor, pairs);
  if (rope.original_context < 2) fields.Fail(kOriginal, "must be above 1");
  rope.factor = static_cast<double>(t.context) / static_cast<double>(rope.original_context);
  fields.Number("factor", rope.factor, 1e-3, kMostFactor);
  ReadAttentionFactor(fields, rope);
}

// Within the rotary options or, older, beside them; without it the model's own context.
int64_t OriginalContext(ConfigFields& fields, int64_t beside, const spec::TransformerSpec& t) {
  int64_t within = 0;
  fields.Integer(kOriginal, within, 1, 1 << 30);
  if (within != 0 && beside != 0 && within != beside) {
    fields.Fail(kOriginal, std::to_string(within) + " is not the " + std::to_string(beside) +
                               " that config.json says beside it");
  }
  return within != 0 ? within : beside != 0 ? beside : t.context;
}

// Up to max_position_embeddings there is no scaling, and longer texts have no place.
void ReadDynamic(ConfigFields& fields, int64_t original, int64_t context) {
  if (original == context) return;
  fields.Fail(kOriginal, std::to_string(original) +
                             " is not supported: must be max_position_embeddings, " +
                             std::to_string(context));
}

// rope_scaling, or the newer rope_parameters, which has rope_theta too. `original`: the
// original_max_position_embeddings beside it, or 0.
Status ReadRope(const json& value, const std::string& key, int64_t original,
                const spec::TransformerSpec& t, RopeSpec& rope) {
  if (!value.is_object()) return InvalidArgument("config.json: " + key + ": is not an object");
  ConfigFields fields(value, key + ".");
  std::string type = "default", old_type;
  fields.Text("type", old_type);
  if (!old_type.empty()) type = old_type;
  fields.Text("rope_type", type);
  fields.Number("rope_theta", rope.base, 1e-3, 1e12);
  fields.MustBe("partial_rotary_factor", 1.0);
  if (type == "default") return fields.Finish();
  rope.scaling = type;
  const bool grows = type == "yarn" || type == "dynamic";
  if (type == "linear" || type == "llama3" || grows) {
    fields.Require("factor");
    fields.Number("factor", rope.factor, grows ? 1.0 : 1e-3, kMostFactor);
  } else if (type != "longrope") {
    fields.Fail("rope_type", type +
                                 " is not supported: must be default, linear, llama3, yarn, "
                                 "longrope or dynamic");
  }
  if (type == "linear") return fields.Finish();
  const int64_t before = OriginalContext(fields, original, t);
  if (type != "dynamic") rope.original_context = before;
  if (type == "llama3") {
    for (const char* option : {"low_freq_factor", "high_freq_factor"}) fields.Require(option);
    fields.Number("low_freq_factor", rope.low_freq_factor, 1e-3, kMostFactor);
    fields.Number("high_freq_factor", rope.high_freq_factor, 1e-3, kMostFactor);
  } else if (type == "yarn") {
    ReadYarn(fields, rope);
  } else if (type == "longrope") {
    ReadLongRope(fields, t, rope);
  } else if (type == "dynamic") {
    ReadDynamic(fields, before, t.context);
  }
  return fields.Finish();
}

json ScalingOptions(const RopeSpec& rope) {
  if (rope.scaling == "none") return nullptr;
  json value = {{"rope_type", rope.scaling}, {"factor", rope.factor}};
  if (rope.scaling == "linear" || rope.scaling == "dynamic") return value;
  value[kOriginal] = rope.original_context;
  if (rope.scaling == "llama3") {
    value["low_freq_factor"] = rope.low_freq_factor;
    value["high_freq_factor"] = rope.high_freq_factor;
    return value;
  }
  value["attention_factor"] = spec::AttentionFactor(rope);
  if (rope.scaling == "longrope") {
    value["short_factor"] = rope.short_factor;
    value["long_factor"] = rope.long_factor;
    return value;
  }
  value["beta_fast"] = rope.beta_fast;
  value["beta_slow"] = rope.beta_slow;
  if (!rope.truncate) value["truncate"] = false;
  return value;
}

}  // namespace

void ReadRopeOptions(ConfigFields& fields, spec::TransformerSpec& t) {
  fields.Number("rope_theta", t.rope.base, 1e-3, 1e12);
  int64_t original = 0;
  fields.Integer(kOriginal, original, 1, 1 << 30);
  const RopeSpec plain = t.rope;
  bool known = false;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* value = fields.Take(key);
    if (value == nullptr) continue;
    RopeSpec rope = plain;
    fields.Add(ReadRope(*value, key, original, t, rope));
    if (known && !(rope == t.rope)) fields.Fail(key, "is not what rope_scaling says");
    t.rope = std::move(rope);
    known = true;
  }
}

json RopeOptions(const RopeSpec& rope) {
  json options = {{"rope_theta", rope.base}, {"rope_scaling", ScalingOptions(rope)}};
  // Where older public code looks for it.
  if (rope.scaling == "longrope") options[kOriginal] = rope.original_context;
  return options;
}

}  // namespace lepton::huggingface
