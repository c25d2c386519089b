#include "tests/scheduler/core/protocol_world.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lepton::scheduler::model {

std::string ModelOrder::Text() const {
  switch (kind) {
    case kStart:
      return fmt::format("start {}{} {}", seat, joins ? " joins" : "", fmt::join(probe, ","));
    case kGroup:
      return fmt::format("group {} e{} [{}]{}", seat, epoch, fmt::join(members, " "),
                         at_once ? " at once" : "");
    case kStop:
      return fmt::format("stop {}{}{}{}", seat, alone ? " alone" : "", kill ? " kill" : "",
                         at_once ? " at once" : "");
  }
  return "";
}

std::string ModelReport::Text() const {
  static const char* const kNames[] = {"started", "endpoint", "progress", "recovered", "finished"};
  return fmt::format("{} {} e{} s{} {} {}{}{}{}{}{}{}", kNames[kind], seat, epoch, step, code,
                     signal, planned ? " planned" : "", fmt::join(left, "-"), saved ? " saved" : "",
                     model ? " model" : "", cannot.empty() ? "" : " cannot reach ",
                     fmt::join(cannot, ","));
}

std::string World::Key() const {
  std::string key = fmt::format("f{}{}d{}", faults, progressed, drains);
  for (const int seat : cut) key += fmt::format("/{}{}", seat, dead.contains(seat) ? "x" : "");
  if (!cut.empty()) key += fmt::format("/{}.{}", best, saved);
  for (const ModelWorker& w : workers) {
    key += fmt::format("|{}{}{}{}{}.{}<", w.present, w.up, w.linked, w.greeted, w.known_lost,
                       w.incarnation);
    for (const ModelOrder& order : w.orders) key += order.Text() + ";";
    key += ">";
    for (const ModelReport& report : w.reports) key += report.Text() + ";";
  }
  for (const auto& [seat, t] : tasks) {
    if (t.missed) key += fmt::format("|m{}", seat);
    if (!t.alive()) continue;
    key += fmt::format("|t{}.{}.{}.{}{}{}{}{}{}{}.{}.{}.{}", seat, t.worker, int(t.phase), t.hung,
                       t.has_state, t.stop, t.leave, t.reduced, t.regroup, t.goes, t.epoch, t.place,
                       t.newest ? t.newest->Text() : "");
    if (t.overtaken > t.epoch) key += fmt::format("o{}", t.overtaken);
    if (t.parts || t.parting)
      key += fmt::format("p{}{}{}-{}", t.parting, t.handed, t.saved, fmt::join(t.left, "-"));
    if (t.joining > 0 || !t.held.empty()) {
      key += fmt::format("j{}{}{}<{}", t.joining, t.hurries, t.cuts_over, fmt::join(t.held, "-"));
    }
    if (t.leave_at_once) key += "!";
    if (t.phase == ModelTask::kStarting) key += fmt::format("?{}", fmt::join(t.probe, ","));
  }
  for (const auto& [epoch, e] : epochs) {
    key += fmt::format("|e{}.{}.{}", epoch, e.first_step, e.applied);
  }
  for (const auto& [one, other] : cuts) key += fmt::format("|c{}-{}", one, other);
  return key;
}

}  // namespace lepton::scheduler::model
