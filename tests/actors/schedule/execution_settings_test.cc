#include "actors/schedule/execution_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/schedule/collective_lists.h"
#include "actors/schedule/generators.h"

namespace troupe {
namespace {

using ::testing::StartsWith;

Schedule Lists(const char* name) {
  return *Generate({.name = name, .num_ranks = 4, .num_microbatches = 8});
}

std::string Refusal(const char* name, const ExecutionSettings& settings) {
  const auto executable = MakeExecutable(Lists(name), settings);
  EXPECT_FALSE(executable.ok());
  return executable.ok() ? "" : executable.error().message;
}

int NumActions(const Schedule& schedule) {
  int count = 0;
  for (const auto& actions : schedule.ranks) count += static_cast<int>(actions.size());
  return count;
}

TEST(ExecutionSettings, ListsRunStrictAndWholeByThemselves) {
  const auto executable = MakeExecutable(Lists("zb-v"), {});
  ASSERT_TRUE(executable.ok()) << executable.error().message;
  EXPECT_EQ(executable->policy, ExecutionPolicy{});
  EXPECT_EQ(executable->schedule.ranks, Lists("zb-v").ranks);
  EXPECT_EQ(executable->report.messages_per_microbatch, 12);
}

TEST(ExecutionSettings, DynamicRunsFreeWithinOneAndAHalfTimesTheRanks) {
  const auto executable = MakeExecutable(Lists("dynamic"), {});
  ASSERT_TRUE(executable.ok()) << executable.error().message;
  EXPECT_EQ(executable->policy.mode, ExecutorMode::kFreeRun);
  EXPECT_EQ(executable->policy.activation_limit, 6);
  EXPECT_EQ(NumActions(executable->schedule), 4 * 2 * 8 * (1 + 1 + 4)) << "weights in four parts";
  EXPECT_EQ(*ExecutorModeOf(Lists("dynamic"), {.executor = "guided"}), ExecutorMode::kGuided);
}

TEST(ExecutionSettings, AreApplied) {
  const auto executable = MakeExecutable(Lists("1f1b"), {.executor = "guided",
                                                         .activation_slack = 2.5,
                                                         .weight_parts = 3,
                                                         .pairs = "fused",
                                                         .backward_output = "input"});
  ASSERT_TRUE(executable.ok()) << executable.error().message;
  EXPECT_EQ(executable->policy.mode, ExecutorMode::kGuided);
  EXPECT_EQ(executable->policy.activation_slack, 2.5);
  EXPECT_EQ(executable->policy.pairs, PairMode::kFused);
  EXPECT_EQ(NumActions(executable->schedule), 4 * 8 * (1 + 1 + 3));
}

TEST(ExecutionSettings, RefusalsSpellTheSettingAsItWasGiven) {
  const ExecutionSettings slack{.activation_slack = 2};
  EXPECT_EQ(
      Refusal("1f1b", slack),
      "parallelism.activation_slack = 2: it is for parallelism.executor = guided, not strict");
  ExecutionSettings flag = slack;
  flag.style = SettingStyle::kFlag;
  EXPECT_EQ(Refusal("1f1b", flag), "--activation-slack 2: it is for --executor guided, not strict");
  EXPECT_EQ(Refusal("1f1b", {.activation_limit = 3, .style = SettingStyle::kFlag}),
            "--memory-limit 3: it is for --executor free-run, not strict");
}

TEST(ExecutionSettings, RefuseWhatCannotBe) {
  EXPECT_EQ(Refusal("1f1b", {.executor = "loose"}),
            "parallelism.executor = loose: use strict, guided or free-run");
  EXPECT_EQ(Refusal("1f1b", {.pairs = "both"}), "parallelism.pairs = both: use eager or fused");
  EXPECT_EQ(Refusal("1f1b", {.weight_parts = 0}), "parallelism.weight_parts = 0: use 1 to 64");
  EXPECT_THAT(Refusal("1f1b", {.backward_output = "start"}),
              StartsWith("parallelism.backward_output = start: use end"));
  EXPECT_THAT(Refusal("1f1b", {.activation_slack = -1}),
              StartsWith("parallelism.activation_slack = -1: use 0"));
  EXPECT_THAT(Refusal("dynamic", {.activation_limit = 0.5}),
              StartsWith("parallelism.activation_limit = 0.5: a rank must hold 1"));
}

TEST(ExecutionSettings, FreeRunNeedsRoomForEachDirection) {
  EXPECT_EQ(Refusal("dualpipe", {.executor = "free-run", .activation_limit = 1.5}),
            "parallelism.activation_limit = 1.5: a rank must hold a microbatch of each direction: "
            "use 2 or more");
  EXPECT_TRUE(
      MakeExecutable(Lists("dualpipe"), {.executor = "free-run", .activation_limit = 2}).ok());
  // Two chunks of each direction on either rank.
  Schedule wide;
  wide.name = "wide";
  wide.num_ranks = 2;
  wide.num_stages = 8;
  wide.num_microbatches = 2;
  wide.num_directions = 2;
  for (const int rank : {0, 1, 0, 1, 1, 0, 1, 0}) wide.placement.push_back(PipelineRank(rank));
  wide.ranks.resize(2);
  const auto refused = MakeExecutable(wide, {.executor = "free-run"});
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(
      refused.error().message,
      StartsWith("parallelism.executor = free-run: in two directions it needs a schedule of "
                 "one chunk a rank and direction"));
}

TEST(ExecutionSettings, NameTheListsThatCannotRun) {
  Schedule lists = Lists("1f1b");
  std::swap(lists.ranks[1][0], lists.ranks[1].back());
  const auto broken = MakeExecutable(lists, {.lists_name = "mine.csv"});
  ASSERT_FALSE(broken.ok());
  EXPECT_THAT(broken.error().message,
              StartsWith("mine.csv: row 2, cell 1 (1B7): it stands before"));
}

TEST(ExecutionSettings, CollectivesNeedAListThatPassesFollow) {
  const Schedule lists = *WithCollectives(Lists("zb-h1"), 1);
  EXPECT_TRUE(MakeExecutable(lists, {}).ok());
  EXPECT_TRUE(MakeExecutable(lists, {.executor = "guided"}).ok()) << "weight gradients read none";
  const auto refusal = [&](const ExecutionSettings& settings) {
    const auto executable = MakeExecutable(lists, settings);
    return executable.ok() ? "" : executable.error().message;
  };
  EXPECT_EQ(
      refusal({.executor = "free-run"}),
      "parallelism.executor = free-run: row 1, cell 1 (0UNSHARD): it has a place in a list, and "
      "free-run follows none; use strict or guided");
  EXPECT_EQ(
      refusal({.executor = "guided", .activation_slack = 1}),
      "parallelism.activation_slack = 1: row 1, cell 1 (0UNSHARD): a pass that jumps the queue "
      "leaves the place where the list gathers its parameters; use 0");
}

TEST(ExecutionSettings, DynamicModesNeedAscendingLists) {
  Schedule lists = Lists("gpipe");
  for (auto& actions : lists.ranks) std::swap(actions[8], actions[9]);
  ASSERT_TRUE(MakeExecutable(lists, {}).ok());
  const auto guided = MakeExecutable(lists, {.executor = "guided", .style = SettingStyle::kFlag});
  ASSERT_FALSE(guided.ok());
  EXPECT_EQ(guided.error().message,
            "--executor guided: schedule gpipe does not run every stage's microbatches in "
            "ascending order; use --executor strict");
}

}  // namespace
}  // namespace troupe
