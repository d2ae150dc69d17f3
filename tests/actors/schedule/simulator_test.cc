#include "actors/schedule/simulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/lower_bound.h"
#include "actors/schedule/validator.h"
#include "tests/support/two_chains.h"

namespace troupe {
namespace {

Schedule Generated(const char* name, int p, int m) {
  return *Generate({.name = name, .num_ranks = p, .num_microbatches = m});
}

Simulation Simulated(const Schedule& schedule, const StageCost& cost, int64_t latency_ns = 0,
                     const SimulateOptions& options = {}) {
  auto run = Simulate(schedule, CostModel::Uniform(schedule, cost, latency_ns), options);
  EXPECT_TRUE(run.ok()) << run.error().message;
  return std::move(*run);
}

// Closed forms for equal stages: bubble (p-1)(f+b+w), makespan = span for rank 0, peak m or p-r.
TEST(Simulator, ReachesTheClosedForms) {
  for (const int64_t f : {1000, 3000}) {
    const StageCost cost{.forward_ns = f, .backward_input_ns = 1100, .backward_weight_ns = 800};
    const int64_t all = f + 1100 + 800;
    for (const char* name : {"gpipe", "1f1b"}) {
      for (const int p : {1, 2, 4, 8, 16}) {
        for (const int m : {1, 2, 3, p, p + 1, 2 * p, 4 * p}) {
          const Schedule schedule = Generated(name, p, m);
          const Simulation run = Simulated(schedule, cost);
          EXPECT_EQ(run.bubble_makespan_ns, (p - 1) * all) << name << " p=" << p << " m=" << m;
          EXPECT_EQ(run.idle.makespan_ns, (m + p - 1) * all);
          EXPECT_EQ(run.idle.span_ns, run.idle.makespan_ns);
          EXPECT_DOUBLE_EQ(run.idle.bubble_makespan, static_cast<double>(p - 1) / (m + p - 1));
          EXPECT_EQ(run.max_parked, 0);
          for (int r = 0; r < p; ++r) {
            EXPECT_EQ(run.peak_activations[r],
                      std::string(name) == "gpipe" ? m : std::min(m, p - r));
          }
        }
      }
    }
  }
}

// Published rates, p = 8, f=b=w: 17.9 % at m = 32 without and 22.5 % / 18.9 % with a hop of 0.1 f.
TEST(Simulator, CountsLinkLatency) {
  const StageCost unit{.forward_ns = 1000, .backward_input_ns = 1000, .backward_weight_ns = 1000};
  EXPECT_NEAR(Simulated(Generated("1f1b", 8, 32), unit).idle.bubble_makespan, 0.179, 0.0005);
  EXPECT_NEAR(Simulated(Generated("1f1b", 8, 32), unit, 100).idle.bubble_makespan, 0.225, 0.0005);
  EXPECT_NEAR(Simulated(Generated("gpipe", 8, 32), unit, 100).idle.bubble_makespan, 0.189, 0.0005);
}

// Rows of the published table of real profiles: p, m, f, b, w, hop (microseconds), 1F1B bubble.
TEST(Simulator, ReachesPublishedBubbles) {
  struct Row {
    int p, m;
    int64_t f, b, w, c;
    double bubble;
  };
  for (const Row& row :
       {Row{8, 24, 18522, 18086, 9337, 601, .2431}, Row{8, 32, 18513, 18086, 9331, 626, .1985},
        Row{8, 64, 18546, 18097, 9321, 762, .1240}, Row{8, 24, 29718, 29444, 19927, 527, .2347},
        Row{8, 32, 29802, 29428, 19530, 577, .1898}}) {
    const Simulation run = Simulated(
        Generated("1f1b", row.p, row.m),
        {.forward_ns = row.f, .backward_input_ns = row.b, .backward_weight_ns = row.w}, row.c);
    EXPECT_NEAR(run.idle.bubble_makespan, row.bubble, 0.00005) << row.m << " " << row.f;
  }
}

TEST(Simulator, BarsAreTheIdleFigures) {
  const Simulation run =
      Simulated(Generated("1f1b", 4, 6),
                {.forward_ns = 7, .backward_input_ns = 5, .backward_weight_ns = 3}, 2);
  EXPECT_EQ(run.timeline.bars.size(), 48U);
  EXPECT_EQ(run.num_actions, 48);
  const Idle idle = IdleOf(run.timeline);
  EXPECT_EQ(idle.makespan_ns, run.idle.makespan_ns);
  EXPECT_EQ(idle.span_ns, run.idle.span_ns);
  EXPECT_EQ(idle.work_ns, 4 * 6 * 15);
  EXPECT_DOUBLE_EQ(idle.bubble_makespan, run.idle.bubble_makespan);
  const auto by_rank = BubbleByRank(run.timeline);
  ASSERT_EQ(by_rank.size(), 4U);
  EXPECT_DOUBLE_EQ(by_rank[2], 1.0 - 90.0 / static_cast<double>(idle.makespan_ns));
}

TEST(Simulator, UnequalStagesWaitForTheSlowest) {
  const Schedule schedule = Generated("gpipe", 3, 4);
  CostModel costs = CostModel::Uniform(
      schedule, {.forward_ns = 10, .backward_input_ns = 10, .backward_weight_ns = 10});
  costs.stages[1].forward_ns = 50;
  const Simulation run = *Simulate(schedule, costs);
  // Forwards: 10 into the slow stage, 4 of 50 on it, 10 out; backwards 4 + 2 of 20.
  EXPECT_EQ(run.idle.makespan_ns, 10 + 4 * 50 + 10 + 6 * 20);
  costs.stages[1].backward_ns = 30;  // measured whole, in place of 10 + 10
  EXPECT_EQ(costs.CostNs({.stage = StageId(1), .kind = ActionKind::kBackward}), 30);
}

TEST(Simulator, PartsOfAWeightGradientAddUp) {
  CostModel costs{.stages = {{.backward_weight_ns = 100}}};
  int64_t sum_ns = 0;
  for (uint8_t part = 0; part < 7; ++part) {
    sum_ns += costs.CostNs(
        {.stage = StageId(0), .kind = ActionKind::kBackwardWeight, .part = part, .num_parts = 7});
  }
  EXPECT_EQ(sum_ns, 100);
}

TEST(Simulator, FewSlotsParkOutputsButLoseNothing) {
  const StageCost cost{.forward_ns = 10, .backward_input_ns = 10, .backward_weight_ns = 10};
  const Schedule schedule = Generated("gpipe", 2, 6);
  CostModel costs = CostModel::Uniform(schedule, cost);
  costs.stages[1].forward_ns = 40;
  const Simulation free = *Simulate(schedule, costs);
  const Simulation tight = *Simulate(schedule, costs, {.slots_per_channel = 1});
  EXPECT_EQ(free.max_parked, 0);
  EXPECT_GT(tight.max_parked, 1);
  EXPECT_EQ(tight.idle.makespan_ns,
            free.idle.makespan_ns);  // no latency: a slot is refilled at once
}

TEST(Simulator, OneSlotCostsALatency) {
  const Schedule schedule = Generated("gpipe", 2, 3);
  const CostModel costs = CostModel::Uniform(
      schedule, {.forward_ns = 10, .backward_input_ns = 5, .backward_weight_ns = 5}, 4);
  const Simulation run = *Simulate(schedule, costs, {.slots_per_channel = 1});
  // Forward k+1 reaches rank 1 a credit and a hop (4 + 4) after forward k was read there, and the
  // same holds for backwards on the way up.
  EXPECT_EQ(run.idle.makespan_ns, 10 + 4 + 3 * 10 + 2 * 8 + 10 + 4 + 3 * 10 + 2 * 8);
}

// What two actions of 20 with one pause each take on one rank, by whether they are a pair and how
// many may be open.
Simulation PausedPair(bool paired, int open_actions, int64_t pause_ns) {
  const Schedule schedule =
      *ParseCsv(paired ? "0F0,(0F1;0B0)OVERLAP_F_B,0B1\n" : "0F0,0F1,0B0,0B1\n", "pair");
  const StageCost cost{.forward_ns = 20,
                       .backward_ns = 20,
                       .forward_pauses = {.count = 1, .each_ns = pause_ns},
                       .backward_pauses = {.count = 1, .each_ns = pause_ns}};
  return *Simulate(schedule, {.stages = {cost}}, {.policy = {.open_actions = open_actions}});
}

TEST(Simulator, APairHidesItsWaitsBehindItsOwnCompute) {
  for (const int64_t pause_ns : {0, 5, 10}) {
    const int64_t alone = 20 + pause_ns;
    EXPECT_EQ(PausedPair(true, 2, pause_ns).idle.makespan_ns, 2 * alone + 40) << pause_ns;
    EXPECT_EQ(PausedPair(true, 1, pause_ns).idle.makespan_ns, 4 * alone) << pause_ns;
    EXPECT_EQ(PausedPair(false, 2, pause_ns).idle.makespan_ns, 4 * alone) << pause_ns;
  }
  // Longer than the other's compute: 0F1 waits from 10 to 60, 0B0 from 20 to 70, ten more each.
  EXPECT_EQ(PausedPair(true, 2, 50).idle.makespan_ns, 2 * 70 + 80);
}

TEST(Simulator, APausedActionIsItsSegments) {
  const Simulation run = PausedPair(true, 2, 10);
  EXPECT_EQ(run.num_actions, 4);
  EXPECT_EQ(run.idle.work_ns, 4 * 20);
  ASSERT_EQ(run.timeline.bars.size(), 8u);
  std::string order;
  for (const Bar& bar : run.timeline.bars) {
    EXPECT_EQ(bar.end_ns - bar.start_ns, 10);
    order += ToString(bar.action) + " ";
  }
  EXPECT_EQ(order, "0F0 0F0 0F1 0B0 0F1 0B0 0B1 0B1 ");
}

TEST(Simulator, WeightGradientsFillWaits) {
  const Schedule schedule = *ParseCsv("0F0,0I0,0F1,0W0,0I1,0W1\n", "w");
  const StageCost cost{.forward_ns = 20,
                       .backward_input_ns = 20,
                       .backward_weight_ns = 8,
                       .forward_pauses = {.count = 1, .each_ns = 10}};
  const auto makespan = [&](ExecutorMode mode) {
    return Simulate(schedule, {.stages = {cost}}, {.policy = {.mode = mode, .open_actions = 2}})
        ->idle.makespan_ns;
  };
  EXPECT_EQ(makespan(ExecutorMode::kStrict), 2 * 30 + 2 * 20 + 2 * 8);
  EXPECT_EQ(makespan(ExecutorMode::kGuided), 2 * 30 + 2 * 20 + 8);
}

// One rank, stages of one unit of Forward and two of backward.
Simulation WithCollectiveCosts(const char* csv, int64_t unshard_ns, int64_t reduce_grad_ns) {
  const Schedule schedule = *ParseCsv(csv, "collectives");
  CostModel costs;
  costs.stages.assign(static_cast<size_t>(schedule.num_stages), {.forward_ns = 100,
                                                                 .backward_input_ns = 100,
                                                                 .backward_weight_ns = 100,
                                                                 .unshard_ns = unshard_ns,
                                                                 .reduce_grad_ns = reduce_grad_ns});
  auto run = Simulate(schedule, costs);
  EXPECT_TRUE(run.ok()) << run.error().message;
  const Idle drawn = IdleOf(run->timeline);
  EXPECT_EQ(drawn.makespan_ns, run->idle.makespan_ns);
  EXPECT_EQ(drawn.span_ns, run->idle.span_ns);
  return *std::move(run);
}

TEST(Simulator, HidesGathersBehindWhatRunsBeforeThem) {
  const int64_t work_ns = 600;
  // Stage 1 is gathered while stage 0 runs, but for what that does not cover.
  const char kAhead[] = "0UNSHARD,1UNSHARD,0F0,1F0,1B0,1RESHARD,0B0,0RESHARD\n";
  EXPECT_EQ(WithCollectiveCosts(kAhead, 0, 0).idle.makespan_ns, work_ns);
  EXPECT_EQ(WithCollectiveCosts(kAhead, 80, 0).idle.makespan_ns, work_ns + 80);
  EXPECT_EQ(WithCollectiveCosts(kAhead, 130, 0).idle.makespan_ns, work_ns + 130 + 30);
  EXPECT_EQ(WithCollectiveCosts(kAhead, 130, 0).idle.span_ns, work_ns + 30);
  // Right before its pass it is not hidden; weight gradients read no parameters.
  EXPECT_EQ(WithCollectiveCosts("0UNSHARD,0F0,0RESHARD,1UNSHARD,1F0,1B0,1RESHARD,0B0\n", 80, 0)
                .idle.makespan_ns,
            work_ns + 160);
  EXPECT_EQ(
      WithCollectiveCosts("0F0,1F0,1I0,1UNSHARD,1W0,0I0,0W0,1RESHARD\n", 80, 0).idle.makespan_ns,
      work_ns);
}

TEST(Simulator, HidesReductionsBehindTheBackwardThatIsLeft) {
  EXPECT_EQ(
      WithCollectiveCosts("0F0,1F0,1B0,1REDUCE_GRAD,0B0,0REDUCE_GRAD\n", 0, 150).idle.makespan_ns,
      600 + 150);
  // The second begins when the first has ended.
  EXPECT_EQ(
      WithCollectiveCosts("0F0,1F0,1B0,1REDUCE_GRAD,0B0,0REDUCE_GRAD\n", 0, 250).idle.makespan_ns,
      400 + 500);
  EXPECT_EQ(WithCollectiveCosts("0F0,1F0,1B0,1REDUCE_GRAD,1WAIT_REDUCE_GRAD,0B0\n", 0, 150)
                .idle.makespan_ns,
            600 + 150)
      << "nothing runs beside a sum that is waited for";
}

TEST(Simulator, SaysHowFastItIs) {
  const Schedule schedule = Generated("1f1b", 16, 4096);
  const StageCost cost{.forward_ns = 1000, .backward_input_ns = 1100, .backward_weight_ns = 800};
  const auto before = std::chrono::steady_clock::now();
  const Simulation run = Simulated(schedule, cost, 100, {.keep_bars = false});
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - before;
  EXPECT_EQ(run.num_actions, 16 * 2 * 4096);
  EXPECT_TRUE(run.timeline.bars.empty());
  std::printf("simulated %.2f million actions a second\n",
              static_cast<double>(run.num_actions) / seconds.count() / 1e6);
}

// Teacher and student run side by side until the loss, which waits for the longer of them.
TEST(Simulator, ALossWaitsForBothOfItsInputs) {
  const Schedule schedule =
      testing::TwoChains({PipelineRank(0), PipelineRank(1), PipelineRank(2), PipelineRank(3)}, 1);
  CostModel costs{.stages = std::vector<StageCost>(4, {10, 10, 10}), .link_latency_ns = 1};
  costs.stages[2].forward_ns = 100;
  const auto run = Simulate(schedule, costs);
  ASSERT_TRUE(run.ok()) << run.error().message;
  // 1F, 2F, 3F, 3B and 0B, with a hop before each but the first.
  EXPECT_EQ(run->idle.makespan_ns, 10 + 1 + 100 + 1 + 10 + 20 + 1 + 20);
  EXPECT_EQ(run->num_actions, 6);
  EXPECT_THAT(run->peak_activations, ::testing::Each(1.0));
  EXPECT_GE(run->idle.makespan_ns, LowerBoundOf(schedule, costs).makespan_ns);
  for (const int slots : {2, 3}) {
    const Schedule shared = testing::TwoChains(testing::SameSender(), 4);
    EXPECT_TRUE(Simulate(shared, costs, {.slots_per_channel = slots}).ok());
  }
}

}  // namespace
}  // namespace troupe
