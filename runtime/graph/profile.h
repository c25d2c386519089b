// Where the time of a plan's runs goes, by kernel and shapes: for benches and for finding what is
// slow. Threads: one run at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

namespace lepton::graph {

class Profile {
 public:
  struct Line {
    int64_t runs = 0;
    double seconds = 0;
    double fastest = 0;  // seconds of the run that other work on the machine slowed least
    double flops = 0;    // of the products within; 0 for none
    double bytes = 0;    // of the anchor's inputs and outputs
  };
  void Add(const std::string& name, double seconds, double flops, double bytes) {
    Line& line = lines_[name];
    line.fastest = line.runs == 0 ? seconds : std::min(line.fastest, seconds);
    line.runs += 1;
    line.seconds += seconds;
    line.flops += flops;
    line.bytes += bytes;
  }
  // By "matmul+bias_add: gemm [3072x384] [384x1536] -> [3072x1536]".
  const std::map<std::string, Line>& lines() const { return lines_; }

 private:
  std::map<std::string, Line> lines_;
};

}  // namespace lepton::graph
