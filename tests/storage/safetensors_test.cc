#include "runtime/formats/safetensors/safetensors.h"

#include <random>

#include "runtime/base/hash.h"
#include "tests/storage/status_matchers.h"

namespace lepton::safetensors {
namespace {

std::string Bytes(size_t count, char first = 1) {
  std::string bytes(count, '\0');
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(first + i);
  return bytes;
}

// A file out of a header and data, whether or not they fit together.
std::string Raw(const std::string& header, const std::string& data = "") {
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(uint64_t{header.size()} >> (8 * i));
  return out + header + data;
}

TEST(SafetensorsTest, WhatIsSerializedParsesBack) {
  const std::string a = Bytes(24), b = Bytes(3, 9), c = Bytes(8);
  const auto bytes = Serialize({{"z.weight", "F32", {2, 3}, a},
                                {"a.flags", "BOOL", {3}, b},
                                {"m", "I64", {}, c},
                                {"empty", "F32", {0, 7}, ""}},
                               {{"k", "v"}, {"unicode", "\u00fc"}});
  ASSERT_THAT(bytes, IsOk());
  const auto file = Parse(*bytes);
  ASSERT_THAT(file, IsOk());
  ASSERT_EQ(file->tensors.size(), 4u);
  EXPECT_EQ(file->tensors[0].name, "a.flags");
  EXPECT_EQ(file->tensors[3].name, "z.weight");
  EXPECT_EQ(file->Find("z.weight")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file->Find("z.weight")->bytes, a);
  EXPECT_EQ(file->Find("a.flags")->bytes, b);
  EXPECT_EQ(file->Find("m")->bytes, c);
  EXPECT_TRUE(file->Find("m")->shape.empty());
  EXPECT_EQ(file->Find("empty")->bytes, "");
  EXPECT_EQ(file->Find("missing"), nullptr);
  EXPECT_EQ(file->metadata.at("unicode"), "\u00fc");
}

TEST(SafetensorsTest, EveryTensorIsAlignedToItsElements) {
  const auto bytes = Serialize({{"a", "U8", {3}, Bytes(3)},
                                {"b", "F32", {1}, Bytes(4)},
                                {"c", "F64", {1}, Bytes(8)},
                                {"d", "BF16", {3}, Bytes(6)}})
                         .value();
  const File file = Parse(bytes).value();
  for (const TensorView& t : file.tensors) {
    EXPECT_EQ(static_cast<size_t>(t.bytes.data() - bytes.data()) % DtypeSize(t.dtype), 0u)
        << t.name;
  }
}

TEST(SafetensorsTest, EqualInputGivesEqualBytesInAnyOrder) {
  const TensorView a{"a", "F32", {1}, "abcd"}, b{"b", "F32", {1}, "efgh"};
  EXPECT_EQ(Serialize({a, b}).value(), Serialize({b, a}).value());
}

TEST(SafetensorsTest, NoTensorsAreAFileToo) {
  const auto file = Parse(Serialize({}).value());
  ASSERT_THAT(file, IsOk());
  EXPECT_TRUE(file->tensors.empty());
}

// The layout as the format's description gives it, byte by byte.
TEST(SafetensorsTest, ReadsAFileThatAnotherProgramWrote) {
  const std::string header =
      R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"format":"pt"}}   )";
  const std::string bytes = Raw(header, Bytes(8));
  const auto file = Parse(bytes);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ(file->Find("t")->bytes, Bytes(8));
  EXPECT_EQ(file->metadata.at("format"), "pt");
}

TEST(SafetensorsTest, RefusesMalformedFilesSayingWhy) {
  const auto one = [](const std::string& entry) { return "{\"t\":" + entry + "}"; };
  const std::string good = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  const struct {
    std::string bytes, message;
  } kCases[] = {
      {"", "shorter than"},
      {"1234567", "shorter than"},
      {std::string(8, '\xff'), "limit is 100 MB"},
      {Raw("").replace(0, 1, "\x10"), "cut short inside the header"},
      {Raw(""), "does not start with {"},
      {Raw("[]"), "does not start with {"},
      {Raw(" {}"), "does not start with {"},
      {Raw("{"), "not JSON"},
      {Raw("{\"\xff\":1}"), "not JSON"},
      {Raw("{}", "x"), "unused bytes after"},
      {Raw(one("1"), ""), "not an object"},
      {Raw(one(R"({"shape":[1],"data_offsets":[0,4]})"), "abcd"), "dtype is missing"},
      {Raw(one(R"({"dtype":"F31","shape":[1],"data_offsets":[0,4]})"), "abcd"), "unknown dtype"},
      {Raw(one(R"({"dtype":"F32","data_offsets":[0,4]})"), "abcd"), "shape is missing"},
      {Raw(one(R"({"dtype":"F32","shape":4,"data_offsets":[0,4]})"), "abcd"), "not an array"},
      {Raw(one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})"), "abcd"), "not a size"},
      {Raw(one(R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})"), "abcd"), "not a size"},
      {Raw(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})"), "abcd"), "pair of sizes"},
      {Raw(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,-4]})"), "abcd"), "pair of sizes"},
      {Raw(one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})"), "abcd"), "lie outside"},
      {Raw(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})"), "abcd"), "lie outside"},
      {Raw(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})"), "abcd"), "shape needs 8"},
      {Raw(one(R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]})")),
       "too large"},
      {Raw(one(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]})"), "abcd"),
       "too large"},
      {Raw("{\"t\":" + good + ",\"t\":" + good + "}", "abcd"), "twice"},
      {Raw("{\"t\":" + good + ",\"u\":" + good + "}", "abcd"), "overlaps"},
      {Raw(one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"), "abcdefgh"), "unused bytes"},
      {Raw(R"({"__metadata__":[]})"), "__metadata__ is not an object"},
      {Raw(R"({"__metadata__":{"a":1}})"), "is not a string"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(Parse(c.bytes), Fails(StatusCode::kInvalidArgument, c.message))
        << c.bytes.substr(8);
  }
}

TEST(SafetensorsTest, RefusesToWriteWhatCouldNotBeRead) {
  EXPECT_THAT(Serialize({{"t", "F32", {2}, "abcd"}}),
              Fails(StatusCode::kInvalidArgument, "needs 8"));
  EXPECT_THAT(Serialize({{"t", "F32", {-1}, ""}}), Fails(StatusCode::kInvalidArgument, "shape"));
  EXPECT_THAT(Serialize({{"t", "F33", {1}, "abcd"}}),
              Fails(StatusCode::kInvalidArgument, "unknown dtype"));
  EXPECT_THAT(Serialize({{"", "F32", {1}, "abcd"}}), Fails(StatusCode::kInvalidArgument, "name"));
  EXPECT_THAT(Serialize({{"__metadata__", "F32", {1}, "abcd"}}),
              Fails(StatusCode::kInvalidArgument, "name"));
  EXPECT_THAT(Serialize({{"t", "F32", {1}, "abcd"}, {"t", "F32", {1}, "abcd"}}),
              Fails(StatusCode::kInvalidArgument, "twice"));
  EXPECT_THAT(Serialize({{"\xff", "F32", {1}, "abcd"}}),
              Fails(StatusCode::kInvalidArgument, "UTF-8"));
}

class DamagedFileTest : public testing::Test {
 protected:
  const std::string data_ = Bytes(64);
  const std::string good_ =
      Serialize({{"layer.0.weight", "F32", {4, 3}, std::string_view(data_).substr(0, 48)},
                 {"layer.0.bias", "F32", {4}, std::string_view(data_).substr(48)},
                 {"mask", "U8", {5}, std::string_view(data_).substr(0, 5)}},
                {{"step", "17"}})
          .value();
};

TEST_F(DamagedFileTest, NoTruncationParses) {
  for (size_t size = 0; size < good_.size(); ++size) {
    // A copy on the heap of just this size, so that a sanitizer sees any byte read past it.
    const std::string cut(good_, 0, size);
    EXPECT_THAT(Parse(cut), Fails(StatusCode::kInvalidArgument, "safetensors")) << size;
  }
}

TEST_F(DamagedFileTest, NoDamageCrashesAndWhatParsesIsConsistent) {
  std::mt19937_64 random(20260101);
  int parsed = 0;
  for (int i = 0; i < 8000; ++i) {
    std::string bytes = good_;
    for (uint64_t flips = 1 + random() % 4; flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    const auto file = Parse(bytes);
    if (!file.ok()) {
      EXPECT_EQ(file.status().code(), StatusCode::kInvalidArgument);
      continue;
    }
    ++parsed;
    for (const TensorView& t : file->tensors) {
      size_t size = DtypeSize(t.dtype);
      for (const int64_t dim : t.shape) size *= static_cast<size_t>(dim);
      ASSERT_EQ(t.bytes.size(), size);
      ASSERT_GE(t.bytes.data(), bytes.data());
      ASSERT_LE(t.bytes.data() + size, bytes.data() + bytes.size());
    }
  }
  EXPECT_GT(parsed, 100);  // damage to the data alone still parses
}

TEST_F(DamagedFileTest, RandomBytesNeverCrash) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 4000; ++i) {
    std::string header(random() % 200, '\0');
    constexpr char kAlphabet[] = "{}[]\":,0123456789.-eE \\utdshapeF32__metadata__data_offsets";
    for (char& c : header) c = kAlphabet[random() % (sizeof(kAlphabet) - 1)];
    if (!header.empty()) header[0] = '{';
    EXPECT_FALSE(Parse(Raw(header, "x")).ok());
  }
}

TEST_F(DamagedFileTest, DeepNestingIsRefusedWithoutOverflowingTheStack) {
  const std::string deep =
      "{\"a\":" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}";
  const Status status = Parse(Raw(deep)).status();
  EXPECT_EQ(status.message(), "safetensors: the header is nested deeper than 8 levels");
}

TEST(WeightsDigestTest, DependsOnEveryPartAndOnNothingElse) {
  const TensorView a{"a", "F32", {2}, "abcdefgh"}, b{"b", "F32", {1}, "abcd"};
  const std::string digest = WeightsDigest({a, b});
  EXPECT_EQ(digest, WeightsDigest({b, a}));
  TensorView other = a;
  other.name = "c";
  EXPECT_NE(digest, WeightsDigest({other, b}));
  other = a, other.dtype = "I32";
  EXPECT_NE(digest, WeightsDigest({other, b}));
  other = a, other.shape = {2, 1};
  EXPECT_NE(digest, WeightsDigest({other, b}));
  other = a, other.bytes = "abcdefgX";
  EXPECT_NE(digest, WeightsDigest({other, b}));
  EXPECT_NE(digest, WeightsDigest({a}));
  // Written out by hand, so that the digest of a model never changes by accident.
  const std::string bytes = std::string("b\0F32\0", 6) + std::string("\1\0\0\0\0\0\0\0", 8) +
                            std::string("\1\0\0\0\0\0\0\0", 8) +
                            std::string("\4\0\0\0\0\0\0\0", 8) + "abcd";
  EXPECT_EQ(WeightsDigest({b}), Sha256Hex(bytes));
}

}  // namespace
}  // namespace lepton::safetensors
