// Which all-reduce is fastest on a machine, by transport, ranks and bytes: measured once by
// `lepton doctor --tune-collectives`, loaded when a group is joined. It changes times only: every
// algorithm gives the same bits.
//
// Text, a rule a line, sizes ascending and ending with "max" for each transport and number of
// ranks:
//   lepton-collectives-table 1
//   host Intel(R) Xeon(R) Processor, 2 cores
//   shm 2 8192 shared_one_shot
//   shm 2 max shared_pair
// Threads: a value.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::collectives {

class TuningTable {
 public:
  static constexpr size_t kMax = std::numeric_limits<size_t>::max();
  struct Rule {
    std::string transport;  // "shm": the whole group shares memory; "tcp": it does not
    int ranks = 0;
    size_t up_to_bytes = kMax;  // included
    std::string algorithm;
  };

  TuningTable() = default;
  TuningTable(std::string host, std::vector<Rule> rules)
      : host_(std::move(host)), rules_(std::move(rules)) {}

  // kInvalidArgument names the line and what is wrong with it: another version, an algorithm that
  // this program does not have, sizes out of order, a machine that is not this one.
  static Result<TuningTable> Parse(std::string_view text);
  // kNotFound when there is no such file; errors name it, and how to make a new one.
  static Result<TuningTable> Load(const std::string& path);
  // $LEPTON_COLLECTIVES_TABLE; else collectives.table in $XDG_CACHE_HOME/lepton or ~/.cache/lepton;
  // empty without a home.
  static std::string DefaultPath();
  // What Parse compares with: processor and number of cores.
  static std::string ThisHost();

  std::string ToText() const;
  // Equal tables have equal digests; 0 for one without rules.
  uint64_t digest() const;
  // "" where the table says nothing. A number of ranks that was not measured has the rules of the
  // nearest smaller one.
  std::string_view AlgorithmFor(std::string_view transport, int ranks, size_t bytes) const;
  const std::vector<Rule>& rules() const { return rules_; }

 private:
  std::string host_;
  std::vector<Rule> rules_;
};

}  // namespace lepton::collectives
