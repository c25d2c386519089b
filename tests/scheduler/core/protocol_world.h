// The world around the coordinator of protocol_model.h: what travels, agents, tasks, epochs,
// cables. Plain data with a name for each state. Threads: one.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/scheduler/core/protocol_model.h"

namespace lepton::scheduler::model {

// ---- what travels ---------------------------------------------------------------------------

struct ModelOrder {
  enum Kind { kStart, kGroup, kStop } kind = kStart;
  int seat = -1;
  uint64_t epoch = 0;
  std::vector<std::string> members;  // addresses; empty: leave what you are in
  bool at_once = false, alone = false, kill = false, joins = false;  // at_once: of a stop, too
  std::vector<int> probe;  // seats that a joiner is to try
  std::vector<int> seats;  // of the members: this and the text are Seal's
  std::string text;
};
using OrderPtr = std::shared_ptr<const ModelOrder>;
OrderPtr Seal(ModelOrder order);

struct ModelReport {
  enum Kind { kStarted, kEndpoint, kProgress, kRecovered, kGone, kFinished } kind = kStarted;
  int seat = -1;
  uint64_t epoch = 0;  // left, or recovered in
  int step = 0;
  std::string code;
  int signal = 0;
  std::set<int> cannot = {};   // seats that it could not reach
  bool planned = false;        // its group ended as its members had agreed
  std::vector<int> left = {};  // seats that have handed over
  bool saved = false;          // with all, behind a checkpoint
  bool model = false;          // it led the group that finished
  std::string text = {};       // Seal's
};
using ReportPtr = std::shared_ptr<const ModelReport>;
ReportPtr Seal(ModelReport report);

// ---- the world ------------------------------------------------------------------------------

struct ModelTask {
  enum Phase { kStarting, kListening, kTraining, kOver } phase = kStarting;
  int worker = 0;
  bool hung = false, has_state = false, stop = false, leave = false, leave_at_once = false;
  uint64_t epoch = 0;  // the newest that it was in, or tried to be
  OrderPtr newest;
  int place = 0;                       // steps applied
  bool reduced = false;                // the sums of its next step are there
  bool regroup = false, goes = false;  // of them: the group ends, this rank goes
  // With slices: the group is to end with a hand-over or a checkpoint; it is behind the step, too;
  // that is done.
  bool parts = false, parting = false, handed = false, saved = false;
  // Whose group has joiners without the state: 1 + the steps until they have it; else 0.
  int joining = 0;
  bool hurries = false;  // with the sums came that somebody leaves
  bool cuts_over =
      false;  // it waits for the others: joiners get what is left, and show what they have
  std::vector<int> held;   // a joiner: of which step each piece is that it has
  std::vector<int> left;   // handed: who goes, if not all
  uint64_t overtaken = 0;  // an epoch whose members it had not taken up when the next order came
  std::vector<int> probe;  // as its start says
  bool alive() const { return phase != kOver; }
  std::string Address(int seat) const { return fmt::format("{}/{}", seat, epoch); }
};

struct ModelWorker {
  bool present = false, up = false, linked = false, greeted = false;
  int incarnation = 0;
  bool known_lost = false;  // the coordinator has given it up
  std::vector<OrderPtr> orders;
  std::vector<ReportPtr> reports;
  std::vector<ReportPtr> held;  // last words that wait until what their tasks left is stored
};

struct ModelEpoch {
  OrderPtr group;       // as first sent out
  int first_step = -1;  // that was reduced in it
  int applied = -1;     // the greatest step that a rank applied in it
};

struct World {
  std::vector<ModelWorker> workers;
  std::map<int, ModelTask> tasks;  // by seat
  std::map<uint64_t, ModelEpoch> epochs;
  std::set<std::pair<int, int>> cuts;  // workers that cannot reach each other, the lesser first
  int faults = 0, drains = 0, uploads = 0;  // left
  bool progressed = false;
  // With slices.
  std::vector<int> cut;  // seats: whose slice is the i-th, and mirrors the one before
  std::set<int> dead;    // seats
  int best = 0;          // steps that somebody has applied
  int saved = 0;         // of the newest checkpoint

  bool Cut(int worker, int other) const {
    return cuts.contains({std::min(worker, other), std::max(worker, other)});
  }

  // Of all that the search reads, and of nothing else: what is told apart.
  std::string Key(const ModelOptions& options) const;
};
}  // namespace lepton::scheduler::model
