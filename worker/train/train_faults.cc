#include "worker/train/train_faults.h"

#include <glog/logging.h>

#include <bit>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "runtime/base/clock.h"
#include "runtime/base/progress.h"

namespace lepton::worker {
namespace {

constexpr Duration kBreath = std::chrono::milliseconds(20);
constexpr std::string_view kCommit = "commit:";
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
  if (text.starts_with(kCommit)) {
    faults.kind_ = Kind::kCommit;
    faults.gate_ = text.substr(kCommit.size());
  }
  const size_t at = text.find('@');
  if (at == std::string::npos) return faults;
  const std::string kind = text.substr(0, at);
  std::from_chars(text.data() + at + 1, text.data() + text.size(), faults.step_);
  if (kind == "flip") faults.kind_ = Kind::kFlip;
  if (kind == "late") faults.kind_ = Kind::kLate;
  if (kind == "hang") faults.kind_ = Kind::kHang;
  if (kind == "stall") faults.kind_ = Kind::kStall;
  if (kind == "slow") faults.kind_ = Kind::kSlow;
  if (kind == "nan") faults.kind_ = Kind::kNan;
  const size_t gate = text.find(':', at);
  if (kind != "gate" || gate == std::string::npos) return faults;
  faults.kind_ = Kind::kGate;
  faults.gate_ = text.substr(gate + 1);
  return faults;
}

void TrainFaults::Computed(uint64_t step, nn::TrainingProgram& program) {
  if (step != step_) return;
  if (kind_ == Kind::kFlip) FlipABit(program);
  if (kind_ == Kind::kNan) program.weights()[0] = std::numeric_limits<float>::quiet_NaN();
  if (kind_ == Kind::kHang) LOG(WARNING) << "test fault: the training thread hangs";
  while (kind_ == Kind::kHang) std::this_thread::sleep_for(kBreath);
  for (Duration slept{}; kind_ == Kind::kSlow && slept < kSlowness; slept += kBreath) {
    std::this_thread::sleep_for(kBreath);
    progress::Tick();
  }
  if (kind_ == Kind::kGate) WaitAtGate();
}

void TrainFaults::WaitAtGate() const {
  std::ofstream(gate_ + ".reached") << "reached\n";
  while (!std::filesystem::exists(gate_)) {
    std::this_thread::sleep_for(kBreath);
    progress::Tick();
  }
}

void TrainFaults::Reduced() const {
  if (kind_ != Kind::kCommit || !std::filesystem::exists(gate_)) return;
  std::ofstream(gate_ + ".reached") << "reached\n";
  while (std::filesystem::exists(gate_)) {
    std::this_thread::sleep_for(kBreath);
    progress::Tick();
  }
}

void TrainFaults::Committed(uint64_t step, nn::TrainingProgram& program) {
  if (step != step_) return;
  if (kind_ == Kind::kLate) FlipABit(program);
  if (kind_ == Kind::kStall) LOG(WARNING) << "test fault: the training thread stalls";
  while (kind_ == Kind::kStall) std::this_thread::sleep_for(kBreath);
}

}  // namespace lepton::worker
