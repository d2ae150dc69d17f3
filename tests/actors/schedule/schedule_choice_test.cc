#include "actors/schedule/schedule_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace troupe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// f, b, w of a rank's whole share in ticks, hops as given.
ChoiceOptions Options(int num_ranks, int num_microbatches, double limit, int64_t hop = 0) {
  ChoiceOptions options{
      .num_ranks = num_ranks, .num_microbatches = num_microbatches, .activation_limit = limit};
  options.costs = [hop](const Schedule& schedule) -> Result<CostModel> {
    return CostModel::Uniform(
        schedule, {.forward_ns = 1200, .backward_input_ns = 1200, .backward_weight_ns = 1200}, hop);
  };
  return options;
}

ScheduleChoice Choice(const ChoiceOptions& options) {
  auto choice = ChooseSchedule(options);
  CHECK(choice.ok(), "{}", choice.error().message);
  return *std::move(choice);
}

const ScheduleOrder* Find(const ScheduleChoice& choice, std::string_view name, ExecutorMode mode) {
  const auto found = std::ranges::find_if(choice.ranked, [&](const ScheduleOrder& order) {
    return order.spec.name == name && order.executable.policy.mode == mode;
  });
  return found == choice.ranked.end() ? nullptr : &*found;
}

TEST(ScheduleChoice, NothingAboveTheLimitIsTaken) {
  for (const double limit : {4.0, 8.0, 12.0, 16.0}) {
    const ScheduleChoice choice = Choice(Options(8, 32, limit, 120));
    for (const ScheduleOrder& order : choice.ranked) {
      EXPECT_LE(order.peak, limit + 1e-9) << Describe(order);
    }
  }
}

TEST(ScheduleChoice, TheFirstIsFasterThanEveryStaticOrderOfTheSameMemory) {
  const ScheduleChoice choice = Choice(Options(8, 32, 12, 120));
  const double first = choice.ranked.front().makespan_ns;
  for (const std::string_view name : {"1f1b", "zb-h1", "zb-v"}) {
    const ScheduleOrder* order = Find(choice, name, ExecutorMode::kStrict);
    ASSERT_NE(order, nullptr) << name;
    EXPECT_LE(first, order->makespan_ns * (1 + kWorthwhile)) << name;
  }
  EXPECT_LT(first, 0.95 * Find(choice, "1f1b", ExecutorMode::kStrict)->makespan_ns);
}

TEST(ScheduleChoice, MoreMemoryIsNeverSlower) {
  double before = 1e300;
  for (const double limit : {3.0, 4.0, 6.0, 9.0, 12.0}) {
    const double now = Choice(Options(6, 24, limit, 100)).ranked.front().makespan_ns;
    EXPECT_LE(now, before * (1 + kWorthwhile)) << limit;
    before = now;
  }
}

TEST(ScheduleChoice, TheLeanestIsNamedWhereNothingFits) {
  const auto choice = ChooseSchedule(Options(8, 32, 2));
  ASSERT_FALSE(choice.ok());
  EXPECT_EQ(choice.error().code, ErrorCode::kInfeasible);
  EXPECT_EQ(choice.error().message,
            "parallelism.activation_limit = 2: no schedule of 8 ranks holds so few microbatches; "
            "the leanest needs 4");
}

TEST(ScheduleChoice, OneRankNeedsNoOrder) {
  const ScheduleChoice choice = Choice(Options(1, 8, 2));
  EXPECT_EQ(Describe(choice.ranked.front()), "1f1b");
}

TEST(ScheduleChoice, AmongEqualsTheSimplestLeads) {
  // On one chunk a rank, weight gradients that cost next to nothing gain a thousandth.
  for (const int64_t weight_ns : {12, 1200}) {
    ChoiceOptions options = Options(2, 8, 2);
    options.costs = [weight_ns](const Schedule& schedule) -> Result<CostModel> {
      if (schedule.num_stages > 2) return MakeError(ErrorCode::kInfeasible, "two layers");
      return CostModel::Uniform(
          schedule,
          {.forward_ns = 1200, .backward_input_ns = 1200, .backward_weight_ns = weight_ns});
    };
    const ScheduleChoice choice = Choice(options);
    EXPECT_EQ(choice.ranked.front().spec.name == "1f1b", weight_ns == 12)
        << Describe(choice.ranked.front());
  }
}

TEST(ScheduleChoice, TheLimitIsNamedAlsoWhereSomeCutsAreRefused) {
  ChoiceOptions options = Options(4, 16, 1.5);
  options.costs = [costs = options.costs](const Schedule& schedule) -> Result<CostModel> {
    if (schedule.num_stages > 4) return MakeError(ErrorCode::kInfeasible, "four layers");
    return costs(schedule);
  };
  EXPECT_THAT(ChooseSchedule(options).error().message,
              HasSubstr("parallelism.activation_limit = 1.5: no schedule of 4 ranks"));
}

// Whatever the times, not only in the simulation.
TEST(ScheduleChoice, AListThatWeightGradientsLeaveCountsItsWholePeak) {
  for (const ScheduleOrder& order : Choice(Options(8, 32, 8, 120)).ranked) {
    if (order.executable.policy.mode != ExecutorMode::kGuided) continue;
    double listed = 0;
    for (const double peak : order.executable.report.peak_activations) {
      listed = std::max(listed, peak);
    }
    EXPECT_LE(listed + order.executable.policy.activation_slack, 8 + 1e-9) << Describe(order);
  }
}

TEST(ScheduleChoice, AModelThatCannotBeCutStaysOnOneChunk) {
  ChoiceOptions options = Options(4, 16, 6);
  options.costs = [costs = options.costs](const Schedule& schedule) -> Result<CostModel> {
    if (schedule.num_stages > 4) return MakeError(ErrorCode::kInfeasible, "four layers");
    return costs(schedule);
  };
  for (const ScheduleOrder& order : Choice(options).ranked) {
    EXPECT_EQ(order.spec.chunks_per_rank, 1) << Describe(order);
  }
  options.costs = [](const Schedule&) -> Result<CostModel> {
    return MakeError(ErrorCode::kInfeasible, "no layers");
  };
  EXPECT_EQ(ChooseSchedule(options).error().message, "no layers");
}

TEST(ScheduleChoice, CopiesOfTheWeightsOnlyWhereTheyAreAllowed) {
  ChoiceOptions options = Options(4, 16, 6);
  EXPECT_EQ(Find(Choice(options), "dualpipe", ExecutorMode::kStrict), nullptr);
  options.replicas = true;
  EXPECT_NE(Find(Choice(options), "dualpipe", ExecutorMode::kStrict), nullptr);
}

TEST(ScheduleChoice, TheReasonNamesTimesMemoryAndTheAlternative) {
  const ChoiceOptions options = Options(4, 16, 6, 100);
  const ScheduleChoice choice = Choice(options);
  EXPECT_THAT(ReasonFor(choice, options, 1, ""),
              AllOf(HasSubstr(Describe(choice.ranked.front()) + ": "),
                    HasSubstr(" a step of 16 microbatches, holding "),
                    HasSubstr(" of the 6 allowed; 1f1b would take "), HasSubstr(" fit)")));
}

TEST(ScheduleChoice, DecidesAlikeEveryTime) {
  const ScheduleChoice a = Choice(Options(4, 16, 6, 100));
  const ScheduleChoice b = Choice(Options(4, 16, 6, 100));
  ASSERT_EQ(a.ranked.size(), b.ranked.size());
  for (size_t i = 0; i < a.ranked.size(); ++i) {
    EXPECT_EQ(Describe(a.ranked[i]), Describe(b.ranked[i]));
    EXPECT_EQ(a.ranked[i].makespan_ns, b.ranked[i].makespan_ns);
  }
}

}  // namespace
}  // namespace troupe
