#include "actors/schedule/lower_bound.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "actors/schedule/generators.h"
#include "actors/schedule/simulator.h"

namespace troupe {
namespace {

constexpr StageCost kCost{
    .forward_ns = 6000, .backward_input_ns = 6600, .backward_weight_ns = 4800};
constexpr int64_t kF = kCost.forward_ns;
constexpr int64_t kB = kCost.backward_input_ns;
constexpr int64_t kWork = 6000 + 6600 + 4800;
constexpr int64_t kHop = 700;

struct Bounds {
  Schedule shape{};
  LowerBound bound{};
};

Bounds BoundsFor(const char* name, int p, int m, int chunks, double k) {
  Bounds bounds;
  bounds.shape =
      *Generate({.name = name, .num_ranks = p, .num_microbatches = m, .chunks_per_rank = chunks});
  bounds.bound = LowerBoundOf(bounds.shape, CostModel::Uniform(bounds.shape, kCost, kHop), k);
  return bounds;
}

void ExpectRank(const RankLowerBound& rank, int m, double k, int64_t head_ns, int64_t backward_ns) {
  EXPECT_EQ(rank.head_ns, head_ns);
  EXPECT_EQ(rank.first_backward_ns, backward_ns);
  EXPECT_EQ(rank.work_ns, m * kWork);
  const auto fit_ns = static_cast<int64_t>(std::min<double>(k, m) * kF);
  EXPECT_EQ(rank.makespan_ns,
            head_ns + m * kWork + std::max<int64_t>(0, backward_ns - head_ns - fit_ns));
}

TEST(LowerBound, FollowsTheClosedFormsOnALoop) {
  for (const int v : {1, 2, 3}) {
    for (const double k : {2.0, 8.0, 100.0}) {
      const int p = 8, m = 12;
      const auto [shape, bound] = BoundsFor("looped-bfs", p, m, v, k);
      for (int r = 0; r < p; ++r) {
        ExpectRank(bound.ranks[r], m, k, r * (kF / v + kHop),
                   p * kF + (p * v - 1) * kHop + (p - 1 - r) * (kB / v + kHop));
      }
      // Without a limit what remains is the head of the last rank.
      if (k > m) {
        EXPECT_EQ(bound.makespan_ns, m * kWork + (p - 1) * (kF / v + kHop));
      }
    }
  }
}

TEST(LowerBound, FollowsTheClosedFormsOnAV) {
  for (const double k : {2.0, 8.5, 100.0}) {
    const int p = 8, m = 20;
    const auto [shape, bound] = BoundsFor("zb-v", p, m, 2, k);
    for (int r = 0; r < p; ++r) {
      ExpectRank(bound.ranks[r], m, k, r * (kF / 2 + kHop),
                 p * kF + 2 * (p - 1) * kHop + r * (kB / 2 + kHop));
    }
    if (k > m) {
      EXPECT_EQ(bound.makespan_ns, m * kWork + (p - 1) * (kF / 2 + kHop));
      EXPECT_EQ(bound.span_ns, m * kWork);
    }
  }
}

TEST(LowerBound, FollowsTheClosedFormsInTwoDirections) {
  for (const double k : {2.0, 9.0, 100.0}) {
    const int p = 8, m = 20;
    const auto [shape, bound] = BoundsFor("dualpipe", p, m, 1, k);
    for (int r = 0; r < p; ++r) {
      const int from_end = std::min(r, p - 1 - r);
      ExpectRank(bound.ranks[r], m, k, from_end * (kF + kHop),
                 p * kF + (p - 1) * kHop + from_end * (kB + kHop));
    }
    if (k > m) {
      EXPECT_EQ(bound.makespan_ns, m * kWork + (p / 2 - 1) * (kF + kHop));
    }
  }
}

int64_t SpanBubble(const char* name, int p, int chunks, double k, const StageCost& cost) {
  const Schedule shape = *Generate(
      {.name = name, .num_ranks = p, .num_microbatches = 4 * p, .chunks_per_rank = chunks});
  const LowerBound bound = LowerBoundOf(shape, CostModel::Uniform(shape, cost), k);
  return bound.span_ns - bound.ranks[0].work_ns;
}

// With f = b and free hops the span's bubble can vanish from these limits on, and not below.
TEST(LowerBound, SpanCanBeWithoutBubbleFromALimitOn) {
  const StageCost cost{.forward_ns = 600, .backward_input_ns = 600, .backward_weight_ns = 300};
  for (const int p : {4, 8, 16}) {
    EXPECT_EQ(SpanBubble("zb-v", p, 2, p, cost), 0);
    EXPECT_GT(SpanBubble("zb-v", p, 2, p - 0.5, cost), 0);
    EXPECT_EQ(SpanBubble("1f1b", p, 1, 2 * p - 1, cost), 0);
    EXPECT_GT(SpanBubble("1f1b", p, 1, 2 * p - 2, cost), 0);
    EXPECT_EQ(SpanBubble("looped-bfs", p, 2, 1.5 * p, cost), 0);
    EXPECT_GT(SpanBubble("looped-bfs", p, 2, 1.5 * p - 1, cost), 0);
  }
}

// Known values for p = 8, m = 16 in units of f.
TEST(LowerBound, ReachesKnownValuesForUnequalCosts) {
  const auto makespan = [](const char* name, double k, double b, double w) {
    const Schedule shape = *Generate({.name = name, .num_ranks = 8, .num_microbatches = 16});
    const StageCost cost{.forward_ns = 1000,
                         .backward_input_ns = std::llround(1000 * b),
                         .backward_weight_ns = std::llround(1000 * w)};
    return static_cast<double>(
               LowerBoundOf(shape, CostModel::Uniform(shape, cost), k).makespan_ns) /
           1000;
  };
  EXPECT_DOUBLE_EQ(makespan("zb-v", 8, 1.1, 0.8), 50.25);
  EXPECT_DOUBLE_EQ(makespan("zb-v", 8, 1.2, 0.6), 49.0);
  EXPECT_DOUBLE_EQ(makespan("dualpipe", 8, 1.1, 0.8), 49.7);
  EXPECT_DOUBLE_EQ(makespan("dualpipe", 9, 1.1, 0.8), 49.4);
}

TEST(LowerBound, WalksUnequalStages) {
  const Schedule shape = *Generate({.name = "1f1b", .num_ranks = 3, .num_microbatches = 4});
  const CostModel costs{
      .stages = {{.forward_ns = 10, .backward_input_ns = 11, .backward_weight_ns = 12},
                 {.forward_ns = 20, .backward_input_ns = 21, .backward_weight_ns = 22},
                 {.forward_ns = 30,
                  .backward_input_ns = 31,
                  .backward_weight_ns = 32,
                  .backward_ns = 50}},
      .link_latency_ns = 1};
  const LowerBound bound = LowerBoundOf(shape, costs, 1);
  EXPECT_EQ(bound.ranks[2].head_ns, 10 + 1 + 20 + 1);
  EXPECT_EQ(bound.ranks[0].first_backward_ns, 32 + 30 + 31 + 1 + 21 + 1);
  EXPECT_EQ(bound.ranks[0].makespan_ns, 116 - 10 + 4 * 33);  // one Forward, then waiting
  EXPECT_EQ(bound.ranks[2].work_ns, 4 * (30 + 50));          // whole, as that is cheaper
  EXPECT_EQ(bound.ranks[2].makespan_ns, 32 + 4 * 80);
}

// A whole backward may be measured faster than its input half.
TEST(LowerBound, IsBelowTheStepWhereWholeBackwardsAreFast) {
  const Schedule schedule = *Generate({.name = "1f1b", .num_ranks = 2, .num_microbatches = 4});
  CostModel costs{.link_latency_ns = 100};
  for (int stage = 0; stage < 2; ++stage) costs.stages.push_back({1000, 5000, 5000, 1000});
  const auto run = Simulate(schedule, costs);
  ASSERT_TRUE(run.ok());
  EXPECT_LE(LowerBoundOf(schedule, costs, 2).makespan_ns, run->idle.makespan_ns);
}

TEST(LowerBound, ForwardOnlyIsHeadAndWork) {
  const Schedule shape = GenerateForwardOnly(3, 3, 5);
  const LowerBound bound = LowerBoundOf(shape, CostModel::Uniform(shape, kCost, kHop), 1);
  EXPECT_EQ(bound.makespan_ns, 2 * (kF + kHop) + 5 * kF);
  EXPECT_EQ(bound.span_ns, 5 * kF);
}

// Overlapped pairs may take a part of their actions' times, and no schedule of pairs beats that.
TEST(LowerBound, AllowsForOverlappedPairs) {
  const Schedule shape = *Generate({.name = "dualpipe", .num_ranks = 4, .num_microbatches = 8});
  CostModel costs = CostModel::Uniform(shape, kCost, kHop);
  const LowerBound apart = LowerBoundOf(shape, costs, 5);
  costs.pair_factor = 0.5;
  const LowerBound together = LowerBoundOf(shape, costs, 5);
  for (int r = 0; r < 4; ++r) {
    EXPECT_EQ(together.ranks[r].work_ns * 2, apart.ranks[r].work_ns);
    EXPECT_LE(together.ranks[r].head_ns, apart.ranks[r].head_ns);
  }
  costs.pair_factor = 1.5;  // a pair that costs more is for no schedule to take
  EXPECT_EQ(LowerBoundOf(shape, costs, 5).makespan_ns, apart.makespan_ns);
}

}  // namespace
}  // namespace troupe
