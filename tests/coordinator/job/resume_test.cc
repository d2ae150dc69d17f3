#include "coordinator/job/resume.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <optional>

#include "coordinator/job/job_differences.h"
#include "runtime/base/digest.h"
#include "runtime/format/checkpoint_manifest.h"
#include "runtime/format/content_identity.h"
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
    const std::string partial = *BeginCheckpoint(SystemFiles(), checkpoints, step);
    auto writer = *SafetensorsWriter::Create(SystemFiles(), JoinPath(partial, kTensors),
                                             {{.name = "w", .shape = {2}}});
    CHECK(writer.Append(BytesOf("weights!")).ok() && writer.Finish().ok());
    manifest.tensors["w"] =
        WholeTensor(kTensors, TensorDtype::kF32, {2}, DigestOf(BytesOf("weights!")));
    manifest.files[kTensors] = {writer.num_bytes(), writer.digest()};
    manifest.data = *IdentityOfFile(SystemFiles(), job->spec.data().train());
    manifest.optimizer_steps = optimizer_steps_;
    manifest.groups_changed = groups_changed_;
    manifest.skipped_steps = skipped_steps_;
    auto committed = CommitCheckpoint(SystemFiles(), checkpoints, manifest);
    CHECK(committed.ok(), "{}", committed.error().message);
    return *committed;
  }
  Result<std::string> Resume(const std::vector<std::string>& sets) {
    auto job = small_.Load(sets);
    CHECK(job.ok(), "{}", job.error().message);
    auto point = ResolveResume(SystemFiles(), run_, *job);
    spec_ = job->spec;
    effective_text_ = job->effective_text;
    if (!point.ok()) return std::move(point).error();
    notes_ = point->notes;
    return point->folder;
  }
  std::string Refusal(const std::vector<std::string>& sets) {
    const auto folder = Resume(sets);
    return folder.ok() ? "none: " + *folder : folder.error().message;
  }
  std::string Committed(int64_t step) const {
    return JoinPath(run_, fmt::format("checkpoints/step-{:08}", step));
  }
  // Another byte in the one tensor of a checkpoint.
  void Damage(const std::string& folder) {
    const std::string path = JoinPath(folder, kTensors);
    std::string bytes = *SystemFiles().ReadFile(path, 1 << 20);
    bytes.back() ^= 1;
    CHECK(WriteFileAtomically(SystemFiles(), path, bytes).ok());
  }

  JobFolder small_;
  const std::string run_ = small_.folder / "run";
  std::optional<int64_t> optimizer_steps_{};
  bool groups_changed_ = false;
  int64_t skipped_steps_ = 0;
  proto::JobSpec spec_{};
  std::string effective_text_{};
  std::vector<std::string> notes_{};
  static constexpr const char* kTensors = "tensors-00001-of-00001.safetensors";
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
                               "optimizer.betas=[0.9, 0.99]"});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(refused.error().message,
              HasSubstr("--set optimizer.lr=1.0e-3: optimizer.lr was 0.0003, is 0.001: "));
  EXPECT_THAT(refused.error().message, HasSubstr("train.seed was 7, is 8"));
  EXPECT_THAT(refused.error().message,
              HasSubstr("optimizer.betas was [0.9, 0.95], is [0.9, 0.99]"));
}

TEST_F(ResumeTest, OnlyADecayThatHasAnEffectIsADifference) {
  // As job.effective.yaml writes down the defaults of the run that it is from.
  const std::string was =
      "lr_scheduler.decay_steps=" + std::to_string(small_.Load()->spec.train().steps());
  Commit(5);
  EXPECT_EQ(Refusal({"checkpoint.resume=auto", "train.steps=33", was}), "none: " + Committed(5));
  EXPECT_EQ(Refusal({"checkpoint.resume=auto", "lr_scheduler.min_lr=1.0e-5"}),
            "none: " + Committed(5));
  const std::string linear = "lr_scheduler.name=linear";
  Commit(6, /*gradient_groups=*/1, {linear});
  EXPECT_EQ(Refusal({"checkpoint.resume=auto", linear, "train.steps=33"}), "none: " + Committed(6))
      << "it follows the steps";
  EXPECT_EQ(Refusal({"checkpoint.resume=auto", linear, "train.steps=33", was}),
            "none: " + Committed(6))
      << "it stays";
  EXPECT_THAT(Refusal({"checkpoint.resume=auto", linear, "lr_scheduler.decay_steps=11"}),
              HasSubstr("lr_scheduler.decay_steps was 20, is 11"));
}

TEST_F(ResumeTest, GradientGroupsFollowTheCheckpointUnlessGiven) {
  Commit(5, /*gradient_groups=*/2);
  ASSERT_TRUE(Resume({"checkpoint.resume=auto"}).ok());
  EXPECT_EQ(spec_.batch().gradient_groups(), 2);
  EXPECT_THAT(effective_text_, HasSubstr("gradient_groups: 2  # from: checkpoint"));
  const auto given = Resume({"checkpoint.resume=auto", "batch.gradient_groups=4"});
  ASSERT_FALSE(given.ok());
  EXPECT_THAT(given.error().message, HasSubstr("batch.gradient_groups was 2, is 4"));
}

// A rank sums one group, so that other numbers of ranks have other sums; it is said.
TEST_F(ResumeTest, GradientGroupsFollowTheDataParallelRanks) {
  Commit(5, /*gradient_groups=*/1);
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", "parallelism.dp=2"}), "none: " + Committed(5));
  EXPECT_EQ(spec_.batch().gradient_groups(), 2);
  EXPECT_THAT(notes_, ::testing::ElementsAre(HasSubstr(
                          "parallelism.dp = 2: every rank sums one group of a step's microbatches, "
                          "and the run had 1")));
}

// Reduced every microbatch, a group is one of each rank's: another layout keeps the sums where it
// can, and says so where not.
TEST_F(ResumeTest, WhenGradientsAreReducedFollowsTheCheckpointUnlessGiven) {
  const std::vector<std::string> zero_2 = {"parallelism.dp=2", "parallelism.zero_stage=2"};
  Commit(5, /*gradient_groups=*/2, zero_2);
  ASSERT_EQ(Refusal({"checkpoint.resume=auto"}), "none: " + Committed(5));
  EXPECT_EQ(spec_.parallelism().grad_reduce(), "microbatch");
  EXPECT_EQ(spec_.batch().gradient_groups(), 2);
  EXPECT_THAT(effective_text_, HasSubstr("grad_reduce: \"microbatch\"  # from: checkpoint"));
  EXPECT_THAT(notes_, IsEmpty());
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", "parallelism.dp=2"}), "none: " + Committed(5));
  EXPECT_EQ(spec_.parallelism().grad_reduce(), "microbatch") << "ranks that share nothing out, too";

  ASSERT_EQ(Refusal({"checkpoint.resume=auto", "parallelism.dp=4"}), "none: " + Committed(5));
  EXPECT_EQ(spec_.parallelism().grad_reduce(), "step") << "one microbatch a rank closes no groups";
  EXPECT_EQ(spec_.batch().gradient_groups(), 4);
  EXPECT_THAT(notes_,
              ElementsAre(HasSubstr("parallelism.grad_reduce = step: the run had microbatch: from "
                                    "here its sums have another shape")));
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", "parallelism.dp=4", "parallelism.zero_stage=3"}),
            "none: " + Committed(5));
  EXPECT_EQ(spec_.batch().gradient_groups(), 1);
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("batch.gradient_groups = 1, and the run had 2")));
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", "parallelism.dp=2", "parallelism.executor=guided"}),
            "none: " + Committed(5));
  EXPECT_EQ(spec_.parallelism().grad_reduce(), "step") << "what the layout cannot have";
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("parallelism.grad_reduce = step: the run had")));
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", "parallelism.grad_reduce=step"}),
            "none: " + Committed(5));
  EXPECT_EQ(spec_.batch().gradient_groups(), 1) << "given";
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("parallelism.grad_reduce = step: the run had")));
}

TEST_F(ResumeTest, ARunThatAddedGradientsOnceAStepGoesOnSo) {
  Commit(5, /*gradient_groups=*/2, {"parallelism.dp=2"});
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", "parallelism.dp=2", "parallelism.zero_stage=2"}),
            "none: " + Committed(5));
  EXPECT_EQ(spec_.parallelism().grad_reduce(), "step");
  EXPECT_EQ(spec_.batch().gradient_groups(), 2);
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("parallelism.grad_reduce = step, as the run had it")));
}

// Its steps were summed in two shapes: one worker, which has one, is not compared with.
TEST_F(ResumeTest, ARunWhoseGroupsChangedIsNotRepeatedFromTheFirst) {
  groups_changed_ = true;
  Commit(20);
  EXPECT_THAT(Refusal({"checkpoint.resume=auto", "eval.check_against=single_worker"}),
              HasSubstr("one worker cannot repeat them from the first: the run went on with other "
                        "sums of gradients"));
}

// What a step's sum is kept in stays, and may be changed; everything else of a layout is free.
TEST_F(ResumeTest, TheGradientsDtypeFollowsTheCheckpointUnlessGiven) {
  Commit(5, /*gradient_groups=*/1, {"train.grad_dtype=bfloat16"});
  ASSERT_EQ(Refusal({"checkpoint.resume=auto"}), "none: " + Committed(5));
  EXPECT_EQ(spec_.train().grad_dtype(), "bfloat16");
  EXPECT_THAT(effective_text_, HasSubstr("grad_dtype: \"bfloat16\"  # from: checkpoint"));
  EXPECT_THAT(notes_, IsEmpty());
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", "train.grad_dtype=float32"}),
            "none: " + Committed(5));
  EXPECT_EQ(spec_.train().grad_dtype(), "float32");
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("train.grad_dtype = float32: the run had bfloat16: "
                                            "from here its sums are rounded in another way")));
}

TEST_F(ResumeTest, AnyWayToShareOutAndAddUpGoesOnFromAnyOther) {
  const std::vector<std::string> groups = {"parallelism.dp=4", "parallelism.zero_stage=1",
                                           "parallelism.zero_group=2",
                                           "parallelism.persist_elements=100"};
  Commit(5, /*gradient_groups=*/4, groups);
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", "parallelism.dp=4", "parallelism.reduction=ring",
                     "parallelism.zero_stage=3"}),
            "none: " + Committed(5));
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", "parallelism.dp=4",
                     "data_parallel.algorithm=reduce_broadcast"}),
            "none: " + Committed(5));
  EXPECT_EQ(spec_.batch().gradient_groups(), 4);
}

// Order and layout are free; that bits change is said.
TEST_F(ResumeTest, SequencesMayBeSharedByOtherRanks) {
  Commit(5);
  const std::string cp = "parallelism.cp=2";
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", cp}), "none: " + Committed(5));
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("parallelism.cp = 2: the run had 1: from here its sums "
                                            "agree with the earlier ones to rounding")));
  Commit(5, /*gradient_groups=*/1, {cp});
  ASSERT_EQ(
      Refusal({"checkpoint.resume=auto", cp, "parallelism.zero_stage=1", "train.recompute=full"}),
      "none: " + Committed(5));
  EXPECT_THAT(notes_, IsEmpty());
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", cp, "parallelism.cp_load_balance=striped"}),
            "none: " + Committed(5));
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("parallelism.cp = 2: the run had 2, with another "
                                            "cp_method or cp_load_balance")));
  ASSERT_EQ(Refusal({"checkpoint.resume=auto"}), "none: " + Committed(5));
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("parallelism.cp = 1: the run had 2")));
  Commit(5, /*gradient_groups=*/2);
  ASSERT_EQ(Refusal({"checkpoint.resume=auto", cp}), "none: " + Committed(5));
  EXPECT_EQ(spec_.batch().gradient_groups(), 1);
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("parallelism.dp = 1, parallelism.cp = 2: every rank "
                                            "sums one group of a step's microbatches, and the run "
                                            "had 2"),
                                  HasSubstr("parallelism.cp = 2: the run had 1")));
}

TEST_F(ResumeTest, ARunThatIsAlreadyThereIsRefused) {
  Commit(20);
  const auto refused = Resume({"checkpoint.resume=auto"});
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message,
              StartsWith(small_.path + ":12:16: train.steps = 20: the checkpoint"));
  EXPECT_TRUE(Resume({"checkpoint.resume=auto", "train.steps=21"}).ok());
  EXPECT_THAT(Refusal({"checkpoint.resume=auto", "train.steps=19", "checkpoint.save_hf=true"}),
              HasSubstr("is already at step 20"));
}

TEST_F(ResumeTest, WhatComesAfterTheLastStepMayStillBeDone) {
  const std::string last = Commit(20);
  const std::string sample = "eval.sample={prompt: abc}";
  for (const std::string& set : {sample, std::string("checkpoint.save_hf=true"),
                                 std::string("eval.check_against=single_worker")}) {
    EXPECT_EQ(*Resume({"checkpoint.resume=auto", set}), last) << set;
    EXPECT_THAT(notes_, ElementsAre(HasSubstr("all 20 steps are done: what is left"))) << set;
  }
  optimizer_steps_ = 50;
  Commit(20);
  EXPECT_TRUE(Resume({"checkpoint.resume=auto", sample}).ok());
  EXPECT_THAT(Refusal({"checkpoint.resume=auto", "eval.check_against=single_worker"}),
              HasSubstr("one worker cannot repeat them from the first: the run began from another "
                        "run's checkpoint"));
}

TEST_F(ResumeTest, ARunThatSkippedStepsCanBeRepeatedFromTheFirst) {
  const std::string check = "eval.check_against=single_worker";
  optimizer_steps_ = 17;
  skipped_steps_ = 3;
  Commit(20);
  EXPECT_TRUE(Resume({"checkpoint.resume=auto", check}).ok());
  optimizer_steps_ = std::nullopt;  // as many updates of an earlier run as it skipped
  Commit(20);
  EXPECT_THAT(Refusal({"checkpoint.resume=auto", check}),
              HasSubstr("began from another run's checkpoint"));
}

TEST_F(ResumeTest, WhichLabelsCountMayNotChange) {
  Commit(5);
  EXPECT_THAT(Refusal({"checkpoint.resume=auto", "data.ignore_label=0"}),
              HasSubstr("data.ignore_label was not given, is 0"));
}

TEST_F(ResumeTest, TheSameBytesElsewhereAreTheSameData) {
  Commit(5);
  const std::string text = *SystemFiles().ReadFile(small_.folder / "text.txt", 1 << 20);
  small_.folder.Write("moved.txt", text);
  const std::string moved = "data.train=" + (small_.folder / "moved.txt");
  EXPECT_THAT(*Resume({"checkpoint.resume=auto", moved}), EndsWith("step-00000005"));
  EXPECT_THAT(notes_, IsEmpty());
  small_.folder.Write("moved.txt", text + "more");
  EXPECT_THAT(Refusal({"checkpoint.resume=auto", moved}),
              ::testing::AllOf(HasSubstr("--set " + moved + ": data.train = "),
                               HasSubstr("it had 1000 bytes, has 1004"),
                               HasSubstr("data.allow_change=true")));
  small_.folder.Write("moved.txt", "y" + text.substr(1));
  EXPECT_THAT(Refusal({"checkpoint.resume=auto", moved}),
              HasSubstr("has as many bytes as before (1000), but others"));
  EXPECT_TRUE(Resume({"checkpoint.resume=auto", moved, "data.allow_change=true"}).ok());
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("goes on with other data than before")));
}

TEST_F(ResumeTest, ADamagedCheckpointIsNamedAndOnlyAutoTakesTheOneBefore) {
  const std::string five = Commit(5);
  const std::string twelve = Commit(12);
  Damage(twelve);
  const std::string named = JoinPath(twelve, kTensors) + ": tensor w is damaged";
  EXPECT_EQ(*Resume({"checkpoint.resume=auto"}), five);
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("passed over: " + named)));
  EXPECT_THAT(Refusal({"checkpoint.resume=" + run_}),
              ::testing::AllOf(HasSubstr(named), HasSubstr("(" + five + ")")));
  EXPECT_THAT(Refusal({"checkpoint.resume=" + twelve}), HasSubstr(named));
  Damage(five);
  const auto none = Resume({"checkpoint.resume=auto"});
  ASSERT_FALSE(none.ok()) << "nothing starts afresh unasked";
  EXPECT_EQ(none.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(none.error().message, HasSubstr("no checkpoint is whole"));
}

TEST_F(ResumeTest, ANewRunTakesWeightsAndOptimizerState) {
  const std::string five = Commit(5);
  const std::string elsewhere = small_.folder / "elsewhere";
  ASSERT_TRUE(SystemFiles().CreateDirectories(elsewhere).ok());
  ASSERT_TRUE(SystemFiles().Rename(run_, elsewhere + "/run").ok());
  const std::string from = "checkpoint.resume=" + elsewhere + "/run";
  const std::vector<std::string> sets = {from, "optimizer.lr=1.0e-3", "train.seed=8",
                                         "train.steps=9"};
  EXPECT_THAT(Refusal(sets), HasSubstr("checkpoint.resume_as=new_run and another --run-dir"));
  auto anew = sets;
  anew.emplace_back("checkpoint.resume_as=new_run");
  EXPECT_THAT(*Resume(anew), EndsWith("step-00000005"));
  EXPECT_THAT(notes_, ElementsAre(::testing::AllOf(
                          HasSubstr("a new run with weights and optimizer state of"),
                          HasSubstr("optimizer.lr was 0.0003, is 0.001"))));
  anew.emplace_back("model.hidden_size=32");
  EXPECT_THAT(Refusal(anew), HasSubstr("model.hidden_size was 16, is 32"));
}

// Stopped itself, it goes on as every run does.
TEST_F(ResumeTest, ANewRunIsResumedAsTheSame) {
  const std::string five = Commit(5);
  EXPECT_EQ(*Resume({"checkpoint.resume=auto", "checkpoint.resume_as=new_run"}), five);
  EXPECT_EQ(spec_.checkpoint().resume_as(), "same_run");
  EXPECT_THAT(effective_text_, HasSubstr("resume_as: \"same_run\"  # from: checkpoint"));
}

TEST_F(ResumeTest, EqualJobsDoNotDiffer) {
  const auto job = small_.Load();
  ASSERT_TRUE(job.ok());
  EXPECT_THAT(ForbiddenDifferences(job->spec, job->spec), IsEmpty());
}

}  // namespace
}  // namespace troupe::testing
