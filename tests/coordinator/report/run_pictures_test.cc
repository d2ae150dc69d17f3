#include "coordinator/report/run_pictures.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/format/costs_file.h"
#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class RunPicturesTest : public ::testing::Test {
 protected:
  RunPicturesTest() {
    const auto job = JobFolder().Load();
    CHECK(job.ok());
    auto plan = MakeJobPlan(job->spec);
    CHECK(plan.ok());
    plan_.emplace(*std::move(plan));
    pictures_.emplace("small", *plan_, VectorIsa::kAvx2);
  }
  // The rank's actions of a step, each a millisecond long and half of it on a core.
  void TellStep(int32_t rank, int64_t step, size_t count = SIZE_MAX) {
    int64_t now_ns = step * 1'000'000'000;
    for (const Action& action : plan_->train.ranks[static_cast<size_t>(rank)]) {
      if (!IsCompute(action.kind)) continue;
      if (count-- == 0) return;
      pictures_->AddSpan(rank, Span(KindName(action.kind), action, step, now_ns));
      now_ns += 1'000'000;
    }
  }
  // Of both ranks, committed.
  void WholeStep(int64_t step, double seconds = 1.0) {
    for (const int32_t rank : {0, 1}) TellStep(rank, step);
    pictures_->AddStep(step, 0, seconds);
  }
  static proto::Span Span(std::string_view name, const Action& action, int64_t step,
                          int64_t start_ns) {
    proto::Span span;
    span.set_name(std::string(name));
    span.set_category("compute");
    span.set_stage(action.stage.value);
    span.set_microbatch(action.microbatch.value);
    span.set_step(step);
    span.set_start_ns(start_ns);
    span.set_end_ns(start_ns + 1'000'000);
    span.set_cpu_ns(500'000);
    return span;
  }

  std::optional<JobPlan> plan_{};
  std::optional<RunPictures> pictures_{};
};

TEST_F(RunPicturesTest, NothingToldIsNothingDrawn) {
  EXPECT_EQ(pictures_->LossSvg(), "");
  EXPECT_EQ(pictures_->MemorySvg(), "");
  EXPECT_EQ(pictures_->ScheduleSvg(), "");
}

TEST_F(RunPicturesTest, AStepIsDrawnWhenEveryRankHasToldAllOfIt) {
  TellStep(0, 1);
  TellStep(1, 1, /*count=*/3);
  pictures_->AddStep(1, 0, 1.0);
  EXPECT_EQ(pictures_->drawn_step(), 0);
  WholeStep(2);
  EXPECT_EQ(pictures_->drawn_step(), 2);
  const std::string svg = pictures_->ScheduleSvg();
  EXPECT_THAT(svg, HasSubstr("measured, step 2, of median time among 1 steps"));
  EXPECT_THAT(svg, HasSubstr("replayed with this step's times"));
  EXPECT_THAT(svg, HasSubstr("waiting for a core"));
  EXPECT_THAT(svg, HasSubstr("</svg>"));
}

// What `troupe plan` prints: its bubble, whatever the step measured.
TEST_F(RunPicturesTest, PlannedIsThePlansOwn) {
  WholeStep(1);
  const std::string planned =
      fmt::format("bubble {:.1f} % of it", 100 * plan_->simulation.idle.bubble_makespan);
  const std::string svg = pictures_->ScheduleSvg();
  const size_t at = svg.find("planned, by operations");
  ASSERT_NE(at, std::string::npos);
  EXPECT_THAT(svg.substr(at, svg.find("replayed") - at), HasSubstr(planned));
}

TEST_F(RunPicturesTest, TheMedianStepIsDrawn) {
  WholeStep(1, 5.0);
  WholeStep(2, 1.0);
  WholeStep(3, 1.5);
  EXPECT_EQ(pictures_->drawn_step(), 3);
  EXPECT_THAT(pictures_->ScheduleSvg(), HasSubstr("step 3, of median time among 3 steps"));
}

TEST_F(RunPicturesTest, EvaluationUnderAStepsNumberIsNotTheSteps) {
  TellStep(0, 1);
  Action forward;
  forward.stage = StageId(0);
  for (int i = 0; i < 20; ++i) pictures_->AddSpan(0, Span("Forward", forward, 1, 5'000'000'000));
  TellStep(1, 1);
  pictures_->AddStep(1, 0, 1.0);
  EXPECT_EQ(pictures_->drawn_step(), 1);
  EXPECT_THAT(pictures_->ScheduleSvg(), HasSubstr("makespan 8"))
      << "eight actions of a millisecond, no second-long gap";
}

TEST_F(RunPicturesTest, SpansOutOfRangeAreIgnored) {
  Action action;
  action.stage = StageId(99);
  pictures_->AddSpan(0, Span("Forward", action, 1, 0));
  action.stage = StageId(0);
  pictures_->AddSpan(-1, Span("Forward", action, 1, 0));
  pictures_->AddSpan(77, Span("Forward", action, 1, 0));
  pictures_->AddSpan(0, Span("no such action", action, 1, 0));
  EXPECT_EQ(pictures_->drawn_step(), 0);
}

TEST_F(RunPicturesTest, StepsThatNeverCompleteAreForgotten) {
  for (int64_t step = 1; step <= 1000; ++step) {
    TellStep(0, step);
    pictures_->AddStep(step, 0, 1.0);
  }
  TellStep(1, 1);
  EXPECT_EQ(pictures_->drawn_step(), 0) << "step 1 was dropped";
  TellStep(1, 1000);
  EXPECT_EQ(pictures_->drawn_step(), 1000);
}

TEST_F(RunPicturesTest, LossShowsValidationWhereThereIsOne) {
  pictures_->AddLoss(1, 5.5);
  pictures_->AddLoss(2, 4.5);
  EXPECT_THAT(pictures_->LossSvg(), Not(HasSubstr("validation")));
  pictures_->AddValidationLoss(2, 4.75);
  EXPECT_THAT(pictures_->LossSvg(), HasSubstr("validation 4.75"));
}

TEST_F(RunPicturesTest, ALongCurveKeepsItsEndsAndTakesNoMoreRoom) {
  for (int64_t step = 1; step <= 40'000; ++step) {
    pictures_->AddLoss(step, 6.0 - 1e-4 * static_cast<double>(step));
  }
  const std::string long_run = pictures_->LossSvg();
  for (int64_t step = 40'001; step <= 2'000'000; ++step) pictures_->AddLoss(step, 2.0);
  EXPECT_LT(pictures_->LossSvg().size(), 3 * long_run.size());
  EXPECT_THAT(pictures_->LossSvg(), HasSubstr("train 2"));
  LongCurve curve;
  for (int i = 0; i < 1'000'000; ++i) curve.Add(i, i);
  const auto& points = curve.series.points;
  ASSERT_LE(points.size(), LongCurve::kPointsMax);
  EXPECT_EQ(points.front().x, 0);
  EXPECT_EQ(points.back().x, 999'999);
  for (size_t i = 2; i + 1 < points.size(); ++i) {
    ASSERT_EQ(points[i].x - points[i - 1].x, points[1].x - points[0].x) << "evenly apart";
  }
}

TEST_F(RunPicturesTest, CostsAreTheDrawnSteps) {
  EXPECT_EQ(pictures_->CostsJson(), "");
  WholeStep(1);
  const auto costs = ParseCostsFile(pictures_->CostsJson(), "costs.json");
  ASSERT_TRUE(costs.ok()) << costs.error().message;
  EXPECT_EQ(costs->unit, "ms");
  EXPECT_EQ(costs->step, 1);
  ASSERT_EQ(costs->stages.size(), 2U);
  EXPECT_EQ(costs->stages[1], (StageTimes{.forward = 0.5, .backward = 0.5})) << "of CPU";
}

TEST(MeasuredCostsTest, APartsTimesAddUpToTheWhole) {
  Timeline timeline{.num_ranks = 1};
  for (int microbatch = 0; microbatch < 2; ++microbatch) {
    timeline.bars.push_back({.action = {.kind = ActionKind::kBackwardInput}, .cpu_ns = 50});
    for (int part = 0; part < 4; ++part) {
      timeline.bars.push_back({.action = {.kind = ActionKind::kBackwardWeight}, .cpu_ns = 10});
    }
  }
  const CostModel costs = MeasuredCosts(timeline, 1);
  EXPECT_EQ(costs.stages[0].backward_weight_ns, 40);
  EXPECT_EQ(costs.stages[0].backward_input_ns, 50);
  EXPECT_EQ(costs.stages[0].backward_ns, -1);
}

TEST(MeasuredCostsTest, AreMeansOfCpuTimeByStageAndKind) {
  Timeline timeline{.num_ranks = 1};
  for (const int64_t cpu_ns : {10, 30}) {
    Bar bar;
    bar.action.kind = ActionKind::kBackward;
    bar.cpu_ns = cpu_ns;
    timeline.bars.push_back(bar);
    bar.action.kind = ActionKind::kForward;
    bar.cpu_ns = cpu_ns / 10;
    timeline.bars.push_back(bar);
  }
  const CostModel costs = MeasuredCosts(timeline, 2);
  EXPECT_EQ(costs.stages[0].backward_ns, 20);
  EXPECT_EQ(costs.stages[0].forward_ns, 2);
  EXPECT_EQ(costs.stages[1].backward_ns, -1) << "not measured";
}

}  // namespace
}  // namespace troupe::testing
