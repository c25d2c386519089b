// The protocol of docs/decisions/elastic-epochs.md, walked through exhaustively: a breadth-first
// search over every state that a small job can reach. The coordinator is the real reactor, replayed
// from the real snapshot; what is modelled is the world around it: agents, tasks, connections, and
// the data plane as "a reduction needs every member of its epoch".
//
//   coordinator  --orders, in order, until the connection breaks-->  agent, its task
//                <--reports, in order, kept until acknowledged----
//
// One step of the model is one message that arrives, one thing that a task does, or one fault.
// Time is abstract: a timer fires when nothing else can happen (or, as a fault, too early).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lepton::scheduler {

// What is wrong on purpose, so that the checker can be seen to find it.
enum class Broken {
  kNothing,
  kOrdersBeforeTheJournal,  // a coordinator that dies forgets its last input, whose orders are out
  kMinorityGoesOn,          // a reduction goes on without members that left or died
  kOrdersAreNotRepeated,    // nobody says again what a broken connection has lost
  kCutsAreNotTold,          // ranks do not say whom they could not reach
  kLeavesAtOnce,            // who is told to leave between two groups keeps its slices to itself
  kPiecesAreKept,           // a joiner goes on with the pieces that it got in a group that broke
  kJoinersCountAtOnce,      // one that has some of the state says that it has a state
  kLeaversDoNotWait,        // who leaves goes though a joiner has not got all of the state
  kEndsAreNotTold,          // that a process is gone is said once what it left is stored
  kBusyIsNotTold,           // who computes for long before it leaves its group does not say so
};

struct ModelOptions {
  int workers = 3;          // of one slot
  int late = 0;             // of them arrive while it trains
  int min_workers = 1;      // of the job; its most are `workers`
  int steps = 2;            // of the job
  int faults = 1;           // of any kind, in any order, at any moment
  int pieces = 0;           // beside so many steps a joiner gets the state; 0: as ranks meet
  bool links = false;       // faults are also: two workers are cut off from each other, for good
  bool links_only = false;  // no others
  // Each rank has a slice of the state, and mirrors another's (parallel.zero).
  bool slices = false;
  int drains = 0;            // beside faults: workers are drained, ranks get SIGTERM
  bool sigterms = true;      // else drained only
  bool deaths_only = false;  // of ranks: no other faults
  // So many ends, of any kind, are told in two steps: that the process is gone, and its last word
  // when what it left is stored. Time passes meanwhile, and anything else may happen.
  int uploads = 0;
  bool must_succeed = false;  // it is not enough that the job starts again
  Broken broken = Broken::kNothing;
  int64_t most_states = 2'000'000;
};

struct ModelResult {
  int64_t states = 0, transitions = 0, inputs = 0;  // inputs: of the reactor
  int64_t finished = 0;                             // states in which the job is over or waits
  std::string violation;                            // empty: none
  std::vector<std::string> trace;                   // that leads to it
};

ModelResult ExploreProtocol(const ModelOptions& options);

}  // namespace lepton::scheduler
