#include "runtime/kernels/cpu/conv/shifted_images.h"

#include <cstring>

#include "runtime/kernels/cpu/conv/scratch.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::conv {

void ShiftedImages::PairChannels(const Phase& phase, const Part& part, const uint16_t* x,
                                 int64_t pitch, uint32_t* pairs) const {
  const simd::Loops& loops = simd::BestLoops();
  const Planes& planes = phase.planes;
  const int64_t span = planes.Span(part.lines);
  for (int64_t copy = 0; copy < phase.Copies(); ++copy) {
    // What a copy's lines see of the image's: of a line without a border some is missing.
    const int64_t offset = phase.copies.empty() ? planes.skip() : phase.copies[copy];
    const int64_t begin = std::clamp<int64_t>(-offset, 0, planes.columns());
    const int64_t end = std::clamp<int64_t>(width - offset, begin, planes.columns());
    for (int64_t pair = 0; pair < channels / 2; ++pair, pairs += pitch) {
      for (int64_t image = 0; image < part.images; ++image) {
        const uint16_t* even = x + (image * channels + 2 * pair) * pixels + (offset + begin);
        const int64_t room = image + 1 < part.images ? span : pitch - image * span;
        planes.Fill(part.first, part.lines, room, pairs + image * span,
                    [&](int64_t line, uint32_t* to) {
                      const uint16_t* from = even + line * read_h * width;
                      std::fill(to, to + begin, 0);
                      if (read_w == 1) {
                        loops.interleave(end - begin, from, from + pixels, to + begin);
                      } else {
                        PairStrided(end - begin, from, to + begin);
                      }
                      std::fill(to + end, to + planes.columns(), 0);
                    });
      }
    }
  }
}

void ShiftedImages::PairStrided(int64_t count, const uint16_t* even, uint32_t* to) const {
  const uint16_t* odd = even + pixels;
  for (int64_t i = 0; i < count; ++i) {
    to[i] = even[i * read_w] | static_cast<uint32_t>(odd[i * read_w]) << 16;
  }
}

void ShiftedImages::PairRows(const Phase& phase, const Part& part, const uint16_t* x, int64_t rows,
                             int64_t inner, int64_t positions, int64_t pairs_pitch,
                             uint32_t* pairs) const {
  const simd::Loops& loops = simd::BestLoops();
  const Planes& planes = phase.planes;
  const int64_t pitch = planes.Pitch(positions, sizeof(uint16_t));
  auto* images = reinterpret_cast<uint16_t*>(ThreadMemory<2>((channels + 1) * pitch * 2));
  for (int64_t channel = 0; channel < channels; ++channel) {
    const uint16_t* from = x + channel * pixels + planes.skip();
    planes.Fill(part.first, part.lines, pitch, images + channel * pitch,
                [&](int64_t line, uint16_t* to) {
                  std::memcpy(to, from + line * width, planes.columns() * 2);
                });
  }
  uint16_t* const zeros = images + channels * pitch;
  std::memset(zeros, 0, pitch * 2);
  const auto seen = [&](int64_t row) {
    return row < rows ? images + row % channels * pitch + planes.shifts()[row / channels] : zeros;
  };
  for (int64_t row = 0; row < inner; row += 2) {
    loops.interleave(positions, seen(row), seen(row + 1), pairs + row / 2 * pairs_pitch);
  }
}

}  // namespace lepton::kernels::conv
