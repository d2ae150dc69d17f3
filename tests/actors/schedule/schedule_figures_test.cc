#include "actors/schedule/schedule_figures.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"

namespace troupe {
namespace {

constexpr StageCost kUnit{
    .forward_ns = 1'000'000, .backward_input_ns = 1'000'000, .backward_weight_ns = 1'000'000};

ExecutableSchedule Executable(const char* name, int p, int m, const ExecutionSettings& how = {}) {
  auto lists = Generate({.name = name, .num_ranks = p, .num_microbatches = m});
  EXPECT_TRUE(lists.ok()) << lists.error().message;
  auto executable = MakeExecutable(*std::move(lists), how);
  EXPECT_TRUE(executable.ok()) << executable.error().message;
  return *std::move(executable);
}

ScheduleFigures Figures(const ExecutableSchedule& executable, const FigureOptions& options = {},
                        int64_t hop_ns = 0, double pair_factor = 1) {
  CostModel costs = CostModel::Uniform(executable.schedule, kUnit, hop_ns);
  costs.pair_factor = pair_factor;
  auto figures = FiguresOf(executable, costs, options);
  EXPECT_TRUE(figures.ok()) << figures.error().message;
  return *std::move(figures);
}

TEST(ScheduleFigures, OneStepHasTheClosedForms) {
  const ScheduleFigures figures = Figures(Executable("zb-v", 8, 32));
  EXPECT_EQ(figures.makespan_ns.mean, 99.5e6);
  EXPECT_EQ(figures.span_ns.mean, 96e6);
  EXPECT_EQ(figures.bubble_makespan_ns.mean, 3.5e6);
  EXPECT_EQ(figures.bubble_span_ns.mean, 0);
  EXPECT_NEAR(figures.bubble_makespan.mean, 3.5 / 99.5, 1e-12);
  EXPECT_EQ(figures.makespan_ns.standard_error, 0);
  EXPECT_EQ(figures.peak_activations, std::vector<double>(8, 8.0));
  EXPECT_EQ(figures.lower_bound_activations, 8);
  EXPECT_EQ(figures.lower_bound.makespan_ns, 99'500'000);
  EXPECT_EQ(figures.timeline.bars.size(), 8U * 2 * 32 * 3);
  EXPECT_EQ(figures.executed.ranks, Executable("zb-v", 8, 32).schedule.ranks);
}

TEST(ScheduleFigures, ALimitTightensTheLowerBound) {
  const auto executable = Executable("zb-v", 8, 32);
  EXPECT_GT(Figures(executable, {.activations_max = 4}).lower_bound.makespan_ns,
            Figures(executable).lower_bound.makespan_ns);
}

// Of many samples: means, errors that shrink with the root of their number, and paired noise.
TEST(ScheduleFigures, SamplesAreMeansWithErrors) {
  const auto executable = Executable("zb-v", 4, 16);
  FigureOptions options{.noise = {.sigma = 0.2, .seed = 7}, .num_samples = 50};
  const ScheduleFigures few = Figures(executable, options);
  options.num_samples = 800;
  const ScheduleFigures many = Figures(executable, options);
  EXPECT_GT(few.makespan_ns.standard_error, 0);
  EXPECT_NEAR(few.makespan_ns.standard_error / many.makespan_ns.standard_error, 4, 1);
  EXPECT_NEAR(few.makespan_ns.mean, many.makespan_ns.mean, 4 * few.makespan_ns.standard_error);
  EXPECT_GT(many.makespan_ns.mean, 49.5e6) << "noise only makes ranks wait";
  EXPECT_GT(many.excess.mean, 0.01);
  EXPECT_LT(many.excess.mean, 0.2);
  const ScheduleFigures again = Figures(executable, options);
  EXPECT_EQ(again.makespan_ns.mean, many.makespan_ns.mean);
}

// Without noise the sampled bound is the head of the last rank and its work.
TEST(ScheduleFigures, ExcessIsAboveHeadAndWork) {
  EXPECT_NEAR(Figures(Executable("zb-v", 8, 32)).excess.mean, 0, 1e-12);
  EXPECT_NEAR(Figures(Executable("1f1b", 8, 32)).excess.mean, 117.0 / 103 - 1, 1e-12);
}

// The frozen order of any run is a schedule, and takes as long under the same times.
TEST(ScheduleFigures, RunsAreFrozenAndRunAgainAsTheyWere) {
  const ExecutionSettings modes[] = {
      {.executor = "free-run"},
      {.executor = "guided", .weight_parts = 4},
      {.executor = "guided", .activation_slack = 2},
  };
  for (const char* name : {"1f1b", "interleaved-1f1b", "zb-h2", "zb-v", "v-half", "dualpipe",
                           "dualpipe-v", "dynamic"}) {
    for (const ExecutionSettings& mode : modes) {
      SCOPED_TRACE(fmt::format("{} {}", name, *mode.executor));
      const auto listed = Executable(name, 4, 12, mode);
      const FigureOptions options{.noise = {.sigma = 0.3, .seed = 3}};
      const ScheduleFigures before = Figures(listed, options, 100'000);
      const auto read = ParseCsv(ToCsv(before.executed), "frozen");
      ASSERT_TRUE(read.ok()) << read.error().message;
      const auto frozen = MakeExecutable(*read, {});
      ASSERT_TRUE(frozen.ok()) << frozen.error().message;
      const ScheduleFigures after = Figures(*frozen, options, 100'000);
      EXPECT_EQ(after.makespan_ns.mean, before.makespan_ns.mean);
      EXPECT_EQ(after.peak_activations, before.peak_activations);
    }
  }
}

TEST(ScheduleFigures, PeaksAreThoseOfTheMode) {
  EXPECT_EQ(std::ranges::max(Figures(Executable("dynamic", 4, 16)).peak_activations), 6);
  const auto guided = Executable("zb-v", 4, 16, {.executor = "guided", .activation_slack = 1});
  const double peak = std::ranges::max(
      Figures(guided, {.noise = {.sigma = 0.2}, .num_samples = 20}).peak_activations);
  EXPECT_GT(peak, 4) << "Forwards jumped the queue";
  const auto last_rank = [](double held_for_weight) {
    return Figures(Executable("zb-h1", 4, 16), {.held_for_weight = held_for_weight})
        .peak_activations[3];
  };
  EXPECT_EQ(last_rank(1), 4) << "it keeps all of an activation for its late weight gradients";
  EXPECT_NEAR(last_rank(0.4), 1 + 3 * 0.4, 1e-9);
}

// Overlap lowers what nothing can beat, but only of schedules that have pairs; that the makespans
// are those of the reference is checked with the other tables.
TEST(ScheduleFigures, OverlappedPairsShortenTheirSchedulesAlone) {
  for (const double factor : {1.0, 0.9, 0.8, 0.7}) {
    for (const char* name : {"dualpipe", "dualpipe-v"}) {
      const ScheduleFigures pairs =
          Figures(Executable(name, 8, 32, {.pairs = "fused"}), {}, 0, factor);
      EXPECT_LE(static_cast<double>(pairs.lower_bound.makespan_ns), pairs.makespan_ns.mean);
      EXPECT_GE(pairs.excess.mean, 0);
    }
    const ScheduleFigures none = Figures(Executable("zb-v", 8, 32), {}, 0, factor);
    EXPECT_EQ(none.makespan_ns.mean, 99.5e6);
    EXPECT_EQ(none.lower_bound.makespan_ns, 99'500'000) << "it has no pairs";
  }
}

}  // namespace
}  // namespace troupe
