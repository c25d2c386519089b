// The ranks of a divided model as threads of a test.
#pragma once

#include <barrier>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "runtime/graph/tensor_group.h"

namespace lepton::nn {

class TensorRanks {
 public:
  explicit TensorRanks(int ranks) : inputs_(ranks), barrier_(ranks) {}
  int size() const { return static_cast<int>(inputs_.size()); }

  // function(rank, group) on a thread for each rank.
  void Run(const std::function<void(int, graph::TensorGroup&)>& function) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size(); ++rank) {
      threads.emplace_back([&, rank] {
        Group group(*this, rank);
        function(rank, group);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  class Group final : public graph::TensorGroup {
   public:
    Group(TensorRanks& ranks, int rank) : ranks_(ranks), rank_(rank) {}
    void AllReduce(const float* in, float* out, size_t count) override {
      std::vector<float> sum(in, in + count);
      ranks_.Show(rank_, in, [&] {
        std::copy_n(static_cast<const float*>(ranks_.inputs_[0]), count, sum.begin());
        for (int rank = 1; rank < ranks_.size(); ++rank) {
          const auto* const more = static_cast<const float*>(ranks_.inputs_[rank]);
          for (size_t i = 0; i < count; ++i) sum[i] += more[i];
        }
      });
      std::copy(sum.begin(), sum.end(), out);
    }
    void AllGather(const void* in, void* out, size_t bytes) override {
      ranks_.Show(rank_, in, [&] {
        for (int rank = 0; rank < ranks_.size(); ++rank) {
          std::memcpy(static_cast<char*>(out) + rank * bytes, ranks_.inputs_[rank], bytes);
        }
      });
    }
    Status status() const override { return Status::Ok(); }

   private:
    TensorRanks& ranks_;
    const int rank_;
  };

  // `read` sees what each rank shows.
  void Show(int rank, const void* in, const std::function<void()>& read) {
    inputs_[rank] = in;
    barrier_.arrive_and_wait();
    read();
    barrier_.arrive_and_wait();
  }

  std::vector<const void*> inputs_;
  std::barrier<> barrier_;
};

}  // namespace lepton::nn
