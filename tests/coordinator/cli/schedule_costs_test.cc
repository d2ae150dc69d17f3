#include "coordinator/cli/schedule_costs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "actors/schedule/collective_lists.h"
#include "actors/schedule/generators.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

Schedule Named(const char* name, int p, int chunks = 0) {
  return *Generate(
      {.name = name, .num_ranks = p, .num_microbatches = 2 * p, .chunks_per_rank = chunks});
}

std::string Refusal(const CostOptions& options) {
  const auto costs = ReadUserCosts(options, SystemFiles());
  EXPECT_FALSE(costs.ok());
  return costs.ok() ? "" : costs.error().message;
}

std::vector<StageTimes> Times(const UserCosts& costs, const Schedule& schedule,
                              std::vector<std::string>* remarks = nullptr) {
  std::vector<std::string> unread;
  auto times = StageTimesOf(costs, schedule, remarks == nullptr ? unread : *remarks);
  EXPECT_TRUE(times.ok()) << times.error().message;
  return *std::move(times);
}

TEST(ScheduleCosts, AreOneEachUnlessGiven) {
  const auto costs = ReadUserCosts({.backward_weight = 0.5, .hop = 0.25}, SystemFiles());
  ASSERT_TRUE(costs.ok());
  EXPECT_EQ(costs->whole_share,
            (StageTimes{.forward = 1, .backward_input = 1, .backward_weight = 0.5}));
  EXPECT_EQ(costs->hop, 0.25);
  EXPECT_EQ(costs->pair_factor, 1);
  EXPECT_EQ(costs->unit, "");
  EXPECT_DOUBLE_EQ(ReadUserCosts({.pair = 2.1}, SystemFiles())->pair_factor, 0.7);
}

// Every chunk has its exact share in ticks, whatever the number of chunks.
TEST(ScheduleCosts, CountChunksExactly) {
  const auto costs = ReadUserCosts({.forward = 1.1, .backward_input = 0.7}, SystemFiles());
  for (const int chunks : {1, 2, 3, 7, 11, 16}) {
    const Schedule schedule = Named("looped-bfs", 2, chunks);
    const auto times = Times(*costs, schedule);
    const auto ticks = TicksPerUnit(TotalTime(times, *costs, schedule));
    ASSERT_TRUE(ticks.ok());
    const CostModel model = InTicks(times, *costs, *ticks);
    ASSERT_EQ(model.stages.size(), 2U * chunks);
    EXPECT_EQ(model.stages[0].forward_ns * chunks, std::llround(1.1 * *ticks)) << chunks;
    EXPECT_EQ(model.stages[0].backward_input_ns * chunks, std::llround(0.7 * *ticks));
    EXPECT_EQ(model.stages[0].backward_ns, -1);
  }
}

TEST(ScheduleCosts, TicksFollowTheSizeOfTheNumbers) {
  EXPECT_GE(*TicksPerUnit(1e-9) * 1e-9, 1e9);
  EXPECT_GE(*TicksPerUnit(1e9), 720'720);
  EXPECT_LE(*TicksPerUnit(1e9) * 1e9, 0x1p54);
  const auto too_much = TicksPerUnit(1e12);
  ASSERT_FALSE(too_much.ok());
  EXPECT_THAT(too_much.error().message, HasSubstr("give them in a larger unit"));
}

TEST(ScheduleCosts, AFilesStagesAreCutEvenly) {
  TemporaryFolder folder;
  const std::string path = folder.Write(
      "c.json", R"({"unit":"ms","link_latency":0.5,"stages":[{"forward":2,"backward":3},)"
                R"({"forward":4,"backward":5}]})");
  const auto costs = ReadUserCosts({.file = path}, SystemFiles());
  ASSERT_TRUE(costs.ok()) << costs.error().message;
  EXPECT_EQ(costs->unit, "ms");
  EXPECT_EQ(costs->hop, 0.5);
  std::vector<std::string> remarks;
  const auto whole = Times(*costs, Named("1f1b", 2), &remarks);
  EXPECT_EQ(whole[1].backward, 5);
  EXPECT_EQ(whole[1].backward_input, 2.5) << "for the lower bound";
  EXPECT_THAT(remarks, ElementsAre());
  const auto chunks = Times(*costs, Named("zb-v", 2), &remarks);
  ASSERT_EQ(chunks.size(), 4U);
  EXPECT_EQ(chunks[1].forward, 1);
  EXPECT_EQ(chunks[2].forward, 2);
  EXPECT_EQ(chunks[2].backward_weight, 1.25);
  const std::string cut = path + " has 2 stages, zb-v runs 4: each is cut into 2 equal ones";
  const std::string halved =
      path + " has whole backwards: half of each is taken for the input gradient";
  EXPECT_THAT(remarks, ElementsAre(cut, halved)) << "each once";
  const auto both_ways = Times(*costs, Named("dualpipe", 2));
  EXPECT_EQ(both_ways[0].forward, 2);
  EXPECT_EQ(both_ways[3].forward, 4) << "the other direction's last stage";
  std::vector<std::string> unread;
  const auto uneven = StageTimesOf(*costs, Named("1f1b", 3), unread);
  ASSERT_FALSE(uneven.ok());
  EXPECT_THAT(uneven.error().message, HasSubstr("has 2 stages, schedule 1f1b runs 3"));
}

TEST(ScheduleCosts, CollectivesCountInTheTotal) {
  const auto costs = ReadUserCosts({.unshard = 5, .reduce_grad = 7}, SystemFiles());
  ASSERT_TRUE(costs.ok());
  Schedule schedule = Named("1f1b", 2);
  const double without = TotalTime(Times(*costs, schedule), *costs, schedule);
  schedule = *WithCollectives(schedule, 1);
  EXPECT_EQ(TotalTime(Times(*costs, schedule), *costs, schedule), without + 2 * (5 + 7));
}

TEST(ScheduleCosts, ARunsFolderHoldsItsOwn) {
  TemporaryFolder folder;
  EXPECT_THAT(Refusal({.file = folder.path()}), HasSubstr("the folder has no costs.json"));
  folder.Write("costs.json", R"({"stages":[{"forward":2,"backward":3}]})");
  const auto costs = ReadUserCosts({.hop = 2, .file = folder.path()}, SystemFiles());
  ASSERT_TRUE(costs.ok()) << costs.error().message;
  EXPECT_EQ(costs->stages[0].backward, 3);
  EXPECT_EQ(costs->hop, 2) << "a flag is above the file";
}

TEST(ScheduleCosts, RefuseWhatCannotBe) {
  EXPECT_EQ(Refusal({.forward = -1}), "--cost-forward -1: use a time from 0 to 1e+12");
  EXPECT_THAT(Refusal({.hop = 1e13}), HasSubstr("--comm 10000000000000: use a time"));
  EXPECT_THAT(Refusal({.forward = 0, .backward_input = 0, .backward_weight = 0}),
              HasSubstr("are all 0"));
  EXPECT_EQ(Refusal({.unshard = -1}), "--cost-unshard -1: use a time from 0 to 1e+12");
  EXPECT_THAT(Refusal({.reduce_grad = 1, .file = "c.json"}), HasSubstr("--cost-reduce-grad"));
  EXPECT_EQ(Refusal({.pair = 0}), "--cost-pair 0: use a time above 0");
  EXPECT_THAT(Refusal({.forward = 1, .file = "c.json"}), HasSubstr("leave out --cost-forward"));
  EXPECT_THAT(Refusal({.file = "/nowhere.json"}), HasSubstr("/nowhere.json"));
}

}  // namespace
}  // namespace troupe
