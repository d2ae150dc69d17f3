#include "tests/support/forked_job.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "actors/schedule/generators.h"
#include "actors/schedule/simulator.h"

namespace troupe::testing {
namespace {

constexpr int kSteps = 2;
constexpr int64_t kCostNs = 200'000;

ForkedJobOptions SmallJob(const std::string& name) {
  auto train = Generate({.name = name, .num_ranks = 2, .num_microbatches = 4});
  CHECK(train.ok(), "{}", train.error().message);
  const ActionTimes times(*train, CostModel::Uniform(*train, {kCostNs, kCostNs, kCostNs}));
  return {.train = *train, .steps = std::vector(kSteps, times), .message_bytes = 4096};
}

class ForkedJobTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ForkedJobTest, EveryRankRunsItsListInEveryStep) {
  const ForkedJobOptions options = SmallJob(GetParam());
  const auto steps = RunForkedJob(options);
  ASSERT_TRUE(steps.ok()) << steps.error().message;
  ASSERT_EQ(steps->size(), size_t{kSteps});
  for (const Timeline& step : *steps) {
    EXPECT_EQ(step.num_ranks, 2);
    std::map<PipelineRank, std::vector<Bar>> rows;
    for (const Bar& bar : step.bars) rows[bar.rank].push_back(bar);
    for (auto& [rank, row] : rows) {
      std::ranges::sort(row, {}, &Bar::start_ns);
      std::vector<Action> ran;
      for (const Bar& bar : row) ran.push_back(bar.action);
      EXPECT_EQ(ran, options.train.ActionsOf(rank));
    }
  }
}

// By one clock: nothing starts before its input is made, and everything takes at least its cost.
TEST_P(ForkedJobTest, TimesOfAllRanksAreOfOneClock) {
  const ForkedJobOptions options = SmallJob(GetParam());
  const auto steps = RunForkedJob(options);
  ASSERT_TRUE(steps.ok()) << steps.error().message;
  for (const Timeline& step : *steps) {
    std::map<std::tuple<StageId, MicrobatchId, InputKind>, int64_t> made_ns;
    for (const Bar& bar : step.bars) {
      EXPECT_GE(bar.end_ns - bar.start_ns, options.steps.front().Ns(bar.action));
      if (const auto output = OutputOf(options.train, bar.action)) {
        made_ns[{output->to_stage, output->microbatch, output->kind}] = bar.end_ns;
      }
    }
    for (const Bar& bar : step.bars) {
      for (const Transfer& input : InputsOf(options.train, bar.action)) {
        EXPECT_GT(bar.start_ns, made_ns.at({input.to_stage, input.microbatch, input.kind}));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, ForkedJobTest, ::testing::Values("1f1b", "zb-v"));

TEST(ForkedJobTest, AJobThatTakesTooLongIsEndedWithASentence) {
  ForkedJobOptions options = SmallJob("1f1b");
  options.steps.assign(
      kSteps,
      ActionTimes(options.train, CostModel::Uniform(options.train, {60'000'000'000, 0, 0})));
  options.deadline_ms = 300;
  const auto steps = RunForkedJob(options);
  ASSERT_FALSE(steps.ok());
  EXPECT_EQ(steps.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(steps.error().message, "the job did not end within 300 ms");
}

TEST(ForkedJobTest, StagesThatExchangeGradientsAreRefused) {
  const auto steps = RunForkedJob(SmallJob("dualpipe"));
  ASSERT_FALSE(steps.ok());
  EXPECT_EQ(steps.error().code, ErrorCode::kInvalidSpec);
}

}  // namespace
}  // namespace troupe::testing
