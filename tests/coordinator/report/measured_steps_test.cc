#include "coordinator/report/measured_steps.h"

#include <gtest/gtest.h>

#include "actors/schedule/csv.h"
#include "actors/schedule/validator.h"
#include "tests/support/job_folder.h"

namespace troupe {
namespace {

JobPlan Plan(const std::vector<std::pair<std::string, int>>& schedules_and_parts) {
  const auto job = testing::JobFolder().Load();
  CHECK(job.ok());
  std::vector<proto::Parallelism> orders;
  for (const auto& [name, parts] : schedules_and_parts) {
    proto::Parallelism order = job->spec.parallelism();
    order.set_schedule(name);
    order.set_weight_parts(parts);
    orders.push_back(order);
  }
  auto plan = MakeJobPlan(job->spec, orders);
  CHECK(plan.ok(), "{}", plan.error().message);
  return *std::move(plan);
}

// Tells the actions of a list one after the other, as a rank's trace does: without part and pair.
void Tell(MeasuredSteps& steps, const Schedule& schedule, int32_t rank, int64_t step,
          size_t count = SIZE_MAX) {
  int64_t now_ns = 1000;
  for (const Action& action : schedule.ranks[static_cast<size_t>(rank)]) {
    if (action.kind == ActionKind::kWaitReduceGrad) continue;
    if (count-- == 0) return;
    proto::Span span;
    span.set_name(std::string(KindName(action.kind)));
    span.set_stage(action.stage.value);
    span.set_microbatch(HasMicrobatch(action) ? action.microbatch.value : -1);
    span.set_step(step);
    span.set_start_ns(now_ns);
    span.set_end_ns(now_ns + 10);
    steps.AddSpan(rank, span);
    now_ns += 10;
  }
}

TEST(MeasuredSteps, AStepIsKeptAsItRan) {
  const JobPlan plan = Plan({{"zb-h1", 3}});
  MeasuredSteps steps(plan);
  Tell(steps, plan.train, 0, 4);
  EXPECT_EQ(steps.step(), 0);
  Tell(steps, plan.train, 1, 4);
  EXPECT_EQ(steps.step(), 0) << "not committed";
  steps.AddStep(4, 0, 1.0);
  EXPECT_EQ(steps.step(), 4);
  EXPECT_EQ(ToCsv(steps.AsRun()), ToCsv(plan.train)) << "with the parts of weight gradients";
}

// A list's gathers and sums are told, and drawn, with its compute actions.
TEST(MeasuredSteps, CollectivesOfTheListCount) {
  auto job = testing::JobFolder().Load();
  ASSERT_TRUE(job.ok());
  std::string lists;
  for (const char* const stage : {"0", "1"}) {
    std::string row = fmt::format("{0}UNSHARD,", stage);
    const JobPlan whole = Plan({{"gpipe", 1}});
    for (const Action& action : whole.train.ranks[static_cast<size_t>(*stage - '0')]) {
      row += ToString(action) + ",";
    }
    lists += row + fmt::format("{0}RESHARD,{0}REDUCE_GRAD,{0}WAIT_REDUCE_GRAD\n", stage);
  }
  job->spec.mutable_parallelism()->set_schedule_actions(lists);
  const auto plan = MakeJobPlan(job->spec, {});
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  MeasuredSteps steps(*plan);
  for (const int rank : {0, 1}) Tell(steps, plan->train, rank, 4);
  steps.AddStep(4, 0, 1.0);
  ASSERT_EQ(steps.step(), 4);
  EXPECT_EQ(ToCsv(steps.AsRun()), ToCsv(plan->train));
  EXPECT_EQ(ToString(steps.timeline().bars.front().action), "0UNSHARD");
}

TEST(MeasuredSteps, TheOrderOfRunningIsKeptNotTheListed) {
  const JobPlan plan = Plan({{"zb-h1", 1}});
  Schedule swapped = plan.train;
  std::vector<Action>& last = swapped.ranks[1];
  const auto weight = std::ranges::find_if(
      last, [](const Action& action) { return action.kind == ActionKind::kBackwardWeight; });
  ASSERT_LT(weight + 1, last.end());
  std::iter_swap(weight, weight + 1);
  MeasuredSteps steps(plan);
  steps.AddStep(1, 0, 1.0);
  for (const int rank : {0, 1}) Tell(steps, swapped, rank, 1);
  EXPECT_EQ(ToCsv(steps.AsRun()), ToCsv(swapped));
  EXPECT_TRUE(Validate(steps.AsRun()).ok());
}

// Which order a step ran is known when it has committed, before or after its spans.
TEST(MeasuredSteps, AStepOfSeveralOrdersWaitsForItsNumber) {
  const JobPlan plan = Plan({{"1f1b", 1}, {"zb-h1", 1}, {"zb-h1", 2}});
  MeasuredSteps steps(plan);
  const Schedule& halves = plan.others[0].schedule;
  for (const int rank : {0, 1}) Tell(steps, halves, rank, 1);
  EXPECT_EQ(steps.step(), 0);
  steps.AddStep(1, 1, 1.0);
  EXPECT_EQ(steps.step(), 1);
  EXPECT_EQ(ToCsv(steps.AsRun()), ToCsv(halves));
  const Schedule& parts = plan.others[1].schedule;
  steps.AddStep(2, 2, 1.0);
  Tell(steps, parts, 0, 2);
  Tell(steps, parts, 1, 2, /*count=*/3);
  EXPECT_EQ(steps.num_whole(), 1);
  Tell(steps, plan.train, 0, 3);
  Tell(steps, plan.train, 1, 3);
  steps.AddStep(3, 0, 0.5);
  EXPECT_EQ(steps.step(), 3) << "the lower one of two";
  EXPECT_EQ(ToCsv(steps.AsRun()), ToCsv(plan.train));
  steps.AddStep(9, 7, 0.5);
  EXPECT_EQ(steps.num_whole(), 2) << "there is no such order";
}

class MedianStep : public ::testing::Test {
 protected:
  void Whole(int64_t step, double seconds) {
    for (const int rank : {0, 1}) Tell(steps_, plan_.train, rank, step);
    steps_.AddStep(step, 0, seconds);
  }
  const JobPlan plan_ = Plan({{"1f1b", 1}});
  MeasuredSteps steps_{plan_};
};

TEST_F(MedianStep, IsNeitherTheFirstNorTheNewest) {
  Whole(1, 9.0);  // warms up
  Whole(2, 1.0);
  Whole(3, 1.2);
  Whole(4, 1.1);
  Whole(5, 7.0);  // a hiccup
  EXPECT_EQ(steps_.step(), 3);
  EXPECT_EQ(steps_.num_whole(), 5);
}

TEST_F(MedianStep, OfALongRunIsThatOfEquallySpacedSteps) {
  for (int64_t step = 1; step <= 10'000; ++step) Whole(step, static_cast<double>(step));
  EXPECT_EQ(steps_.num_whole(), 10'000);
  EXPECT_NEAR(static_cast<double>(steps_.step()), 5000, 200) << "no age is preferred";
}

// Two pipelines of two: ranks 0 and 2 are one, 1 and 3 the other.
TEST(MeasuredSteps, ThePictureIsOfRankZerosPipeline) {
  JobPlan plan = Plan({{"1f1b", 1}});
  proto::Parallelism wider;
  wider.set_dp(2);
  wider.set_pp(2);
  plan.mesh = *Mesh::FromSpec(wider);
  MeasuredSteps steps(plan);
  steps.AddStep(1, 0, 1.0);
  proto::Span span;
  span.set_name(std::string(KindName(ActionKind::kForward)));
  span.set_step(1);
  for (const int rank : {-1, 1, 3, 4}) steps.AddSpan(rank, span);
  EXPECT_EQ(steps.step(), 0);
  for (const int place : {0, 1}) {
    for (const Action& action : plan.train.ranks[static_cast<size_t>(place)]) {
      span.set_name(std::string(KindName(action.kind)));
      span.set_stage(action.stage.value);
      span.set_microbatch(action.microbatch.value);
      steps.AddSpan(2 * place, span);
    }
  }
  EXPECT_EQ(steps.step(), 1);
  EXPECT_EQ(steps.timeline().num_ranks, 2);
}

}  // namespace
}  // namespace troupe
