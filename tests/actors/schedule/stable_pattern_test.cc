#include "actors/schedule/stable_pattern.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "actors/schedule/simulator.h"
#include "actors/schedule/validator.h"

namespace troupe {
namespace {

Schedule Generated(const char* name, int p, int m) {
  return *Generate({.name = name, .num_ranks = p, .num_microbatches = m});
}

double Peak(const Schedule& schedule) {
  const auto report = Validate(schedule);
  EXPECT_TRUE(report.ok()) << report.error().message;
  return report.ok() ? *std::ranges::max_element(report->peak_activations) : 0;
}

// In units of the rank's whole Forward, f = b = w.
double MakespanBubble(const Schedule& schedule) {
  const StageCost unit{.forward_ns = 1000, .backward_input_ns = 1000, .backward_weight_ns = 1000};
  const auto run = Simulate(schedule, CostModel::Uniform(schedule, unit));
  EXPECT_TRUE(run.ok()) << run.error().message;
  return static_cast<double>(run->bubble_makespan_ns) / 1000;
}

TEST(StablePattern, VHalfKeepsHalfOfTheActivations) {
  for (int p = 1; p <= 20; ++p) {
    for (const int m : {p, 2 * p, 3 * p + 1}) {
      const Schedule schedule = Generated("v-half", p, m);
      EXPECT_EQ(Peak(schedule), (p + 2) / 2) << "p=" << p << " m=" << m;
      if (p >= 4 && m >= 2 * p) {
        EXPECT_EQ(MakespanBubble(schedule), p % 2 == 0 ? 1.5 * p - 3.5 : 1.5 * p - 2) << p;
      }
    }
  }
}

TEST(StablePattern, VMinKeepsAThirdOfTheActivations) {
  for (int p = 1; p <= 20; ++p) {
    for (const int m : {p, 2 * p, 3 * p + 1}) {
      const Schedule schedule = Generated("v-min", p, m);
      EXPECT_EQ(Peak(schedule), (p + 4) / 3) << "p=" << p << " m=" << m;
      if (p >= 2 && m >= 2 * p) {
        EXPECT_EQ(MakespanBubble(schedule), p % 3 == 0 ? 2 * p - 3.5 : 2 * p - 2.5) << p;
      }
    }
  }
}

TEST(StablePattern, FewMicrobatchesRunToo) {
  for (const char* name : {"v-half", "v-min"}) {
    for (int p = 1; p <= 7; ++p) {
      for (int m = 1; m < p; ++m) {
        EXPECT_LE(Peak(Generated(name, p, m)), m) << name << " p=" << p << " m=" << m;
      }
    }
  }
}

// Far from both ends every rank repeats its six actions with the next microbatch.
TEST(StablePattern, RepeatsInTheSteadyPhase) {
  for (const char* name : {"v-half", "v-min"}) {
    const Schedule schedule = Generated(name, 8, 64);
    for (const std::vector<Action>& actions : schedule.ranks) {
      for (size_t i = actions.size() / 3; i < 2 * actions.size() / 3; ++i) {
        EXPECT_EQ(actions[i + 6].kind, actions[i].kind);
        EXPECT_EQ(actions[i + 6].stage, actions[i].stage);
        EXPECT_EQ(actions[i + 6].microbatch, actions[i].microbatch.Next());
      }
    }
  }
}

}  // namespace
}  // namespace troupe
