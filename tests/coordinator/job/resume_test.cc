#include "coordinator/job/resume.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include "runtime/format/checkpoint_manifest.h"
#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class ResumeTest : public ::testing::Test {
 protected:
  // A checkpoint of the small job under `sets`, as a run writes it; returns its folder.
  std::string Commit(int64_t step, int32_t gradient_groups = 1,
                     const std::vector<std::string>& sets = {}) {
    CheckpointManifest manifest;
    manifest.step = step;
    manifest.gradient_groups = gradient_groups;
    auto job = small_.Load(sets);
    CHECK(job.ok());
    job->spec.mutable_batch()->set_gradient_groups(gradient_groups);
    CHECK(google::protobuf::util::MessageToJsonString(job->spec, &manifest.job_json).ok());
    const std::string checkpoints = JoinPath(run_, "checkpoints");
    CHECK(SystemFiles().CreateDirectories(checkpoints).ok());
    CHECK(BeginCheckpoint(SystemFiles(), checkpoints, step).ok());
    auto committed = CommitCheckpoint(SystemFiles(), checkpoints, manifest);
    CHECK(committed.ok(), "{}", committed.error().message);
    return *committed;
  }
  Result<std::string> Resume(const std::vector<std::string>& sets) {
    auto job = small_.Load(sets);
    CHECK(job.ok(), "{}", job.error().message);
    auto folder = ResolveResume(SystemFiles(), run_, *job);
    gradient_groups_ = job->spec.batch().gradient_groups();
    effective_text_ = job->effective_text;
    return folder;
  }

  JobFolder small_;
  const std::string run_ = small_.folder / "run";
  int32_t gradient_groups_ = 0;
  std::string effective_text_{};
};

TEST_F(ResumeTest, NeverStartsAfresh) {
  Commit(5);
  const auto folder = Resume({});
  ASSERT_TRUE(folder.ok());
  EXPECT_EQ(*folder, "");
}

TEST_F(ResumeTest, AutoTakesTheNewestAndNoneIsAFreshStart) {
  EXPECT_EQ(*Resume({"checkpoint.resume=auto"}), "");
  Commit(5);
  Commit(12);
  const auto folder = Resume({"checkpoint.resume=auto"});
  ASSERT_TRUE(folder.ok()) << folder.error().message;
  EXPECT_THAT(*folder, EndsWith("step-00000012"));
}

TEST_F(ResumeTest, APathIsACheckpointOrARun) {
  const std::string five = Commit(5);
  Commit(12);
  EXPECT_EQ(*Resume({"checkpoint.resume=" + five}), five);
  EXPECT_THAT(*Resume({"checkpoint.resume=" + run_}), EndsWith("step-00000012"));
  const auto nowhere = Resume({"checkpoint.resume=" + small_.folder.path() + "/nowhere"});
  ASSERT_FALSE(nowhere.ok());
  const std::string key = "checkpoint.resume";
  const std::string path = small_.folder / "nowhere";
  EXPECT_THAT(nowhere.error().message, StartsWith("--set " + key + "=" + path + ": " + key + " = " +
                                                  path + ": there is no committed checkpoint"));
}

TEST_F(ResumeTest, LayoutLengthAndReportsMayDiffer) {
  Commit(5);
  const auto folder =
      Resume({"checkpoint.resume=auto", "parallelism.pp=4", "train.steps=40", "log.every=3",
              "train.stop_after=9", "checkpoint.every=2", "name=other", "eval.batches=2",
              "model.eos_token_id=[1]", "model.pad_token_id=0"});
  ASSERT_TRUE(folder.ok()) << folder.error().message;
  EXPECT_THAT(*folder, EndsWith("step-00000005"));
}

TEST_F(ResumeTest, ARunCutShortInItsWarmUpMayGoOn) {
  const std::vector<std::string> warming = {"checkpoint.resume=auto", "lr_scheduler.name=cosine",
                                            "lr_scheduler.warmup_steps=30"};
  Commit(5, /*gradient_groups=*/1, warming);
  auto longer = warming;
  longer.push_back("train.steps=60");
  EXPECT_TRUE(Resume(longer).ok());
}

TEST_F(ResumeTest, WhatMustNotDifferIsRefusedByName) {
  Commit(5);
  const auto refused = Resume({"checkpoint.resume=auto", "optimizer.lr=1.0e-3", "train.seed=8",
                               "lr_scheduler.decay_steps=11", "optimizer.betas=[0.9, 0.99]"});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(refused.error().message,
              HasSubstr("--set optimizer.lr=1.0e-3: optimizer.lr was 0.0003, is 0.001: "));
  EXPECT_THAT(refused.error().message, HasSubstr("train.seed was 7, is 8"));
  EXPECT_THAT(refused.error().message, HasSubstr("lr_scheduler.decay_steps was not given, is 11"));
  EXPECT_THAT(refused.error().message,
              HasSubstr("optimizer.betas was [0.9, 0.95], is [0.9, 0.99]"));
}

TEST_F(ResumeTest, GradientGroupsFollowTheCheckpointUnlessGiven) {
  Commit(5, /*gradient_groups=*/2);
  ASSERT_TRUE(Resume({"checkpoint.resume=auto"}).ok());
  EXPECT_EQ(gradient_groups_, 2);
  EXPECT_THAT(effective_text_, HasSubstr("gradient_groups: 2  # from: checkpoint"));
  const auto given = Resume({"checkpoint.resume=auto", "batch.gradient_groups=4"});
  ASSERT_FALSE(given.ok());
  EXPECT_THAT(given.error().message, HasSubstr("batch.gradient_groups was 2, is 4"));
}

TEST_F(ResumeTest, ARunThatIsAlreadyThereIsRefused) {
  Commit(20);
  const auto refused = Resume({"checkpoint.resume=auto"});
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message,
              StartsWith(small_.path + ":12:16: train.steps = 20: the checkpoint"));
  EXPECT_TRUE(Resume({"checkpoint.resume=auto", "train.steps=21"}).ok());
}

TEST_F(ResumeTest, EqualJobsDoNotDiffer) {
  const auto job = small_.Load();
  ASSERT_TRUE(job.ok());
  EXPECT_THAT(ForbiddenDifferences(job->spec, job->spec), IsEmpty());
}

}  // namespace
}  // namespace troupe::testing
