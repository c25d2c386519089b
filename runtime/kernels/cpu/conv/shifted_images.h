// How convolutions on shifted images (shifted_kernel.h) lay images out: channels in pairs, each
// pair's numbers of a pixel in one word, the even channel's low, line by line with what border the
// taps need. Threads: plain values; the filling uses ThreadMemory<2>.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/kernels/cpu/conv/planes.h"

namespace lepton::kernels::conv {

// Output pixels (y * step_h + first_h, x * step_w + first_w): all of y; of dx those that the same
// taps meet.
struct Phase {
  int64_t first_h, first_w;
  // With `copies`, images whose lines have no border, once for each tap of a line, whose offsets
  // these are: where lines are short, a border would be a good part of all that is multiplied.
  Planes planes;
  std::vector<int64_t> copies;
  std::vector<int64_t> taps;  // numbers in a window
  int64_t weights;            // where its packed weights begin, in bytes

  int64_t Copies() const { return std::max<int64_t>(1, static_cast<int64_t>(copies.size())); }
};

// What is worked on at a time: `lines` of each of `images`, from line `first` on.
struct Part {
  int64_t images, first, lines;
};

struct ShiftedImages {
  int64_t channels, pixels, width;
  int64_t read_h, read_w;  // from pixel to pixel of x, for windows of 1 x 1; else 1

  // Copy by copy of the planes, each with all pairs of channels, `pitch` words a pair.
  void PairChannels(const Phase& phase, const Part& part, const uint16_t* x, int64_t pitch,
                    uint32_t* pairs) const;
  // With channels that fill no step: of each tap and channel what it sees of `positions`, as if
  // that were a channel; `rows` such ones, up to `inner` of zeros.
  void PairRows(const Phase& phase, const Part& part, const uint16_t* x, int64_t rows,
                int64_t inner, int64_t positions, int64_t pitch, uint32_t* pairs) const;

 private:
  void PairStrided(int64_t count, const uint16_t* even, uint32_t* to) const;
};

}  // namespace lepton::kernels::conv
