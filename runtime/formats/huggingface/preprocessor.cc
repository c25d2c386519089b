#include "runtime/formats/huggingface/preprocessor.h"

#include <cmath>

#include "runtime/base/json_text.h"

namespace lepton::huggingface {
namespace {

using nlohmann::json;

constexpr int64_t kMaxSide = 16384;
constexpr int kBilinear = 2, kBicubic = 3;
constexpr char kOurFit[] = "lepton_fit";  // a size that public processors do not have
constexpr char kOurColumns[] = "lepton_columns";

Status BadPreprocessor(const std::string& what) {
  return InvalidArgument("preprocessor_config.json: " + what);
}

Result<bool> Flag(const json& document, const char* key, bool otherwise) {
  const auto found = document.find(key);
  if (found == document.end() || found->is_null()) return otherwise;
  if (!found->is_boolean()) return BadPreprocessor(std::string(key) + ": is not true or false");
  return found->get<bool>();
}

Result<int64_t> Side(const json& value, const char* key) {
  if (value.is_number_integer() && value >= 1 && value <= kMaxSide) return value.get<int64_t>();
  return BadPreprocessor(std::string(key) + ": is not a number of pixels up to " +
                         std::to_string(kMaxSide));
}

// A size: a side, {"height": .., "width": ..} or {"shortest_edge": ..}.
struct Size {
  int64_t height = 0, width = 0;
  bool shortest = false, number = false;
};
Result<Size> ReadSize(const json& value, const char* key) {
  Size size;
  if (value.is_object() && value.contains("height") && value.contains("width")) {
    LEPTON_ASSIGN_OR_RETURN(size.height, Side(value["height"], key));
    LEPTON_ASSIGN_OR_RETURN(size.width, Side(value["width"], key));
    return size;
  }
  if (value.is_object() && value.contains("longest_edge") && value.contains("shortest_edge")) {
    return BadPreprocessor(std::string(key) + ": a longest_edge is not supported");
  }
  const bool shortest = value.is_object() && value.contains("shortest_edge");
  LEPTON_ASSIGN_OR_RETURN(size.height, Side(shortest ? value["shortest_edge"] : value, key));
  size.width = size.height;
  size.shortest = shortest;
  size.number = !shortest;
  return size;
}

// The class that prepares pictures; older files call it a feature extractor.
std::string ProcessorOf(const json& document) {
  for (const char* key : {"image_processor_type", "feature_extractor_type"}) {
    const auto found = document.find(key);
    if (found != document.end() && found->is_string()) return found->get<std::string>();
  }
  return "";
}

bool Given(const json& document, const char* key) {
  const auto found = document.find(key);
  return found != document.end() && !found->is_null();
}

// ConvNextImageProcessor, which ResNets have: small pictures are cut out of ones that are 1 /
// crop_pct as large, others are stretched.
Status ReadByShare(const json& document, int64_t side, ImagePreparation& p) {
  constexpr int64_t kStretchedFrom = 384;
  p.height = p.width = side;
  if (side >= kStretchedFrom) return Status::Ok();
  const json share = Given(document, "crop_pct") ? document["crop_pct"] : json(224.0 / 256);
  const double part = share.is_number() ? share.get<double>() : 0;
  const double edge = static_cast<double>(side) / part;
  if (!(part > 0 && part <= 1 && edge <= static_cast<double>(kMaxSide))) {
    return BadPreprocessor("crop_pct: is not a number above 0 and up to 1");
  }
  p.fit = "shortest";
  p.edge = static_cast<int64_t>(edge);
  return Status::Ok();
}

// The filter, by its number in Pillow. CLIP's and BiT's processors are bicubic when nothing is
// said.
Status ReadFilter(const json& document, ImagePreparation& p) {
  const std::string processor = ProcessorOf(document);
  const bool cubic = processor.starts_with("CLIP") || processor.starts_with("Bit");
  const json filter =
      Given(document, "resample") ? document["resample"] : json(cubic ? kBicubic : kBilinear);
  if (filter != kBilinear && filter != kBicubic) {
    return BadPreprocessor("resample: " + filter.dump() +
                           " is not supported: must be 2 (bilinear) or 3 (bicubic)");
  }
  p.resample = filter == kBicubic ? "bicubic" : "bilinear";
  return Status::Ok();
}

// How pictures get their size.
Status ReadFit(const json& document, ImagePreparation& p) {
  LEPTON_ASSIGN_OR_RETURN(const bool resizes, Flag(document, "do_resize", true));
  if (!resizes) return BadPreprocessor("do_resize: false is not supported");
  const auto found = document.find("size");
  if (found == document.end()) return BadPreprocessor("size: missing");
  LEPTON_ASSIGN_OR_RETURN(const Size size, ReadSize(*found, "size"));
  const std::string processor = ProcessorOf(document);
  const bool clip = processor.starts_with("CLIP") || processor.starts_with("Bit");
  LEPTON_ASSIGN_OR_RETURN(const bool crops, Flag(document, "do_center_crop", clip));
  const bool by_share = processor.starts_with("ConvNext") ||
                        (!clip && !crops && Given(document, "crop_pct")) ||
                        (processor.empty() && !crops && size.shortest);
  if (by_share && (size.shortest || size.number)) return ReadByShare(document, size.height, p);
  Size crop = size;
  if (crops && Given(document, "crop_size")) {
    LEPTON_ASSIGN_OR_RETURN(crop, ReadSize(document["crop_size"], "crop_size"));
  } else if (crops && clip) {
    crop.height = crop.width = 224;
  }
  p.height = crop.height;
  p.width = crop.width;
  if (crops && document.value(kOurFit, json()) == "crop") {
    p.fit = "crop";
    return Status::Ok();
  }
  if (!size.shortest && !(clip && size.number)) {
    if (crop.height == size.height && crop.width == size.width) return Status::Ok();
    return BadPreprocessor("do_center_crop: of a picture that was stretched is not supported");
  }
  if (!crops) {
    return BadPreprocessor("do_center_crop: false is not supported with a shortest_edge");
  }
  p.fit = "shortest";
  p.edge = size.height;
  if (p.edge >= p.height && p.edge >= p.width) return Status::Ok();
  return BadPreprocessor("crop_size: is larger than the shortest_edge, which is not supported");
}

// A number for each channel.
Result<std::vector<double>> ChannelNumbers(const json& document, const char* key, int64_t channels,
                                           bool positive) {
  const auto found = document.find(key);
  if (found == document.end()) return BadPreprocessor(std::string(key) + ": missing");
  std::vector<double> numbers;
  if (found->is_number()) numbers.assign(channels, found->get<double>());
  if (found->is_array()) {
    for (const json& item : *found) numbers.push_back(item.is_number() ? item.get<double>() : NAN);
  }
  bool good = numbers.size() == static_cast<size_t>(channels);
  for (const double number : numbers) {
    good = good && std::isfinite(number) && (!positive || number > 0);
  }
  if (good) return numbers;
  return BadPreprocessor(std::string(key) + ": is not a number for each of the " +
                         std::to_string(channels) + " channels");
}

Status ReadColumns(const json& document, int64_t channels, ImagePreparation& p) {
  const auto found = document.find(kOurColumns);
  if (found == document.end()) return Status::Ok();
  bool good =
      found->is_array() && static_cast<int64_t>(found->size()) == channels * p.height * p.width;
  for (size_t i = 0; good && i < found->size(); ++i) good = (*found)[i].is_string();
  if (!good) {
    return BadPreprocessor(std::string(kOurColumns) + ": is not a name for each of the pixels");
  }
  p.columns = found->get<std::vector<std::string>>();
  return Status::Ok();
}

}  // namespace

Result<ImagePreparation> ParsePreprocessor(std::string_view text, int64_t channels) {
  if (NestedDeeper(text, 16)) return BadPreprocessor("is nested too deep");
  const json document = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded() || !document.is_object())
    return BadPreprocessor("is not a JSON object");
  ImagePreparation p;
  LEPTON_RETURN_IF_ERROR(ReadFit(document, p));
  LEPTON_RETURN_IF_ERROR(ReadFilter(document, p));
  p.mean.assign(channels, 0.0);
  p.scale.assign(channels, 1.0);
  LEPTON_ASSIGN_OR_RETURN(const bool normalizes, Flag(document, "do_normalize", true));
  if (normalizes) {
    LEPTON_ASSIGN_OR_RETURN(p.mean, ChannelNumbers(document, "image_mean", channels, false));
    LEPTON_ASSIGN_OR_RETURN(p.scale, ChannelNumbers(document, "image_std", channels, true));
  }
  LEPTON_RETURN_IF_ERROR(ReadColumns(document, channels, p));
  if (!p.columns.empty()) return p;
  // Bytes times a factor: 1 / 255 makes them go from 0 to 1, as ours do.
  LEPTON_ASSIGN_OR_RETURN(const bool rescales, Flag(document, "do_rescale", true));
  const json factor = document.value("rescale_factor", json(1.0 / 255));
  if (!factor.is_number() || !(factor.get<double>() > 0)) {
    return BadPreprocessor("rescale_factor: is not a number above 0");
  }
  const double range = rescales ? 255 * factor.get<double>() : 255;
  if (std::abs(range - 1) < 1e-6) return p;
  for (int64_t c = 0; c < channels; ++c) {
    p.mean[c] /= range;
    p.scale[c] /= range;
  }
  return p;
}

std::string WritePreprocessor(const ImagePreparation& p) {
  json document = {{"do_resize", true},
                   {"do_rescale", true},
                   {"rescale_factor", 1.0 / 255},
                   {"do_normalize", true},
                   {"image_mean", p.mean},
                   {"image_std", p.scale},
                   {"resample", p.resample == "bicubic" ? kBicubic : kBilinear},
                   {"image_processor_type", "ViTImageProcessor"},
                   {"size", {{"height", p.height}, {"width", p.width}}}};
  if (!p.columns.empty()) {
    document[kOurColumns] = p.columns;
    document["do_rescale"] = false;
  }
  if (p.fit == "crop") document[kOurFit] = p.fit;
  if (p.fit != "stretch") {
    const int64_t edge = p.fit == "crop" ? std::min(p.height, p.width) : p.edge;
    document["image_processor_type"] = "CLIPImageProcessor";
    document["size"] = {{"shortest_edge", edge}};
    document["do_center_crop"] = true;
    document["crop_size"] = {{"height", p.height}, {"width", p.width}};
  }
  return document.dump(2) + "\n";
}

}  // namespace lepton::huggingface
