#include "tests/scheduler/core/protocol_world.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace lepton::scheduler::model {
namespace {

// Numbers of a model are small: a byte each.
class KeyWriter {
 public:
  KeyWriter() { key_.reserve(256); }
  template <typename... Numbers>
  void Put(Numbers... numbers) {
    (key_.push_back(static_cast<char>(static_cast<int>(numbers) + 1)), ...);
  }
  template <typename Numbers>
  void PutAll(const Numbers& numbers) {
    Put(numbers.size());
    for (const int number : numbers) Put(number);
  }
  void PutText(const std::string& text) {
    key_ += text;
    key_ += '\0';
  }
  template <typename... Bits>  // seven at most
  void PutBits(Bits... bits) {
    int word = 0;
    ((word = word * 2 + (bits ? 1 : 0)), ...);
    Put(word);
  }
  std::string Take() { return std::move(key_); }

 private:
  std::string key_;
};

}  // namespace

OrderPtr Seal(ModelOrder order) {
  for (const std::string& address : order.members) order.seats.push_back(std::stoi(address));
  switch (order.kind) {
    case ModelOrder::kStart:
      order.text = fmt::format("start {}{} {}", order.seat, order.joins ? " joins" : "",
                               fmt::join(order.probe, ","));
      break;
    case ModelOrder::kGroup:
      order.text = fmt::format("group {} e{} [{}]{}", order.seat, order.epoch,
                               fmt::join(order.members, " "), order.at_once ? " at once" : "");
      break;
    case ModelOrder::kStop:
      order.text = fmt::format("stop {}{}{}{}", order.seat, order.alone ? " alone" : "",
                               order.kill ? " kill" : "", order.at_once ? " at once" : "");
      break;
  }
  return std::make_shared<const ModelOrder>(std::move(order));
}

ReportPtr Seal(ModelReport report) {
  static const char* const kNames[] = {"started",   "endpoint", "progress",
                                       "recovered", "gone",     "finished"};
  report.text = fmt::format(
      "{} {} e{} s{} {} {}{}{}{}{}{}{}", kNames[report.kind], report.seat, report.epoch,
      report.step, report.code, report.signal, report.planned ? " planned" : "",
      fmt::join(report.left, "-"), report.saved ? " saved" : "", report.model ? " model" : "",
      report.cannot.empty() ? "" : " cannot reach ", fmt::join(report.cannot, ","));
  return std::make_shared<const ModelReport>(std::move(report));
}

std::string World::Key(const ModelOptions& options) const {
  KeyWriter key;
  key.Put(faults, drains, uploads, progressed);
  // The oldest epoch that somebody trains in, or may yet.
  uint64_t oldest = epochs.empty() ? 0 : epochs.rbegin()->first;
  const auto may_train = [&](const OrderPtr& order) {
    if (order->kind == ModelOrder::kGroup && !order->members.empty()) {
      oldest = std::min(oldest, order->epoch);
    }
  };
  for (const ModelWorker& w : workers) {
    key.PutBits(w.present, w.up, w.linked, w.greeted, w.known_lost);
    key.Put(w.incarnation, w.orders.size(), w.reports.size(), w.held.size());
    for (const OrderPtr& order : w.orders) {
      key.PutText(order->text);
      may_train(order);
    }
    for (const ReportPtr& report : w.reports) key.PutText(report->text);
    for (const ReportPtr& report : w.held) key.PutText(report->text);
  }
  for (const auto& [seat, t] : tasks) {
    key.Put(seat, t.phase);
    if (!t.alive()) {
      // Of those that are over: whom the state, or a slice of it, went with.
      const bool excused = dead.contains(seat) || t.place == options.steps;
      if (options.pieces > 0 || options.slices) key.PutBits(t.has_state, excused);
      continue;
    }
    key.PutBits(t.hung, t.has_state, t.stop, t.leave, t.leave_at_once, t.reduced, t.regroup);
    key.PutBits(t.goes, t.parts, t.parting, t.handed, t.saved, t.hurries);
    key.Put(t.worker, t.epoch, t.place, t.joining, t.cuts_over);
    key.Put(t.overtaken > t.epoch ? t.overtaken : 0);
    key.PutText(t.newest ? t.newest->text : "");
    key.PutAll(t.held);
    key.PutAll(t.left);
    if (t.phase == ModelTask::kStarting) key.PutAll(t.probe);
    if (t.phase == ModelTask::kTraining) oldest = std::min(oldest, t.epoch);
    if (t.newest) may_train(t.newest);
  }
  int committed = -1;  // in epochs that are over
  for (const auto& [epoch, e] : epochs) {
    if (epoch < oldest) {
      committed = std::max(committed, e.applied);
      continue;
    }
    key.Put(epoch, e.first_step, e.applied);
    if (!e.group) continue;
    for (const std::string& member : e.group->members) key.PutText(member);
  }
  key.Put(committed);
  for (const auto& [one, other] : cuts) key.Put(one, other);
  if (options.slices) {
    key.PutAll(cut);
    key.Put(best, saved);
  }
  return key.Take();
}

}  // namespace lepton::scheduler::model
