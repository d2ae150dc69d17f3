// Makespans, spans, peaks and messages of every schedule against what is known of them: closed
// forms and published tables.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "actors/schedule/generators.h"
#include "actors/schedule/simulator.h"
#include "actors/schedule/validator.h"
#include "tests/actors/schedule/published_tables.h"

namespace troupe {
namespace {

using testing::kProfiles;
using testing::kUnitRows;
using testing::ProfileRow;
using testing::UnitRates;
using testing::UnitRow;

Schedule Generated(const char* name, int p, int m, int chunks = 0, int group = 0) {
  auto schedule = Generate({.name = name,
                            .num_ranks = p,
                            .num_microbatches = m,
                            .chunks_per_rank = chunks,
                            .group = group});
  EXPECT_TRUE(schedule.ok()) << schedule.error().message;
  return std::move(*schedule);
}

// Times in units of a 1200th of f, which all chunk counts here divide.
struct Costs {
  int64_t f = 1200;
  int64_t b = 1200;
  int64_t w = 1200;
};
constexpr Costs kUnit{};
constexpr Costs kUnequal{.f = 3600, .b = 4800, .w = 2400};

Simulation Simulated(const Schedule& schedule, const Costs& costs, int64_t hop_ns = 0) {
  const StageCost cost{
      .forward_ns = costs.f, .backward_input_ns = costs.b, .backward_weight_ns = costs.w};
  auto run = Simulate(schedule, CostModel::Uniform(schedule, cost, hop_ns));
  EXPECT_TRUE(run.ok()) << run.error().message;
  return std::move(*run);
}

double Peak(const Simulation& run) { return *std::ranges::max_element(run.peak_activations); }

// What one schedule costs on p ranks with m microbatches.
struct Known {
  int64_t makespan_ns = 0;  // bubbles
  int64_t span_ns = 0;
  double peak = 0;
  int messages = 0;
};

void Expect(const Schedule& schedule, const Costs& costs, const Known& known) {
  SCOPED_TRACE(
      fmt::format("{} p={} m={}", schedule.name, schedule.num_ranks, schedule.num_microbatches));
  const Simulation run = Simulated(schedule, costs);
  EXPECT_EQ(run.bubble_makespan_ns, known.makespan_ns);
  EXPECT_EQ(run.bubble_span_ns, known.span_ns);
  EXPECT_NEAR(Peak(run), known.peak, 1e-9);
  EXPECT_EQ(Validate(schedule)->messages_per_microbatch, known.messages);
}

class ClosedForms : public ::testing::TestWithParam<int> {
 protected:
  const int p_ = GetParam();
  // Numbers of microbatches that every schedule takes, well above the warm-up.
  const std::vector<int> many_ = {2 * p_, 3 * p_, 4 * p_};
};

TEST_P(ClosedForms, OneChunkWithWholeBackwards) {
  for (const Costs& costs : {kUnit, kUnequal}) {
    const int64_t bubble = (p_ - 1) * (costs.f + costs.b + costs.w);
    for (const int m : many_) {
      Expect(Generated("gpipe", p_, m), costs,
             {bubble, bubble, static_cast<double>(m), 2 * (p_ - 1)});
      Expect(Generated("1f1b", p_, m), costs,
             {bubble, bubble, static_cast<double>(p_), 2 * (p_ - 1)});
    }
  }
}

TEST_P(ClosedForms, SeveralChunksWithWholeBackwards) {
  for (const Costs& costs : {kUnit, kUnequal}) {
    for (const int v : {2, 3, 4}) {
      const int64_t bubble = (p_ - 1) * (costs.f + costs.b + costs.w) / v;
      const int messages = 2 * (p_ * v - 1);
      for (const int m : many_) {
        Expect(Generated("looped-bfs", p_, m, v), costs,
               {bubble, bubble, static_cast<double>(m), messages});
        for (const int group : {p_, p_ + 2, 2 * p_}) {
          if (m % group != 0 && m % group < p_) continue;
          const double peak = ((v - 1.0) * group + 2 * (p_ - 1) + 1) / v;
          const auto schedule = Generated("interleaved-1f1b", p_, m, v, group);
          Expect(schedule, costs, {bubble, bubble, std::min<double>(peak, m), messages});
        }
      }
    }
  }
}

TEST_P(ClosedForms, SplitBackwardsOnALoop) {
  const int64_t f = kUnit.f;
  for (const int m : many_) {
    Expect(Generated("zb-h1", p_, m), kUnit,
           {(p_ - 1) * f, (p_ - 1) * f, static_cast<double>(p_), 2 * (p_ - 1)});
    Expect(Generated("zb-h2", p_, m), kUnit, {(p_ - 1) * f, 0, 2.0 * p_ - 1, 2 * (p_ - 1)});
    for (const int v : {1, 2, 3, 4}) {
      const int64_t bubble = (p_ - 1) * f / v;
      Expect(Generated("interleaved-zb", p_, m, v), kUnit,
             {bubble, bubble, static_cast<double>(p_), 2 * (p_ * v - 1)});
    }
  }
  // On every rank, not only the first.
  for (const double peak : Simulated(Generated("zb-h1", p_, 2 * p_), kUnit).peak_activations) {
    EXPECT_EQ(peak, p_);
  }
  for (const double peak : Simulated(Generated("zb-h2", p_, 2 * p_), kUnit).peak_activations) {
    EXPECT_EQ(peak, 2 * p_ - 1);
  }
}

TEST_P(ClosedForms, ZeroBubbleV) {
  const int64_t f = kUnit.f;
  for (const int m : many_) {
    Expect(Generated("zb-v", p_, m), kUnit,
           {(p_ - 1) * f / 2, 0, static_cast<double>(p_), 4 * (p_ - 1)});
    // f, b, w = 3, 4, 2.
    const int64_t bubble = 2 * (p_ - 1) * kUnequal.f / 3;
    Expect(Generated("zb-v", p_, m), kUnequal,
           {bubble, bubble, static_cast<double>(p_), 4 * (p_ - 1)});
  }
}

TEST_P(ClosedForms, ControllableMemory) {
  const int64_t f = kUnit.f;
  for (const int m : many_) {
    const int64_t half = (3 * p_ - 7) * f / 2;
    const int64_t least = (4 * p_ - 5) * f / 2;
    Expect(Generated("v-half", p_, m), kUnit,
           {half, half, static_cast<double>((p_ + 2) / 2), 4 * (p_ - 1)});
    Expect(Generated("v-min", p_, m), kUnit,
           {least, least, static_cast<double>((p_ + 4) / 3), 4 * (p_ - 1)});
  }
}

TEST_P(ClosedForms, EagerDualPipes) {
  const int64_t f = kUnit.f;
  for (const int m : many_) {
    const int64_t bubble = (p_ / 2 - 1) * f;
    Expect(Generated("dualpipe", p_, m), kUnit, {bubble, bubble, p_ + 1.0, 2 * (p_ - 1)});
    const int64_t fold = (p_ - 1) * f / 2;
    Expect(Generated("dualpipe-v", p_, m), kUnit, {fold, fold, p_ + 0.5, 4 * (p_ - 1)});
  }
  // f, b, w = 3, 4, 2: 5, 15, 39 for 4, 8, 16 ranks.
  const int64_t known = (p_ == 4 ? 5 : p_ == 8 ? 15 : 39) * kUnequal.f / 3;
  EXPECT_EQ(Simulated(Generated("dualpipe", p_, 4 * p_), kUnequal).bubble_makespan_ns, known);
}

INSTANTIATE_TEST_SUITE_P(Ranks, ClosedForms, ::testing::Values(4, 8, 16),
                         [](const auto& info) { return fmt::format("p{}", info.param); });

TEST(PublishedTables, RatesOnMeasuredProfiles) {
  const auto in_ns = [](double ms) { return std::llround(ms * 1e6); };
  for (const ProfileRow& row : kProfiles) {
    SCOPED_TRACE(fmt::format("p={} m={} f={}", row.p, row.m, row.f_ms));
    const auto idle_of = [&](const char* name, int chunks) {
      const Costs costs{.f = in_ns(row.f_ms), .b = in_ns(row.b_ms), .w = in_ns(row.w_ms)};
      return Simulated(Generated(name, row.p, row.m, chunks), costs, in_ns(row.hop_ms)).idle;
    };
    constexpr double kFourDecimals = 0.00005;
    EXPECT_NEAR(idle_of("1f1b", 0).bubble_makespan, row.one_f_one_b, kFourDecimals);
    EXPECT_NEAR(idle_of("interleaved-1f1b", row.chunks).bubble_makespan, row.interleaved,
                kFourDecimals);
    EXPECT_NEAR(idle_of("zb-h1", 0).bubble_makespan, row.zb_h1, kFourDecimals);
    EXPECT_NEAR(idle_of("zb-h2", 0).bubble_span, row.zb_h2, kFourDecimals);
  }
}

TEST(PublishedTables, RatesForEqualTimes) {
  for (const UnitRow& row : kUnitRows) {
    for (int i = 0; i < 3; ++i) {
      const UnitRates& rates = row.rates[i];
      if (rates.free_hops < 0) continue;
      const int m = row.p << i;
      SCOPED_TRACE(fmt::format("{} v={} p={} m={}", row.name, row.chunks, row.p, m));
      const Schedule schedule = Generated(row.name, row.p, m, row.chunks);
      const Simulation free = Simulated(schedule, kUnit);
      const Simulation slow = Simulated(schedule, kUnit, kUnit.f / 10);
      constexpr double kOneDecimal = 0.06;  // the table was rounded twice
      const auto rate = [&row](const Simulation& run) {
        return 100 * (row.span ? run.idle.bubble_span : run.idle.bubble_makespan);
      };
      EXPECT_NEAR(rate(free), rates.free_hops, kOneDecimal);
      EXPECT_NEAR(rate(slow), rates.slow_hops, kOneDecimal);
      if (i == 2) {
        EXPECT_DOUBLE_EQ(Peak(free), row.peak < 0 ? m : row.peak);
      }
    }
  }
}

// Unequal times on 8 ranks with 16 microbatches, makespans in units of f.
TEST(PublishedTables, MakespansForUnequalTimes) {
  struct Row {
    const char* name;
    double mild;    // b, w = 1.1, 0.8
    double strong;  // b, w = 1.2, 0.6
  };
  for (const Row& row :
       {Row{"zb-h1", 55.5, 56.0}, Row{"zb-h2", 53.4, 51.8}, Row{"zb-v", 50.25, 49.0},
        Row{"interleaved-1f1b", 56.55, 54.6}, Row{"interleaved-zb", 50.95, 50.4}}) {
    const Schedule schedule = Generated(row.name, 8, 16);
    const auto makespan = [&schedule](int64_t b, int64_t w) {
      return static_cast<double>(
                 Simulated(schedule, {.f = 1000, .b = b, .w = w}).idle.makespan_ns) /
             1000;
    };
    EXPECT_NEAR(makespan(1100, 800), row.mild, 1e-9) << row.name;
    EXPECT_NEAR(makespan(1200, 600), row.strong, 1e-9) << row.name;
  }
  const Schedule dual = Generated("dualpipe", 8, 16);
  EXPECT_EQ(Simulated(dual, {.f = 1000, .b = 1100, .w = 800}).idle.makespan_ns, 50300);
}

}  // namespace
}  // namespace troupe
