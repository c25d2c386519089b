#include "worker/train/loop_state.h"

#include <cstring>
#include <string_view>

namespace lepton::worker {
namespace {

// Ranks of one gang are of one program version and byte order: the handshake of their workers and
// their communicator checks that.
class Packer {
 public:
  template <typename T>
  void Number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void Text(const std::string& text) {
    Number<uint64_t>(text.size());
    bytes_ += text;
  }
  void Metrics(const std::map<std::string, double>& metrics) {
    Number<uint64_t>(metrics.size());
    for (const auto& [name, value] : metrics) {
      Text(name);
      Number(value);
    }
  }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : left_(bytes) {}
  template <typename T>
  void Number(T& value) {
    if (left_.size() < sizeof(value)) return Fail();
    std::memcpy(&value, left_.data(), sizeof(value));
    left_.remove_prefix(sizeof(value));
  }
  void Text(std::string& text) {
    uint64_t size = 0;
    Number(size);
    if (failed_ || left_.size() < size) return Fail();
    text.assign(left_.substr(0, size));
    left_.remove_prefix(size);
  }
  void Metrics(std::map<std::string, double>& metrics) {
    uint64_t count = 0;
    Number(count);
    for (uint64_t i = 0; i < count && !failed_; ++i) {
      std::string name;
      double value = 0;
      Text(name);
      Number(value);
      metrics[name] = value;
    }
  }
  bool done() const { return !failed_ && left_.empty(); }

 private:
  void Fail() { failed_ = true; }
  std::string_view left_;
  bool failed_ = false;
};

// One list of the fields that are numbers, for both directions.
template <typename Archive, typename State>
void Numbers(Archive& archive, State& state) {
  archive.Number(state.step);
  archive.Number(state.step_closed);
  archive.Number(state.stopping);
  archive.Number(state.good_step);
  archive.Number(state.pending_step);
  archive.Number(state.pending_slices);
  archive.Number(state.manifest_slices);
  archive.Number(state.checkpoint_due);
  archive.Number(state.evaluated_step);
  for (auto* loss : {&state.epoch_loss, &state.report_loss, &state.pending_epoch_loss}) {
    archive.Number(loss->sum);
    archive.Number(loss->count);
  }
  for (auto* samples : {&state.samples, &state.pending_samples}) {
    archive.Number(samples->rows);
    archive.Number(samples->ids);
  }
  archive.Number(state.samples_counted);
  archive.Number(state.gradient_norm);
  archive.Number(state.seconds);
}

}  // namespace

std::string LoopState::Pack() const {
  Packer out;
  Numbers(out, *this);
  out.Text(last_checkpoint);
  out.Metrics(metrics);
  out.Metrics(pending_metrics);
  return out.Take();
}

Result<LoopState> LoopState::Unpack(const std::string& bytes) {
  LoopState state;
  Unpacker in(bytes);
  Numbers(in, state);
  in.Text(state.last_checkpoint);
  in.Metrics(state.metrics);
  in.Metrics(state.pending_metrics);
  if (!in.done()) return DataLoss("a peer's training state is torn");
  return state;
}

}  // namespace lepton::worker
