// Small graphs over axes that are open: what may be done with a length that is not known, and what
// is refused by name.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/runtime/onnx/one_node.h"
#include "tests/runtime/onnx/test_model.h"

namespace lepton::onnx {
namespace {

void ExpectRefused(const Status& status, const std::string& why) {
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status.ToString();
  EXPECT_NE(status.message().find(why), std::string::npos) << status.ToString();
}

// A slice ends where the axis does, and an axis that is open may end anywhere: only its first and
// its last element are there whatever its length.
TEST(OnnxOpen, SlicesOfAnOpenAxisThatDependOnItsLengthAreRefused) {
  const auto sliced = [](int64_t start, int64_t end, int64_t step) {
    OneNode node("Slice", 13, {-1, -1});
    node.Integers({start}).Integers({end}).Integers({1}).Integers({step});
    return node.RunOpen({2, 3}, {1, 2, 3, 4, 5, 6});
  };
  ExpectValues(sliced(0, 1, 1), {1, 4});
  ExpectValues(sliced(0, 4, 4), {1, 4});
  ExpectValues(sliced(-1, INT64_MAX, 1), {3, 6});
  ExpectValues(sliced(0, INT64_MAX, 1), {1, 2, 3, 4, 5, 6});
  for (const auto& [start, end] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 5}, {0, 2}, {1, 2}, {-2, -1}, {-5, INT64_MAX}}) {
    ExpectRefused(sliced(start, end, 1).status(), "slice of an open axis");
  }
}

TEST(OnnxOpen, PadsOfAnOpenAxisByItsElementsAreRefused) {
  for (const char* mode : {"reflect", "edge", "wrap"}) {
    OneNode node("Pad", 19, {-1, -1});
    node.Set("mode", mode).Integers({0, 1, 0, 1});
    ExpectRefused(node.RunOpen({1, 3}, {1, 2, 3}).status(), "padding an open axis");
  }
}

TEST(OnnxOpen, PadsOfAnEmptyAxisByItsElementsAreRefused) {
  for (const char* mode : {"reflect", "edge", "wrap"}) {
    OneNode node("Pad", 19, {2, 0});
    node.Set("mode", mode).Integers({0, 1, 0, 1});
    const Status status = node.Run({}).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << mode << status.ToString();
    EXPECT_NE(status.message().find("empty axis"), std::string::npos) << status.ToString();
  }
}

// x [batch, sequence] and its sequence's length as INT32 in `n`.
TestModel WithLength() {
  TestModel m;
  m.Input("x", kFloatCode, {-1, -1}).Output("y");
  m.Integers("one", {}, {1}).Integers("two", {}, {2}).Integers("axis", {1}, {1});
  m.Integers32("eight", {}, {8});
  m.Node("Shape", {"x"}, "shape").Node("Gather", {"shape", "one"}, "long");
  m.Node("Cast", {"long"}, "n", {{"to", kInt32Code}});
  return m;
}

// A length is a mark as long as it is moved about; what is computed from it is none, and no number
// either, in whatever type.
TEST(OnnxOpen, NumbersThatFollowFromALengthAreRefused) {
  const auto scaled = [](auto&& add) {
    TestModel m = WithLength();
    add(m);
    m.Node("Cast", {"number"}, "factor", {{"to", kFloatCode}}).Node("Mul", {"x", "factor"}, "y");
    return m.RunOpen({2, 3}, {1, 2, 3, 4, 5, 6}).status();
  };
  const std::string why = "size of the batch or the sequence";
  ExpectRefused(scaled([](TestModel& m) { m.Node("Identity", {"n"}, "number"); }), why);
  ExpectRefused(scaled([](TestModel& m) { m.Node("Mod", {"n", "eight"}, "number"); }), why);
  ExpectRefused(scaled([](TestModel& m) { m.Node("Div", {"n", "eight"}, "number"); }), why);
  ExpectRefused(scaled([](TestModel& m) { m.Node("Min", {"n", "eight"}, "number"); }), why);
  ExpectRefused(scaled([](TestModel& m) { m.Node("Equal", {"n", "eight"}, "number"); }), why);
  ExpectRefused(scaled([](TestModel& m) { m.Node("Less", {"n", "eight"}, "number"); }), why);

  TestModel mean = WithLength();
  mean.Node("ReduceSum", {"x", "axis"}, "sum").Node("Cast", {"n"}, "count", {{"to", kFloatCode}});
  mean.Node("Div", {"sum", "count"}, "y");
  ExpectRefused(mean.RunOpen({2, 3}, {1, 2, 3, 4, 5, 6}).status(), why);
}

TEST(OnnxOpen, ShapesThatFollowFromALengthAreRefused) {
  TestModel m = WithLength();
  m.Node("Mod", {"n", "eight"}, "rest").Node("Cast", {"rest"}, "long_rest", {{"to", kInt64Code}});
  m.Node("Unsqueeze", {"long_rest", "axis0"}, "extent").Integers("axis0", {1}, {0});
  m.Node("ConstantOfShape", {"extent"}, "zeros").Node("ReduceSum", {"zeros"}, "sum");
  m.Node("Add", {"x", "sum"}, "y");
  ExpectRefused(m.RunOpen({2, 3}, {1, 2, 3, 4, 5, 6}).status(), "open extent");
}

TEST(OnnxOpen, LengthsAreMovedAboutInAnyIntegerType) {
  TestModel m = WithLength();
  // [batch, sequence] by INT32, with a way around through the difference of two equal lengths.
  m.Integers("zero", {}, {0}).Integers("axis0", {1}, {0}).Integers32("one32", {}, {1});
  m.Integers32("none", {}, {-1});
  m.Node("Gather", {"shape", "zero"}, "long_rows");
  m.Node("Cast", {"long_rows"}, "rows", {{"to", kInt32Code}});
  m.Node("Sub", {"n", "n"}, "nothing").Node("Add", {"n", "nothing"}, "same");
  m.Node("Equal", {"same", "none"}, "inferred")
      .Node("Where", {"inferred", "one32", "same"}, "kept");
  m.Node("Unsqueeze", {"rows", "axis0"}, "r").Node("Unsqueeze", {"kept", "axis0"}, "c");
  m.Node("Concat", {"r", "c"}, "wanted", {{"axis", 0}});
  m.Node("Cast", {"wanted"}, "wanted64", {{"to", kInt64Code}});
  m.Floats("half", {}, {0.5}).Node("Expand", {"half", "wanted64"}, "halves");
  m.Node("Range", {"zero32", "n", "one32"}, "places").Integers32("zero32", {}, {0});
  m.Node("Cast", {"places"}, "position", {{"to", kFloatCode}});
  m.Node("Add", {"x", "halves"}, "moved").Node("Add", {"moved", "position"}, "y");
  ExpectValues(m.RunOpen({2, 3}, {1, 2, 3, 4, 5, 6}), {1.5, 3.5, 5.5, 4.5, 6.5, 8.5});
}

// The batch may be shorter than the sequence.
TEST(OnnxOpen, SlicesByTheLengthOfAnotherAxisAreRefused) {
  TestModel m = WithLength();
  m.Integers("axis0", {1}, {0}).Integers("zero", {}, {0});
  m.Node("Gather", {"shape", "zero"}, "rows").Node("Unsqueeze", {"rows", "axis0"}, "end");
  m.Node("Slice", {"x", "axis0", "end", "axis"}, "y");
  ExpectRefused(m.RunOpen({2, 3}, {1, 2, 3, 4, 5, 6}).status(), "slice of an open axis");
}

// x [batch, sequence, 4], its shape, and constants to take parts of it.
TestModel WithLeadingAxes() {
  TestModel m;
  m.Input("x", kFloatCode, {-1, -1, 4}).Output("y").Node("Shape", {"x"}, "shape");
  m.Integers("0", {1}, {0}).Integers("1", {1}, {1}).Integers("2", {1}, {2}).Integers("4", {1}, {4});
  m.Integers("-1", {1}, {-1}).Integers("3", {1}, {3}).Integers("split", {4}, {0, 0, 2, 2});
  m.Floats("w", {4, 2}, {1, 2, -3, 4, 5, -6, 7, 8}).Floats("b", {2}, {0.5, -0.5});
  return m;
}
std::vector<double> Numbers(int count) {
  std::vector<double> numbers;
  for (int i = 0; i < count; ++i) numbers.push_back(i * 7 % 11 - 5);
  return numbers;
}

// The batch and the heads are one axis while keys are turned, as PyTorch's exporter writes
// scaled_dot_product_attention.
TEST(OnnxOpen, LeadingAxesMayBeJoinedWhileOthersAreTransposed) {
  TestModel joined = WithLeadingAxes(), plain = WithLeadingAxes();
  for (TestModel* m : {&joined, &plain}) {
    m->Node("Reshape", {"x", "split"}, "heads");
    m->Node("Transpose", {"heads"}, "k").List("perm", {0, 2, 1, 3});
  }
  joined.Node("Shape", {"k"}, "all").Node("Slice", {"all", "0", "2"}, "leading");
  joined.Node("Slice", {"all", "2", "3"}, "length").Node("Slice", {"all", "3", "4"}, "size");
  joined.Node("Concat", {"-1", "length", "size"}, "flat", {{"axis", 0}});
  joined.Node("Reshape", {"k", "flat"}, "f").Node("Transpose", {"f"}, "ft").List("perm", {0, 2, 1});
  joined.Node("Concat", {"leading", "size", "length"}, "turned", {{"axis", 0}});
  joined.Node("Reshape", {"ft", "turned"}, "kt");
  plain.Node("Transpose", {"k"}, "kt").List("perm", {0, 1, 3, 2});
  for (TestModel* m : {&joined, &plain}) m->Node("MatMul", {"k", "kt"}, "y");
  const auto wanted = plain.RunOpen({2, 3, 4}, Numbers(24));
  ASSERT_TRUE(wanted.ok()) << wanted.status().ToString();
  ExpectValues(joined.RunOpen({2, 3, 4}, Numbers(24)), {wanted->begin(), wanted->end()});
}

// As GPT-2 of transformers multiplies: all tokens of all texts are rows.
TEST(OnnxOpen, LeadingAxesMayBeJoinedForAProduct) {
  TestModel plain = WithLeadingAxes();
  plain.Node("MatMul", {"x", "w"}, "p").Node("Add", {"p", "b"}, "y");
  const auto wanted = plain.RunOpen({2, 3, 4}, Numbers(24));
  ASSERT_TRUE(wanted.ok()) << wanted.status().ToString();
  for (const bool gemm : {false, true}) {
    TestModel m = WithLeadingAxes();
    m.Integers("rows", {2}, {-1, 4}).Node("Reshape", {"x", "rows"}, "flat");
    if (gemm) m.Node("Gemm", {"flat", "w", "b"}, "p");
    if (!gemm) m.Node("MatMul", {"flat", "w"}, "product").Node("Add", {"b", "product"}, "p");
    m.Node("Slice", {"shape", "0", "2"}, "leading");
    m.Node("Concat", {"leading", "2"}, "wide", {{"axis", 0}}).Node("Reshape", {"p", "wide"}, "y");
    ExpectValues(m.RunOpen({2, 3, 4}, Numbers(24)), {wanted->begin(), wanted->end()});
  }
}

// x [batch, sequence, 4] as [sequence, batch * 2, 2], as the library of PyTorch writes its
// attention.
TestModel WithHeadsOfBatches() {
  TestModel m = WithLeadingAxes();
  m.Node("Transpose", {"x"}, "xt").List("perm", {1, 0, 2}).Node("Shape", {"xt"}, "turned");
  m.Node("Gather", {"turned", "0"}, "length").Node("Gather", {"turned", "1"}, "batch");
  m.Node("Mul", {"batch", "2"}, "all").Node("Concat", {"length", "all", "2"}, "s", {{"axis", 0}});
  m.Node("Reshape", {"xt", "s"}, "heads");
  return m;
}

TEST(OnnxOpen, TheBatchMayBeJoinedWithHeads) {
  TestModel m = WithHeadsOfBatches();
  m.Node("Transpose", {"heads"}, "q").List("perm", {1, 0, 2});
  m.Node("Transpose", {"heads"}, "k").List("perm", {1, 2, 0});
  m.Node("MatMul", {"q", "k"}, "scores").Node("Softmax", {"scores"}, "p", {{"axis", -1}});
  m.Node("MatMul", {"p", "q"}, "mixed").Node("Transpose", {"mixed"}, "t").List("perm", {1, 0, 2});
  m.Node("Mul", {"length", "batch"}, "rows").Node("Concat", {"rows", "4"}, "f", {{"axis", 0}});
  m.Node("Reshape", {"t", "f"}, "flat").Node("Relu", {"flat"}, "positive");
  m.Node("Concat", {"length", "batch", "-1"}, "wide", {{"axis", 0}});
  m.Node("Reshape", {"positive", "wide"}, "w3").Node("Transpose", {"w3"}, "y");
  m.List("perm", {1, 0, 2});
  TestModel plain = WithLeadingAxes();
  plain.Node("Reshape", {"x", "split"}, "heads");
  plain.Node("Transpose", {"heads"}, "q").List("perm", {0, 2, 1, 3});
  plain.Node("Transpose", {"heads"}, "k").List("perm", {0, 2, 3, 1});
  plain.Node("MatMul", {"q", "k"}, "scores").Node("Softmax", {"scores"}, "p", {{"axis", -1}});
  plain.Node("MatMul", {"p", "q"}, "mixed");
  plain.Node("Transpose", {"mixed"}, "t").List("perm", {0, 2, 1, 3});
  plain.Integers("joined", {3}, {0, 0, 4}).Node("Reshape", {"t", "joined"}, "flat");
  plain.Node("Relu", {"flat"}, "y");
  const auto wanted = plain.RunOpen({2, 3, 4}, Numbers(24));
  ASSERT_TRUE(wanted.ok()) << wanted.status().ToString();
  ExpectValues(m.RunOpen({2, 3, 4}, Numbers(24)), {wanted->begin(), wanted->end()});
}

// A length * batch * heads divided by what it was multiplied with, and a fill of such a length.
TEST(OnnxOpen, ProductsOfLengthsAreLengths) {
  TestModel m = WithHeadsOfBatches();
  m.Node("Div", {"all", "2"}, "rows").Node("Div", {"all", "batch"}, "h");
  m.Node("Concat", {"all", "1", "1"}, "each", {{"axis", 0}});
  m.Node("ConstantOfShape", {"each"}, "zeros").Node("Cos", {"zeros"}, "ones");
  m.Node("Transpose", {"heads"}, "q").List("perm", {1, 0, 2}).Node("Add", {"q", "ones"}, "more");
  m.Node("Concat", {"rows", "h", "length", "2"}, "apart", {{"axis", 0}});
  m.Node("Reshape", {"more", "apart"}, "four");
  m.Node("Transpose", {"four"}, "back").List("perm", {0, 2, 1, 3});
  m.Integers("joined", {3}, {0, 0, 4}).Node("Reshape", {"back", "joined"}, "y");
  std::vector<double> wanted = Numbers(24);
  for (double& number : wanted) number += 1;
  ExpectValues(m.RunOpen({2, 3, 4}, Numbers(24)), {wanted.begin(), wanted.end()});
}

TEST(OnnxOpen, WhatWorksAlongTheBatchAndHeadsIsRefused) {
  const auto refused = [](const std::string& why, auto&& add) {
    TestModel m = WithHeadsOfBatches();
    add(m);
    m.Node("Concat", {"length", "batch", "-1"}, "wide", {{"axis", 0}});
    m.Node("Reshape", {"mixed", "wide"}, "y");
    ExpectRefused(m.RunOpen({2, 3, 4}, Numbers(24)).status(), why);
  };
  const std::string joins = "merging the open extents";
  refused(joins, [](auto& m) { m.Node("Softmax", {"heads"}, "mixed", {{"axis", 1}}); });
  refused(joins, [](auto& m) { m.Node("CumSum", {"heads", "1"}, "mixed"); });
  refused(joins, [](auto& m) { m.Node("ReduceMax", {"heads"}, "mixed").List("axes", {1}); });
  refused(joins, [](auto& m) { m.Node("Gather", {"heads", "0"}, "mixed", {{"axis", 1}}); });
  refused(joins, [](auto& m) { m.Node("Slice", {"heads", "0", "1", "1"}, "mixed"); });
  refused(joins, [](auto& m) { m.Node("Concat", {"heads", "heads"}, "mixed", {{"axis", 1}}); });
  refused(joins, [](auto& m) {  // the rows of both as one sum
    m.Node("Transpose", {"heads"}, "t").List("perm", {0, 2, 1});
    m.Node("MatMul", {"heads", "t"}, "mixed");
  });
  refused(joins, [](auto& m) {  // [batch, heads] beside [heads, batch]
    m.Node("Concat", {"length", "batch", "2", "2"}, "apart", {{"axis", 0}});
    m.Node("Reshape", {"heads", "apart"}, "four");
    m.Node("Transpose", {"four"}, "swapped").List("perm", {0, 2, 1, 3});
    m.Node("Reshape", {"swapped", "s"}, "again").Node("Add", {"heads", "again"}, "mixed");
  });
  refused(joins, [](auto& m) {  // parts of several rows
    m.Integers("8", {1}, {8}).Node("Concat", {"length", "-1", "8"}, "eights", {{"axis", 0}});
    m.Node("Reshape", {"heads", "eights"}, "mixed");
  });
}

TEST(OnnxOpen, JoinedAxesAreRefusedWhereTheyWouldBeOne) {
  const auto refused = [](auto&& add) {
    TestModel m = WithLeadingAxes();
    m.Integers("rows", {2}, {-1, 4}).Node("Reshape", {"x", "rows"}, "flat");
    add(m);
    ExpectRefused(m.RunOpen({2, 3, 4}, Numbers(24)).status(), "merging the open extents");
  };
  refused([](auto& m) { m.Node("Identity", {"flat"}, "y"); });
  refused([](auto& m) { m.Node("Softmax", {"flat"}, "y"); });
  refused([](auto& m) { m.Node("Transpose", {"flat"}, "y").List("perm", {1, 0}); });
  refused([](auto& m) { m.Node("Add", {"flat", "flat"}, "y"); });
  refused([](auto& m) { m.Node("MatMul", {"flat", "w"}, "y"); });
  refused([](auto& m) { m.Node("Gemm", {"flat", "flat"}, "y", {{"transA", 1}}); });
}

// PyTorch's exporter names the activations of an RNN, also where they are the usual ones.
TEST(OnnxOpen, RecurrentActivationsMayBeNamed) {
  const auto run = [](std::vector<std::string> names) {
    TestModel m;
    m.Input("x", kFloatCode, {-1, 1}).Output("y").Integers("shape", {3}, {1, -1, 1});
    m.Node("Reshape", {"x", "shape"}, "steps");
    m.Floats("w", {1, 1, 1}, {1}).Floats("r", {1, 1, 1}, {1});
    m.Node("RNN", {"steps", "w", "r"}, "y", {{"hidden_size", 1}});
    auto* attribute = m.graph().mutable_node(1)->add_attribute();
    attribute->set_name("activations");
    attribute->set_type(8);  // STRINGS
    for (const std::string& name : names) attribute->add_strings(name);
    return m.RunOpen({2, 1}, {0, 1});
  };
  ExpectValues(run({"Tanh"}), {0, std::tanh(1.0)});
  ExpectRefused(run({"Relu"}).status(), "activations other than the default ones");
}

// What is unrolled, or is a matrix as large as the axis is long.
TEST(OnnxOpen, OperatorsThatNeedALengthAreRefusedByIt) {
  for (const char* op : {"RNN", "GRU", "LSTM"}) {
    const int64_t gates = op[0] == 'R' ? 1 : op[0] == 'G' ? 3 : 4;
    TestModel m;
    m.Input("x", kFloatCode, {-1, -1, 1}).Output("y");
    m.Node("Transpose", {"x"}, "steps").List("perm", {1, 0, 2});
    m.Floats("w", {1, gates, 1}, std::vector<float>(gates, 1));
    m.Floats("r", {1, gates, 1}, std::vector<float>(gates, 1));
    m.Node(op, {"steps", "w", "r"}, "y", {{"hidden_size", 1}});
    ExpectRefused(m.RunOpen({2, 3, 1}, {1, 2, 3, 4, 5, 6}).status(),
                  "a recurrence over an open length");
  }
  OneNode hardmax("Hardmax", 13, {-1, -1});
  ExpectRefused(hardmax.RunOpen({1, 3}, {1, 2, 3}).status(), "the largest of an open axis");
  for (const bool asked : {false, true}) {
    OneNode transform("DFT", 17, {-1, -1, 1});
    if (asked) transform.Integer(4);
    ExpectRefused(transform.RunOpen({1, 3, 1}, {1, 2, 3}).status(),
                  "a transform of an open length");
  }
  OneNode frames("STFT", 17, {-1, -1, 1});
  frames.Integer(1).Nothing().Integer(2);
  ExpectRefused(frames.RunOpen({1, 3, 1}, {1, 2, 3}).status(), "a transform of an open length");
}

// [1, 1, 2, 2] as [1, 1, 4, 4], and so for each picture of a batch.
TEST(OnnxOpen, ResizeLeavesTheBatchOpen) {
  const std::vector<double> wide = {1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4};
  TestModel by_scales;
  by_scales.Input("x", kFloatCode, {-1, 1, 2, 2}).Output("y");
  by_scales.Floats("scales", {4}, {1, 1, 2, 2}).Node("Resize", {"x", "", "scales"}, "y");
  TestModel by_sizes;
  by_sizes.Input("x", kFloatCode, {-1, 1, 2, 2}).Output("y");
  by_sizes.Integers("start", {1}, {0}).Integers("end", {1}, {2}).Integers("space", {2}, {4, 4});
  by_sizes.Node("Shape", {"x"}, "shape").Node("Slice", {"shape", "start", "end"}, "leading");
  by_sizes.Node("Concat", {"leading", "space"}, "sizes", {{"axis", 0}});
  by_sizes.Node("Resize", {"x", "", "", "sizes"}, "y");
  for (TestModel* m : {&by_scales, &by_sizes}) {
    ExpectValues(m->RunOpen({1, 1, 2, 2}, {1, 2, 3, 4}), wide);
    std::vector<double> x, y;
    for (const double factor : {1.0, 10.0, 100.0}) {
      for (const double number : {1, 2, 3, 4}) x.push_back(factor * number);
      for (const double number : wide) y.push_back(factor * number);
    }
    ExpectValues(m->RunOpen({3, 1, 2, 2}, x), y);
  }
}

TEST(OnnxOpen, ResizeOfTheBatchIsRefused) {
  TestModel m;
  m.Input("x", kFloatCode, {-1, 2}).Output("y").Floats("scales", {2}, {2, 1});
  m.Node("Resize", {"x", "", "scales"}, "y");
  ExpectRefused(m.RunOpen({1, 2}, {1, 2}).status(), "resizing an open axis");
}

// What exporters write for x[:, 1:] before operator set 10.
TEST(OnnxOpen, SlicesByAttributesMayEndBeyondTheAxis) {
  TestModel m(9);
  m.Input("x", kFloatCode, {-1, 3}).Output("y").Node("Slice", {"x"}, "y");
  m.List("axes", {1}).List("starts", {1}).List("ends", {INT64_MAX});
  ExpectValues(m.RunOpen({2, 3}, {1, 2, 3, 4, 5, 6}), {2, 3, 5, 6});
}

}  // namespace
}  // namespace lepton::onnx
