// What a figure should be, a line each, as bench/goals.py prints them: `scripts/bench.sh --check`
// fails where one says MISSED.
#pragma once
#include <cstdio>
#include <string>

namespace lepton::goals {

inline bool Say(const std::string& what, double value, const char* bound, double goal, bool met) {
  std::printf("goal: %s: %.4g, %s %.4g: %s\n", what.c_str(), value, bound, goal,
              met ? "met" : "MISSED");
  std::fflush(stdout);
  return met;
}
inline bool AtLeast(const std::string& what, double value, double goal) {
  return Say(what, value, "at least", goal, value >= goal);
}
inline bool AtMost(const std::string& what, double value, double goal) {
  return Say(what, value, "at most", goal, value <= goal);
}

}  // namespace lepton::goals
