#include "worker/infer/tensor_protocol.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "runtime/base/json_text.h"
#include "worker/infer/model_runtime.h"
#include "worker/infer/tensor_data.h"
#include "worker/infer/text_input.h"

namespace lepton::worker {
namespace {

using Json = nlohmann::json;

// What a model wants of each input.
struct InputWanted {
  std::string name;
  std::string datatype;        // BYTES, or any number
  std::vector<int64_t> shape;  // behind the rows
};

std::vector<InputWanted> InputsOf(const ServedModel& model) {
  const storage::ModelInput& input = model.manifest->input;
  if (model.takes_images()) {
    return {{"pixels", "FP32", {input.channels, input.height, input.width}}};
  }
  if (!model.takes_texts()) return {{"x", "FP32", {model.numbers}}};
  std::vector<InputWanted> inputs = {{"text", "BYTES", {}}};
  if (model.takes_pairs()) inputs.push_back({"text_pair", "BYTES", {}});
  return inputs;
}

std::vector<std::string> OutputNames(const ServedModel& model) {
  if (!model.classifies()) return {"logits", "value"};
  return {"logits", "probabilities", "class", "label"};
}

std::string Join(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

// The text under `key`, or an error naming `path`.
Result<std::string> Text(const std::string& path, const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) {
    return InvalidArgument(path + "." + key + ": must be a string");
  }
  return found->get<std::string>();
}

// A flag among an object's "parameters"; false when absent.
Result<bool> Flag(const std::string& path, const Json& object, const char* key) {
  const auto parameters = object.find("parameters");
  if (parameters == object.end()) return false;
  if (!parameters->is_object()) return InvalidArgument(path + ": must be an object");
  const auto found = parameters->find(key);
  if (found == parameters->end()) return false;
  if (!found->is_boolean()) {
    return InvalidArgument(path + "." + key + ": must be true or false");
  }
  return found->get<bool>();
}

std::string ShapeText(const InputWanted& wanted) {
  std::string text = "[rows";
  for (const int64_t extent : wanted.shape) text += ", " + std::to_string(extent);
  return text + "]";
}

Result<int64_t> RowsOf(const std::string& path, const InputWanted& wanted, const Json& input) {
  const auto shape = input.find("shape");
  const auto bad = [&](const std::string& found) {
    return InvalidArgument(path + ".shape: " + found + "; it must be " + ShapeText(wanted));
  };
  if (shape == input.end() || !shape->is_array()) return bad("missing");
  if (shape->size() != wanted.shape.size() + 1) return bad(shape->dump().substr(0, 80));
  for (const Json& extent : *shape) {
    if (!extent.is_number_integer()) return bad(shape->dump().substr(0, 80));
  }
  const int64_t rows = (*shape)[0].get<int64_t>();
  if (rows < 1 || rows > (int64_t{1} << 24)) return bad(shape->dump());
  for (size_t i = 0; i < wanted.shape.size(); ++i) {
    if ((*shape)[i + 1].get<int64_t>() != wanted.shape[i]) return bad(shape->dump());
  }
  return rows;
}

// The bytes of this input behind the JSON, taken off `binary`; nullopt when it has JSON "data".
Result<std::optional<std::string_view>> BinaryOf(const std::string& path, const Json& input,
                                                 std::string_view& binary) {
  if (input.contains("data")) return std::optional<std::string_view>();
  const Json parameters = input.value("parameters", Json::object());
  const auto size = parameters.is_object() ? parameters.find("binary_data_size") : parameters.end();
  if (size == parameters.end() || !size->is_number_unsigned()) {
    return InvalidArgument(path + ".data: missing, and no parameters.binary_data_size either");
  }
  const auto bytes = size->get<uint64_t>();
  if (bytes > binary.size()) {
    return InvalidArgument(path + ".parameters.binary_data_size: " + size->dump() + ", but " +
                           std::to_string(binary.size()) + " bytes follow the JSON");
  }
  const std::string_view own = binary.substr(0, bytes);
  binary.remove_prefix(bytes);
  return std::optional<std::string_view>(own);
}

// The elements of one input, of which there are `rows`.
Status ReadElements(const std::string& path, const InputWanted& wanted, const Json& input,
                    int64_t rows, std::string_view& binary, std::vector<double>* numbers,
                    std::vector<std::string>* texts) {
  LEPTON_ASSIGN_OR_RETURN(const std::string datatype, Text(path, input, "datatype"));
  const bool bytes = wanted.datatype == "BYTES";
  if (bytes ? datatype != "BYTES" : DatatypeSize(datatype) == 0) {
    return InvalidArgument(path + ".datatype: \"" + datatype + "\"; it must be " +
                           (bytes ? "BYTES" : "one of " + NumericDatatypes()));
  }
  LEPTON_ASSIGN_OR_RETURN(const auto own, BinaryOf(path, input, binary));
  if (bytes) {
    LEPTON_ASSIGN_OR_RETURN(*texts, own ? TextsFromBytes(path, *own, rows)
                                        : TextsFromJson(path + ".data", input["data"], rows));
    return {};
  }
  int64_t count = rows;
  for (const int64_t extent : wanted.shape) count *= extent;
  LEPTON_ASSIGN_OR_RETURN(
      *numbers,
      own ? NumbersFromBytes(path, *own, datatype, static_cast<size_t>(count))
          : NumbersFromJson(path + ".data", input["data"], datatype, static_cast<size_t>(count)));
  return {};
}

// All inputs, in any order; nothing of `binary` may be left over.
Status ReadInputs(const ServedModel& model, const Json& inputs, std::string_view binary,
                  InferRequest& request) {
  const std::vector<InputWanted> wanted = InputsOf(model);
  std::vector<std::vector<std::string>> texts(wanted.size());
  std::vector<bool> seen(wanted.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string path = "inputs[" + std::to_string(i) + "]";
    const Json& input = inputs[i];
    if (!input.is_object()) return InvalidArgument(path + ": must be an object");
    LEPTON_ASSIGN_OR_RETURN(const std::string name, Text(path, input, "name"));
    size_t at = 0;
    while (at < wanted.size() && wanted[at].name != name) ++at;
    if (at == wanted.size() || seen[at]) {
      std::string names;
      for (const InputWanted& one : wanted)
        names += (names.empty() ? "\"" : ", \"") + one.name + "\"";
      return InvalidArgument(path + ".name: \"" + name +
                             (at == wanted.size() ? "\" is no input of this model; it has " + names
                                                  : "\" is there twice"));
    }
    seen[at] = true;
    LEPTON_ASSIGN_OR_RETURN(const int64_t rows, RowsOf(path, wanted[at], input));
    if (request.rows.rows != 0 && request.rows.rows != rows) {
      return InvalidArgument(path + ".shape: " + std::to_string(rows) +
                             " rows, but inputs[0] has " + std::to_string(request.rows.rows));
    }
    request.rows.rows = rows;
    LEPTON_RETURN_IF_ERROR(
        ReadElements(path, wanted[at], input, rows, binary, &request.rows.raw, &texts[at]));
  }
  if (!binary.empty()) {
    return InvalidArgument("body: " + std::to_string(binary.size()) +
                           " bytes behind the JSON belong to no input");
  }
  if (!model.takes_texts()) return {};
  return EncodeTexts(model, texts[0], wanted.size() > 1 ? &texts[1] : nullptr, &request.rows);
}

Status ReadOutputs(const ServedModel& model, const Json& document, InferRequest& request) {
  LEPTON_ASSIGN_OR_RETURN(const bool all_binary,
                          Flag("parameters", document, "binary_data_output"));
  const std::vector<std::string> known = OutputNames(model);
  const auto outputs = document.find("outputs");
  if (outputs == document.end() || (outputs->is_array() && outputs->empty())) {
    for (const std::string& name : known) request.outputs.push_back({name, all_binary});
    return {};
  }
  if (!outputs->is_array()) return InvalidArgument("outputs: must be an array");
  for (size_t i = 0; i < outputs->size(); ++i) {
    const std::string path = "outputs[" + std::to_string(i) + "]";
    const Json& output = (*outputs)[i];
    if (!output.is_object()) return InvalidArgument(path + ": must be an object");
    LEPTON_ASSIGN_OR_RETURN(std::string name, Text(path, output, "name"));
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return InvalidArgument(path + ".name: \"" + name + "\" is no output of this model; it has " +
                             Join(known));
    }
    const auto same = [&](const auto& asked) { return asked.name == name; };
    if (std::any_of(request.outputs.begin(), request.outputs.end(), same)) {
      return InvalidArgument(path + ".name: \"" + name + "\" is there twice");
    }
    LEPTON_ASSIGN_OR_RETURN(const bool binary, Flag(path + ".parameters", output, "binary_data"));
    request.outputs.push_back({std::move(name), binary || all_binary});
  }
  return {};
}

// ---- answers ------------------------------------------------------------------------------

struct OutputTensor {
  std::string datatype;
  std::vector<int64_t> shape;
  std::vector<float> reals;
  std::vector<int64_t> integers;
  std::vector<std::string> texts;
};

OutputTensor MakeOutput(const ServedModel& model, const std::string& name, int64_t rows,
                        const std::vector<float>& logits,
                        const std::vector<Prediction>& predictions) {
  OutputTensor tensor;
  if (name == "logits" || name == "value") {
    tensor = {"FP32", {rows, model.outputs}, logits, {}, {}};
  } else if (name == "probabilities") {
    tensor = {"FP32", {rows, model.classes()}, {}, {}, {}};
    for (const Prediction& one : predictions) {
      tensor.reals.insert(tensor.reals.end(), one.probabilities.begin(), one.probabilities.end());
    }
  } else if (name == "class") {
    tensor = {"INT64", {rows}, {}, {}, {}};
    for (const Prediction& one : predictions) tensor.integers.push_back(one.class_index);
  } else {
    tensor = {"BYTES", {rows}, {}, {}, {}};
    for (const Prediction& one : predictions) tensor.texts.push_back(one.label);
  }
  return tensor;
}

std::string Quoted(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

void AppendNumber(float value, std::string& out) {
  if (!std::isfinite(value)) {
    out += "null";  // JSON has no NaN
    return;
  }
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  out.append(text, end);
}

std::string DataJson(const OutputTensor& tensor) {
  std::string out = "[";
  const auto comma = [&out] {
    if (out.size() > 1) out += ',';
  };
  for (const float value : tensor.reals) comma(), AppendNumber(value, out);
  for (const int64_t value : tensor.integers) comma(), out += std::to_string(value);
  for (const std::string& value : tensor.texts) comma(), out += Quoted(value);
  return out + "]";
}

template <typename T>
void AppendBytes(const std::vector<T>& values, std::string& out) {
  out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

std::string DataBytes(const OutputTensor& tensor) {
  std::string out;
  AppendBytes(tensor.reals, out);
  AppendBytes(tensor.integers, out);
  for (const std::string& text : tensor.texts) {
    AppendBytes(std::vector<uint32_t>{static_cast<uint32_t>(text.size())}, out);
    out += text;
  }
  return out;
}

}  // namespace

Result<InferRequest> ParseInferRequest(const ServedModel& model, std::string_view body,
                                       std::optional<size_t> json_bytes) {
  if (json_bytes && *json_bytes > body.size()) {
    return InvalidArgument("Inference-Header-Content-Length: " + std::to_string(*json_bytes) +
                           ", but the body has only " + std::to_string(body.size()) + " bytes");
  }
  const std::string_view text = body.substr(0, json_bytes.value_or(body.size()));
  const std::string_view binary = body.substr(text.size());
  const Result<Json> parsed = ParseJson(text);
  if (!parsed.ok()) return parsed.status().WithContext("body");
  const Json& document = *parsed;
  if (!document.is_object()) return InvalidArgument("body: must be a JSON object");
  InferRequest request;
  if (document.contains("id")) {
    LEPTON_ASSIGN_OR_RETURN(request.id, Text("body", document, "id"));
  }
  const auto inputs = document.find("inputs");
  const std::vector<InputWanted> wanted = InputsOf(model);
  if (inputs == document.end() || !inputs->is_array() || inputs->size() != wanted.size()) {
    std::string names;
    for (const InputWanted& one : wanted)
      names += (names.empty() ? "\"" : " and \"") + one.name + "\"";
    return InvalidArgument("inputs: must be an array of " +
                           std::string(wanted.size() == 1 ? "one tensor, " : "two tensors, ") +
                           names);
  }
  LEPTON_RETURN_IF_ERROR(ReadInputs(model, *inputs, binary, request));
  LEPTON_RETURN_IF_ERROR(ReadOutputs(model, document, request));
  return request;
}

http::Response EncodeInferResponse(const ServedModel& model, const InferRequest& request,
                                   const std::vector<float>& logits) {
  std::vector<Prediction> predictions;
  const auto width = static_cast<size_t>(model.outputs);
  for (int64_t row = 0; row < request.rows.rows; ++row) {
    predictions.push_back(Decode(
        *model.manifest, std::span(logits).subspan(static_cast<size_t>(row) * width, width)));
  }
  std::string json =
      "{\"model_name\":" + Quoted(model.name) + ",\"model_version\":" + Quoted(model.version);
  if (!request.id.empty()) json += ",\"id\":" + Quoted(request.id);
  json += ",\"outputs\":[";
  std::string binary;
  bool any_binary = false;
  for (size_t i = 0; i < request.outputs.size(); ++i) {
    const InferRequest::Output& wanted = request.outputs[i];
    const OutputTensor tensor =
        MakeOutput(model, wanted.name, request.rows.rows, logits, predictions);
    json += (i > 0 ? ",{" : "{") + ("\"name\":" + Quoted(wanted.name)) + ",\"datatype\":\"" +
            tensor.datatype + "\",\"shape\":" + Json(tensor.shape).dump();
    if (wanted.binary) {
      const std::string bytes = DataBytes(tensor);
      json += ",\"parameters\":{\"binary_data_size\":" + std::to_string(bytes.size()) + "}}";
      binary += bytes;
      any_binary = true;
    } else {
      json += ",\"data\":" + DataJson(tensor) + "}";
    }
  }
  json += "]}";
  if (!any_binary) return http::Response::Json(200, std::move(json));
  http::Response response = http::Response::Text(200, "", "application/octet-stream");
  response.headers.emplace("Inference-Header-Content-Length", std::to_string(json.size()));
  response.body = std::move(json) + binary;
  return response;
}

std::string ModelMetadata(const ServedModel& model) {
  Json outputs = Json::array();
  for (const std::string& name : OutputNames(model)) {
    const OutputTensor tensor = MakeOutput(model, name, -1, {}, {});
    outputs.push_back({{"name", name}, {"datatype", tensor.datatype}, {"shape", tensor.shape}});
  }
  Json inputs = Json::array();
  for (const InputWanted& wanted : InputsOf(model)) {
    Json shape = {-1};
    for (const int64_t extent : wanted.shape) shape.push_back(extent);
    inputs.push_back({{"name", wanted.name}, {"datatype", wanted.datatype}, {"shape", shape}});
  }
  const Json document = {
      {"name", model.name},
      {"versions", {model.version}},
      {"platform", "lepton"},
      {"inputs", inputs},
      {"outputs", outputs},
      {"parameters",
       {{"features", model.manifest->feature_names}, {"classes", model.manifest->classes}}}};
  return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace lepton::worker
