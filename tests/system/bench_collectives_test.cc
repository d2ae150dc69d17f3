// `troupe bench collectives` with its real workers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/system/troupe_test.h"

namespace troupe {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kTroupe = TROUPE_BINARY_DIR "/bin/troupe ";

testing::ShellResult Bench(const std::string& flags) {
  return testing::Shell(kTroupe + "bench collectives " + flags + " 2>&1");
}

TEST(BenchCollectives, EveryOperationIsRight) {
  for (const std::string operation :
       {"all-reduce", "reduce-scatter", "all-gather", "broadcast", "reduce", "all-to-all"}) {
    const bool rings = operation == "all-reduce" || operation == "reduce-scatter";
    for (const std::string how :
         {"--buffers shared --dtype float32", "--buffers private --dtype bfloat16 --bind none",
          rings ? "--dtype float16 --reduction ring" : "--dtype float16"}) {
      const auto run = Bench(
          "--workers 3 --min-bytes 96 --max-bytes 1M --factor 64 --iterations 3 --warmup 1 "
          "--operation " +
          operation + " " + how);
      EXPECT_EQ(run.exit_code, 0) << run.output;
      EXPECT_THAT(run.output, HasSubstr("# Out of bounds values : 0 OK\n"));
      EXPECT_THAT(run.output, ContainsRegex("\n +393216 +[0-9]+ +[a-z]+"));
    }
    for (const std::string dtype : {"float64", "int32", "int64"}) {
      const auto run =
          Bench("--min-bytes 96 --max-bytes 6K --factor 64 --iterations 2 --warmup 1 " +
                ("--operation " + operation) + " --dtype " + dtype);
      EXPECT_EQ(run.exit_code, 0) << run.output;
      EXPECT_THAT(run.output, HasSubstr("# Out of bounds values : 0 OK\n"));
    }
  }
}

TEST(BenchCollectives, ProgramsReadJson) {
  const auto run = testing::Shell(kTroupe +
                                  "bench collectives --operation all-gather --min-bytes 4K "
                                  "--max-bytes 64K --iterations 2 -o json 2>/dev/null");
  ASSERT_EQ(run.exit_code, 0);
  const auto json = nlohmann::json::parse(run.output);
  EXPECT_EQ(json["workers"], 2);
  ASSERT_EQ(json["rows"].size(), 3u);
  EXPECT_EQ(json["rows"][2]["bytes"], 65'536);
  for (const char* form : {"in_place", "out_of_place"}) {
    EXPECT_GT(json["rows"][2][form]["busbw"], 0) << form;
    EXPECT_EQ(json["rows"][2][form]["wrong"], 0) << form;
  }
}

TEST(BenchCollectives, WhatIsNoMeasurementIsAUsageError) {
  for (const std::string flags :
       {"--operation gather", "--workers 1", "--dtype float8", "--max-bytes 100", "--min-bytes 2",
        "--min-bytes x", "--factor 1", "--iterations 0", "--buffers lent", "-o jsonl", "--many",
        "--operation reduce --reduction ring"}) {
    const auto run = Bench(flags);
    EXPECT_EQ(run.exit_code, 2) << flags << "\n" << run.output;
    EXPECT_THAT(run.output, Not(HasSubstr("#"))) << "nothing was measured";
  }
}

TEST(BenchCollectives, MoreThanTheHostHoldsIsInfeasible) {
  const auto run = Bench("--workers 64 --max-bytes 1T");
  EXPECT_EQ(run.exit_code, 3) << run.output;
  EXPECT_THAT(run.output, HasSubstr("--max-bytes 1099511627776: 64 workers hold"));
}

// Endless, until `then` ends $run or one of its $workers.
testing::ShellResult Endless(const testing::TemporaryFolder& folder, const std::string& then) {
  return testing::Shell("cd " + folder.path() + "\n" + kTroupe +
                        "bench collectives --workers 3 --max-bytes 1M --iterations 1000000 "
                        "--min-bytes 1K --factor 1000 >out 2>err & run=$!\n" +
                        testing::AwaitLine("busbw", "out", "$run") +
                        "workers=$(pgrep -P $run -f collectives-bench)\n" + then +
                        "\nwait $run; echo code $?; cat err\n" + testing::AwaitEnd("$workers"));
}

TEST(BenchCollectives, AKilledWorkerEndsItWithASentence) {
  const testing::TemporaryFolder folder;
  const auto run = Endless(folder, "kill -9 $(echo $workers | cut -d' ' -f2)");
  EXPECT_THAT(run.output,
              ContainsRegex("^code 5\nworker 1 was killed by signal 9 .SIGKILL.[^\n]*\n$"));
}

TEST(BenchCollectives, ASignalEndsItAndItsWorkers) {
  const testing::TemporaryFolder folder;
  const auto run = Endless(folder, "kill -INT $run");
  EXPECT_EQ(run.output, "code 130\nstopped by SIGINT\n");
}

TEST(BenchCollectives, WithoutTheWorkersProgramItSaysSo) {
  const auto run =
      testing::Shell("TROUPE_RANK=/nowhere/troupe-rank " + kTroupe + "bench collectives 2>&1");
  EXPECT_EQ(run.exit_code, ExitCode(ErrorCode::kNotFound));
  EXPECT_THAT(run.output, HasSubstr("/nowhere/troupe-rank cannot be run"));
}

TEST(BenchCollectives, TheShellCompletesIt) {
  const auto script = testing::Shell(kTroupe + "completion bash");
  EXPECT_THAT(script.output, HasSubstr("bench) verbs='collectives' names='' outputs='text json'"));
  EXPECT_THAT(script.output, HasSubstr("--operation --dtype --min-bytes"));
}

}  // namespace
}  // namespace troupe
