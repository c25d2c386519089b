// Tables of algorithms: what is refused, what they choose, and that only one that all ranks have
// counts.
#include "collectives/tuning_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "collectives/backends/mesh_communicator.h"
#include "collectives/backends/native_backend.h"
#include "collectives/tune.h"
#include "tests/collectives/gang.h"

namespace lepton::collectives {
namespace {

using ::testing::HasSubstr;

std::string Text(const std::string& rules) {
  return "lepton-collectives-table 1\nhost " + TuningTable::ThisHost() + "\n" + rules;
}

TEST(TuningTable, ChoosesByTransportRanksAndBytes) {
  const auto table =
      TuningTable::Parse(Text("shm 2 8192 shared_one_shot\nshm 2 max shared_pair\n"
                              "shm 4 max shared_sliced\ntcp 2 64 tree\n"
                              "tcp 2 max owner\n"));
  ASSERT_TRUE(table.ok()) << table.status().ToString();
  EXPECT_EQ(table->AlgorithmFor("shm", 2, 8), "shared_one_shot");
  EXPECT_EQ(table->AlgorithmFor("shm", 2, 8192), "shared_one_shot");
  EXPECT_EQ(table->AlgorithmFor("shm", 2, 8193), "shared_pair");
  EXPECT_EQ(table->AlgorithmFor("shm", 3, 8), "shared_one_shot") << "the nearest smaller number";
  EXPECT_EQ(table->AlgorithmFor("shm", 9, 8), "shared_sliced");
  EXPECT_EQ(table->AlgorithmFor("tcp", 2, 65), "owner");
  EXPECT_EQ(TuningTable().AlgorithmFor("tcp", 2, 65), "");
  const auto again = TuningTable::Parse(table->ToText());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->digest(), table->digest());
  EXPECT_NE(again->digest(), 0u);
  EXPECT_EQ(TuningTable().digest(), 0u);
}

TEST(TuningTable, RefusesWhatItDoesNotUnderstandAndSaysWhy) {
  const std::pair<std::string, const char*> bad[] = {
      {"", "line 1"},
      {"lepton-collectives-table 2\nhost x\n", "another version"},
      {"lepton-collectives-table 1\nshm 2 max tree\n", "does not name the host"},
      {"lepton-collectives-table 1\nhost Abacus, 3 cores\n", "measured on \"Abacus, 3 cores\""},
      {Text("shm 2 max quantum\n"), "line 3: this version has no all-reduce 'quantum'"},
      {Text("shm 2 max binomial\n"), "no all-reduce 'binomial'"},
      {Text("pigeon 2 max tree\n"), "'pigeon' is not shm or tcp"},
      {Text("tcp 1 max tree\n"), "fewer than 2"},
      {Text("tcp 2 many tree\n"), "'many' is neither"},
      {Text("tcp 2 max\n"), "not \"transport"},
      {Text("tcp 2 max tree owner\n"), "not \"transport"},
      {Text("tcp 2 64 tree\ntcp 2 64 owner\n"), "do not ascend"},
      {Text("tcp 2 64 tree\ntcp 4 max owner\n"), "tcp 2 do not end with max"},
  };
  for (const auto& [text, says] : bad) {
    const auto table = TuningTable::Parse(text);
    ASSERT_FALSE(table.ok()) << text;
    EXPECT_EQ(table.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(table.status().message(), HasSubstr(says));
  }
}

std::shared_ptr<const TuningTable> Parsed(const std::string& rules) {
  return std::make_shared<TuningTable>(TuningTable::Parse(Text(rules)).value());
}

// Ranks with different tables would wait for each other for ever if each followed its own.
TEST(TuningTable, CountsOnlyWhenAllRanksHaveIt) {
  const auto tree = Parsed("tcp 2 16 tree\ntcp 2 max owner\n"), owner = Parsed("tcp 2 max owner\n");
  for (const auto& other : {tree, owner, std::shared_ptr<const TuningTable>()}) {
    // Which no table would have three ranks do with so little.
    const std::string_view usual = "exchange", chosen = other == tree ? "tree" : usual;
    const NativeBackend first({TransportChoice::kTcp, "", tree});
    const NativeBackend second({TransportChoice::kTcp, "", other});
    std::vector<std::unique_ptr<Endpoint>> endpoints;
    std::vector<std::string> members;
    for (int rank = 0; rank < 3; ++rank) {
      endpoints.push_back((rank == 0 ? first : second).Listen("127.0.0.1").value());
      members.push_back(endpoints.back()->address());
    }
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 3; ++rank) {
      threads.emplace_back([&, rank] {
        auto gang = (rank == 0 ? first : second)
                        .Join(std::move(endpoints[rank]), {rank, 3, 1, "0123456789abcdef", members},
                              {}, Deadline::In(std::chrono::seconds(20)));
        ASSERT_TRUE(gang.ok()) << gang.status().ToString();
        const auto algorithm_of = [&](size_t count) {
          return static_cast<MeshCommunicator&>(**gang).AlgorithmOf(
              {.operation = Operation::kAllReduce, .count = count, .type = DataType::kFloat32});
        };
        EXPECT_EQ(algorithm_of(4), chosen);
        EXPECT_EQ(algorithm_of(5), other == tree ? "owner" : usual)
            << "beyond the table's 16 bytes";
        std::vector<float> data(100'000, static_cast<float>(rank));
        const Status status = (*gang)->AllReduce(data.data(), data.data(), data.size(),
                                                 DataType::kFloat32, ReduceOp::kSum);
        EXPECT_TRUE(status.ok()) << status.ToString();
        EXPECT_EQ(data, std::vector<float>(data.size(), 3.0f));
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

// Its figures are of one host's ranks, over loopback.
TEST(TuningTable, SaysNothingOfRanksOnSeveralHosts) {
  const auto table = Parsed("tcp 2 16 tree\ntcp 2 max owner\n");
  for (const bool several : {false, true}) {
    const NativeBackend here({.transport = TransportChoice::kTcp, .table = table, .host = "here"});
    const NativeBackend there(
        {.transport = TransportChoice::kTcp, .table = table, .host = several ? "there" : "here"});
    const NativeBackend other(
        {.transport = TransportChoice::kTcp, .table = table, .host = several ? "other" : "here"});
    GangOptions options{.size = 3, .ranks_as = RanksAs::kThreads};
    options.backends = {&here, &there, &other};
    const auto used = RunGang(options, [](Communicator& gang) {
      return std::string(static_cast<MeshCommunicator&>(gang).AlgorithmOf(
          {.operation = Operation::kAllReduce, .count = 4, .type = DataType::kFloat32}));
    });
    EXPECT_EQ(used, std::vector<std::string>(3, several ? "exchange" : "tree"));
  }
}

TEST(TuningTable, ABadOneThatTheEnvironmentNamesStopsARankBeforeItJoins) {
  const auto path = std::filesystem::temp_directory_path() / "lepton-bad.table";
  std::ofstream(path) << "lepton-collectives-table 0\n";
  setenv("LEPTON_COLLECTIVES_TABLE", path.c_str(), 1);
  const NativeBackend backend;
  const auto endpoint = backend.Listen("127.0.0.1");
  unsetenv("LEPTON_COLLECTIVES_TABLE");
  std::filesystem::remove(path);
  ASSERT_FALSE(endpoint.ok());
  EXPECT_THAT(endpoint.status().message(), HasSubstr("lepton-bad.table: line 1"));
  EXPECT_THAT(endpoint.status().message(), HasSubstr("lepton doctor --tune-collectives"));
}

#ifndef LEPTON_TSAN
TEST(Tune, MeasuresEveryAlgorithmAndMakesATableThatIsAccepted) {
  TuneOptions options;
  options.ranks = {2, 3};
  options.bytes = {64, 100'000};
  options.each = std::chrono::milliseconds(1);
  std::vector<std::string> lines;
  options.progress = [&](const std::string& line) { lines.push_back(line); };
  const auto table = Tune(options);
  ASSERT_TRUE(table.ok()) << table.status().ToString();
  EXPECT_EQ(lines.size(), 2u * (3 + 5)) << "shared and links, twice";
  const auto again = TuningTable::Parse(table->ToText());
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  for (const int ranks : {2, 3}) {
    EXPECT_EQ(table->AlgorithmFor("shm", ranks, 1).substr(0, 6), "shared");
    EXPECT_NE(table->AlgorithmFor("tcp", ranks, 1 << 30), "");
  }
}
#endif

}  // namespace
}  // namespace lepton::collectives
