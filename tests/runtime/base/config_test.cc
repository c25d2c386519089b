#include "runtime/base/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "runtime/base/file.h"

namespace lepton {
namespace {

using ::testing::HasSubstr;

TEST(Config, FlagsBeatTheEnvironmentBeatsTheFile) {
  TempFolder folder;
  const auto path = folder.path() / "config.yaml";
  ASSERT_TRUE(WriteFileAtomic(path, "http: {port: 1, address: a}\nlease: 3s\n").ok());
  Config config({"http.port", "http.address", "lease"});
  ASSERT_TRUE(config.LoadFile(path).ok());
  EXPECT_EQ(*config.GetInt("http.port", 0, 0, 9), 1);
  ::setenv("LEPTON_HTTP_PORT", "2", 1);
  config.LoadEnvironment();
  ::unsetenv("LEPTON_HTTP_PORT");
  EXPECT_EQ(*config.GetInt("http.port", 0, 0, 9), 2);
  config.Set("http.port", "3");
  EXPECT_EQ(*config.GetInt("http.port", 0, 0, 9), 3);
  EXPECT_EQ(config.GetOr("http.address", "b"), "a");
  EXPECT_EQ(*config.GetDuration("lease", Duration::zero()), std::chrono::seconds(3));
}

TEST(Config, ErrorsNameTheSource) {
  TempFolder folder;
  const auto path = folder.path() / "config.yaml";
  ASSERT_TRUE(WriteFileAtomic(path, "a: 1\nhttp: {prot: 1}\n").ok());
  Config config({"a", "http.port"});
  EXPECT_THAT(config.LoadFile(path).message(),
              HasSubstr("config.yaml:2: unknown setting 'http.prot'"));
  EXPECT_EQ(config.LoadFile(folder.path() / "none").code(), StatusCode::kNotFound);
  config.Set("http.port", "many");
  EXPECT_THAT(
      config.GetInt("http.port", 0, 0, 65535).status().message(),
      HasSubstr("--http-port: http.port is 'many', but must be a whole number from 0 to 65535"));
  config.Set("a", "perhaps");
  EXPECT_FALSE(config.GetBool("a", false).ok());
}

TEST(Durations, ParseAndFormat) {
  EXPECT_EQ(*ParseDuration("250ms"), std::chrono::milliseconds(250));
  EXPECT_EQ(*ParseDuration("1.5s"), std::chrono::milliseconds(1500));
  EXPECT_EQ(*ParseDuration("1h30m"), std::chrono::minutes(90));
  EXPECT_EQ(*ParseDuration("0"), Duration::zero());
  EXPECT_EQ(FormatDuration(std::chrono::minutes(90)), "1h30m");
  EXPECT_EQ(FormatDuration(std::chrono::milliseconds(1500)), "1s500ms");
  EXPECT_EQ(FormatDuration(Duration::zero()), "0s");
  EXPECT_EQ(FormatDuration(std::chrono::microseconds(1500)), "1ms500us");
  for (const int64_t ns : {1L, 500L, 1'050L, 500'000L, 1'000'001L, 86'400'000'000'500L}) {
    const auto back = ParseDuration(FormatDuration(Duration(ns)));
    ASSERT_TRUE(back.ok()) << FormatDuration(Duration(ns));
    EXPECT_EQ(back->count(), ns) << FormatDuration(Duration(ns));
  }
  for (const char* bad : {"", "5", "s", "-1s", "1w", "1e300s", "nans", "1s 2"}) {
    EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
  }
}

TEST(Bytes, Parse) {
  EXPECT_EQ(*ParseBytes("512"), 512);
  EXPECT_EQ(*ParseBytes("64KiB"), 65536);
  EXPECT_EQ(*ParseBytes("10MB"), 10'000'000);
  for (const char* bad : {"", "x", "-1", "1 KiB", "1QB", "1e30TB"}) {
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
  }
}

TEST(Bytes, FormatIsShortAndExact) {
  EXPECT_EQ(FormatBytes(0), "0");
  EXPECT_EQ(FormatBytes(1000), "1000");
  EXPECT_EQ(FormatBytes(65536), "64KiB");
  EXPECT_EQ(FormatBytes(uint64_t{4} << 30), "4GiB");
  EXPECT_EQ(FormatBytes((uint64_t{4} << 30) + 1), "4294967297");
}

TEST(Bytes, ASettingNamesItsSource) {
  Config config({"limit"});
  EXPECT_EQ(config.GetBytes("limit", 7).value(), 7u);
  config.Set("limit", "2KiB");
  EXPECT_EQ(config.GetBytes("limit", 7).value(), 2048u);
  config.Set("limit", "two");
  const auto bad = config.GetBytes("limit", 7);
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.status().message().find("--limit: limit: 'two'"), std::string::npos)
      << bad.status().message();
}

}  // namespace
}  // namespace lepton
