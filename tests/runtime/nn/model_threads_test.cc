// Models of every kind give the same bits for any number of threads: their answers in every
// precision, and where training takes them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "runtime/base/hash.h"
#include "tests/runtime/engine/thread_counts.h"
#include "tests/runtime/nn/small_models.h"

namespace lepton::nn {
namespace {

// So many rows that most loops have work for several threads.
int64_t RowsFor(const SmallModel& small) {
  return small.model.arch == "onnx" ? 600 : 48;
}

template <typename Values>
void AppendBytes(const Values& values, std::string& bytes) {
  bytes.append(reinterpret_cast<const char*>(values.data()),
               values.size() * sizeof(*values.data()));
}

// One line per kind and precision of what it gave.
std::string LinesOfModels() {
  std::ostringstream lines;
  for (const std::string kind : kModelKinds) {
    const SmallModel small = MakeSmallModel(kind, LEPTON_SOURCE_DIR);
    RandomRows rows(small, RowsFor(small), 1);
    const Batch batch = rows.Some(0, RowsFor(small));
    const int64_t predictions = Predictions(small.signature, batch);
    for (const std::string precision : {"f32", "bf16", "int8"}) {
      std::vector<float> logits(predictions * small.signature.outputs);
      EXPECT_TRUE(small.Answers(precision)->Forward(batch, logits).ok());
      std::string bytes;
      AppendBytes(logits, bytes);
      lines << kind << " answers " << precision << " " << Sha256Hex(bytes) << "\n";
      if (precision == "int8") continue;
      const auto program = small.Trains(precision);
      const std::vector<int32_t> classes =
          Classes(predictions, static_cast<int>(small.signature.outputs), 5);
      std::vector<double> losses;
      for (uint64_t step = 0; step < 2; ++step) {
        const auto loss = program->ForwardBackward(batch, {.classes = classes}, step, 0);
        EXPECT_TRUE(loss.ok()) << loss.status().ToString();
        losses.push_back(loss->sum);
        losses.push_back(program->ApplyGradients(step, 1 / loss->count));
      }
      bytes.clear();
      AppendBytes(losses, bytes);
      AppendBytes(program->weights(), bytes);
      lines << kind << " trains " << precision << " " << losses.back() << " " << Sha256Hex(bytes)
            << "\n";
    }
  }
  return lines.str();
}

TEST(ModelThreadsChild, WritesItsLines) {
  WriteForParent(LinesOfModels);
}

TEST(ModelThreads, AnyNumberGivesTheSameBits) {
  const auto lines = WithThreads("ModelThreadsChild.WritesItsLines", {1, 2, 3, 5});
  EXPECT_EQ(std::count(lines[0].begin(), lines[0].end(), '\n'), 6 * 5);
  EXPECT_THAT(lines[0], testing::Not(testing::HasSubstr("nan")));
  EXPECT_THAT(lines, testing::Each(lines[0]));
}

}  // namespace
}  // namespace lepton::nn
