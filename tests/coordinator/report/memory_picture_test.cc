#include "coordinator/report/memory_picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/memory/memory_course.h"
#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMiB = 1 << 20;

JobPlan PlanOf(const std::vector<std::string>& sets = {}) {
  const auto job = JobFolder().Load(sets);
  CHECK(job.ok(), "{}", job.error().message);
  auto plan = MakeJobPlan(job->spec);
  CHECK(plan.ok(), "{}", plan.error().message);
  return *std::move(plan);
}

// Two tags of as many bytes each.
proto::MemoryReport Report(int64_t bytes) {
  proto::MemoryReport report;
  for (const char* name : {"params", "activations"}) {
    auto* tag = report.add_tags();
    tag->set_tag(name);
    tag->set_current_bytes(bytes);
    tag->set_predicted_bytes(10 * kMiB);
  }
  return report;
}

// A step of 4 ms in which activations rise to `peak_mib` beside 2 MiB of parameters, and fall.
proto::StepMemory Step(int64_t step, int64_t peak_mib) {
  proto::StepMemory memory;
  memory.set_step(step);
  memory.set_predicted_bytes((peak_mib + 3) * kMiB);
  for (int tag = 0; tag < kNumMemoryTags; ++tag) {
    memory.add_tags(std::string(MemoryTagName(static_cast<MemoryTag>(tag))));
  }
  for (int ms = 0; ms <= 4; ++ms) {
    auto* sample = memory.add_samples();
    sample->set_time_ns(ms * 1'000'000);
    sample->set_allocated_bytes((peak_mib + 2) * kMiB);
    for (int tag = 0; tag < kNumMemoryTags; ++tag) sample->add_used_bytes(0);
    sample->set_used_bytes(static_cast<int>(MemoryTag::kParams), 2 * kMiB);
    sample->set_used_bytes(static_cast<int>(MemoryTag::kActivations),
                           peak_mib * kMiB * (ms < 2 ? ms : 4 - ms) / 2);
  }
  return memory;
}

class MemoryPictureTest : public ::testing::Test {
 protected:
  MemoryPictureTest() { Replan(PlanOf()); }
  void Replan(const JobPlan& plan) { picture_.Replan(plan, VectorIsa::kAvx2); }

  MemoryPicture picture_{"small"};
};

TEST_F(MemoryPictureTest, TheRunIsTheFullestRanksAndBounded) {
  picture_.AddReport(1, 0.0, Report(7 * kMiB));
  EXPECT_EQ(picture_.Svg(), "") << "rank 0 holds more microbatches";
  for (int i = 0; i < 10'000; ++i) {
    picture_.AddReport(0, i, Report(i == 4321 ? 9 * kMiB : kMiB));
  }
  const std::string svg = picture_.Svg();
  EXPECT_THAT(svg, HasSubstr("memory of rank 0, the fullest of 2"));
  EXPECT_THAT(svg, HasSubstr("predicted without other 20 MiB")) << "by the rank itself";
  EXPECT_THAT(svg, HasSubstr("peak 18")) << "thinning keeps the peak";
  EXPECT_THAT(svg, Not(HasSubstr("memory in use"))) << "no step was told";
}

TEST_F(MemoryPictureTest, MemoryBeyondTheTagsIsDrawn) {
  proto::MemoryReport report = Report(kMiB);
  report.set_resident_bytes(50 * kMiB);
  report.set_other_bytes(48 * kMiB);
  for (int second = 0; second < 3; ++second) picture_.AddReport(0, second, report);
  EXPECT_THAT(picture_.Svg(), HasSubstr(">other"));
  EXPECT_THAT(picture_.Svg(), HasSubstr("peak 50"));
}

TEST_F(MemoryPictureTest, TheLatestStepThatAllRanksToldStandsAboveTheRun) {
  picture_.AddReport(0, 1, Report(kMiB));
  picture_.AddStep(0, Step(3, 16));
  EXPECT_EQ(picture_.drawn_step(), 0) << "rank 1 has not told it";
  picture_.AddStep(0, Step(4, 24));
  picture_.AddStep(1, Step(3, 8));
  EXPECT_EQ(picture_.drawn_step(), 3);
  picture_.AddStep(1, Step(4, 12));
  EXPECT_EQ(picture_.drawn_step(), 4);
  picture_.AddStep(0, Step(5, 30));
  EXPECT_EQ(picture_.drawn_step(), 4);
  const std::string svg = picture_.Svg();
  EXPECT_THAT(svg, HasSubstr("small · memory in use, step 4</text>"));
  EXPECT_THAT(svg, HasSubstr("rank 0 · stage 0 · predicted peak 27 MiB"));
  EXPECT_THAT(svg, HasSubstr("rank 1 · stage 1 · predicted peak 15 MiB"));
  EXPECT_THAT(svg, HasSubstr("peak 26 MiB")) << "of what is in use";
  EXPECT_THAT(svg, HasSubstr("peak 14 MiB"));
  EXPECT_THAT(svg, HasSubstr(">allocated</text>"));
  EXPECT_LT(svg.find("memory in use"), svg.find("the fullest of 2"));
}

TEST_F(MemoryPictureTest, OfManyRanksTheFirstAndTheLastAreShown) {
  Replan(PlanOf({"parallelism.dp=8", "batch.global_batch_size=16"}));
  for (const int32_t rank : {0, 1, 2, 3, 12, 13, 14, 15}) picture_.AddStep(rank, Step(1, 8));
  EXPECT_EQ(picture_.drawn_step(), 1) << "the others are not waited for";
  const std::string svg = picture_.Svg();
  EXPECT_THAT(svg, HasSubstr("step 1, the first 4 and the last 4 of 16 ranks"));
  EXPECT_THAT(svg, HasSubstr("rank 12 · stage 1"));
  EXPECT_THAT(svg, Not(HasSubstr("rank 4 ·")));
}

TEST_F(MemoryPictureTest, StepsOfRanksThatStartAnewAreNotMixedWithEarlierOnes) {
  picture_.AddStep(0, Step(3, 16));
  Replan(PlanOf());
  picture_.AddStep(1, Step(3, 16));
  EXPECT_EQ(picture_.drawn_step(), 0);
  picture_.AddStep(0, Step(3, 16));
  EXPECT_EQ(picture_.drawn_step(), 3);
}

TEST_F(MemoryPictureTest, WhatNoRankOfOursSaysIsNotDrawn) {
  std::vector<proto::StepMemory> wrong(6, Step(1, 8));
  wrong[0].clear_samples();
  wrong[1].add_tags("one more");
  wrong[2].mutable_samples(1)->add_used_bytes(1);
  wrong[3].mutable_samples(1)->set_used_bytes(0, -1);
  wrong[4].mutable_samples(3)->set_time_ns(1);
  while (wrong[5].samples_size() <= MemoryPicture::kStepSamplesMax) {
    *wrong[5].add_samples() = wrong[5].samples(4);
  }
  for (const proto::StepMemory& step : wrong) {
    for (const int32_t rank : {0, 1}) picture_.AddStep(rank, step);
    EXPECT_EQ(picture_.drawn_step(), 0);
  }
  for (const int32_t rank : {-1, 0, 2}) picture_.AddStep(rank, Step(1, 8));
  EXPECT_EQ(picture_.drawn_step(), 0);
  EXPECT_LE(MemoryCourse::kSamplesMax, size_t{MemoryPicture::kStepSamplesMax});
}

TEST_F(MemoryPictureTest, StepsThatNeverBecomeWholeAreForgotten) {
  for (int64_t step = 1; step <= 100; ++step) picture_.AddStep(0, Step(step, 8));
  picture_.AddStep(1, Step(1, 8));
  EXPECT_EQ(picture_.drawn_step(), 0) << "step 1 was dropped";
  picture_.AddStep(1, Step(100, 8));
  EXPECT_EQ(picture_.drawn_step(), 100);
}

}  // namespace
}  // namespace troupe::testing
