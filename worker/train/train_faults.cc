#include "worker/train/train_faults.h"

#include <glog/logging.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string_view>
#include <thread>
#include <utility>

#include "runtime/base/clock.h"
#include "runtime/base/progress.h"

namespace lepton::worker {
namespace {

constexpr Duration kBreath = std::chrono::milliseconds(20);
constexpr Duration kSlowness = std::chrono::seconds(3);

// In the middle of the last tensor, the lowest bit: what nobody would see in a loss.
void FlipABit(nn::TrainingProgram& program) {
  const nn::ParameterView& tensor = program.parameters().back();
  const int64_t at = tensor.offset + tensor.size / 2 - program.weights_begin();
  if (at < 0) {
    LOG(WARNING) << "test fault: " << tensor.name << " is not here between two steps";
    return;
  }
  float& value = program.weights()[static_cast<size_t>(at)];
  value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ 1u);
  LOG(WARNING) << "test fault: a bit of " << tensor.name << " flipped";
}

}  // namespace

TrainFaults TrainFaults::FromEnvironment(const char* variable) {
  const char* text = std::getenv(variable);
  return Parse(text == nullptr ? "" : text);
}

TrainFaults TrainFaults::Parse(const std::string& text) {
  TrainFaults faults;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    faults.faults_.push_back(ParseOne(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return faults;
}

TrainFaults::Fault TrainFaults::ParseOne(const std::string& text) {
  Fault fault;
  constexpr std::pair<std::string_view, Kind> kOfFiles[] = {{"commit:", Kind::kCommit},
                                                            {"piece:", Kind::kPiece},
                                                            {"slice:", Kind::kSlice},
                                                            {"device:", Kind::kDevice}};
  for (const auto& [prefix, kind] : kOfFiles) {
    if (text.starts_with(prefix)) return {kind, 0, text.substr(prefix.size())};
  }
  const size_t at = text.find('@');
  if (at == std::string::npos) return fault;
  const std::string kind = text.substr(0, at);
  std::from_chars(text.data() + at + 1, text.data() + text.size(), fault.step);
  if (kind == "flip") fault.kind = Kind::kFlip;
  if (kind == "late") fault.kind = Kind::kLate;
  if (kind == "hang") fault.kind = Kind::kHang;
  if (kind == "stall") fault.kind = Kind::kStall;
  if (kind == "slow") fault.kind = Kind::kSlow;
  if (kind == "nan") fault.kind = Kind::kNan;
  if (kind == "fail") fault.kind = Kind::kFail;
  const size_t gate = text.find(':', at);
  if (kind != "gate" || gate == std::string::npos) return fault;
  fault.kind = Kind::kGate;
  fault.file = text.substr(gate + 1);
  return fault;
}

Status TrainFaults::Computed(uint64_t step, nn::TrainingProgram& program) const {
  for (const Fault& fault : faults_) {
    if (fault.kind == Kind::kDevice && std::filesystem::exists(fault.file)) {
      return DeviceFailed("test fault: uncorrectable ECC error encountered");
    }
    if (step != fault.step) continue;
    if (fault.kind == Kind::kFail) return ResourceExhausted("test fault: no memory for the step");
    Compute(fault, program);
  }
  return {};
}

void TrainFaults::Compute(const Fault& fault, nn::TrainingProgram& program) {
  const Kind kind = fault.kind;
  if (kind == Kind::kFlip) FlipABit(program);
  if (kind == Kind::kNan) program.weights()[0] = std::numeric_limits<float>::quiet_NaN();
  if (kind == Kind::kHang) LOG(WARNING) << "test fault: the training thread hangs";
  while (kind == Kind::kHang) std::this_thread::sleep_for(kBreath);
  for (Duration slept{}; kind == Kind::kSlow && slept < kSlowness; slept += kBreath) {
    std::this_thread::sleep_for(kBreath);
    progress::Tick();
  }
  if (kind == Kind::kGate) WaitAtGate(fault.file);
}

void TrainFaults::WaitAtGate(const std::string& gate) {
  std::ofstream(gate + ".reached") << "reached\n";
  while (!std::filesystem::exists(gate)) {
    std::this_thread::sleep_for(kBreath);
    progress::Tick();
  }
}

void TrainFaults::Hold(Kind at) const {
  for (const Fault& fault : faults_) {
    if (fault.kind != at || !std::filesystem::exists(fault.file)) continue;
    std::ofstream(fault.file + ".reached") << "reached\n";
    while (std::filesystem::exists(fault.file)) {
      std::this_thread::sleep_for(kBreath);
      // A writer's ticks would be taken for the training thread's.
      at == Kind::kSlice ? progress::Moved() : progress::Tick();
    }
  }
}

void TrainFaults::Committed(uint64_t step, nn::TrainingProgram& program) const {
  for (const Fault& fault : faults_) {
    if (step != fault.step) continue;
    if (fault.kind == Kind::kLate) FlipABit(program);
    if (fault.kind == Kind::kStall) LOG(WARNING) << "test fault: the training thread stalls";
    while (fault.kind == Kind::kStall) std::this_thread::sleep_for(kBreath);
  }
}

}  // namespace lepton::worker
