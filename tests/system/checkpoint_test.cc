// Runs that stop and go on, by the real programs: what a checkpoint is tied to, and how what is
// wrong with it is told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/shell.h"
#include "tests/support/small_job.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class CheckpointRunTest : public ::testing::Test {
 protected:
  CheckpointRunTest() { testing::WriteSmallJob(folder_); }
  testing::ShellResult In(const std::string& commands) {
    return testing::Shell("cd " + folder_.path() + " && PATH=" TROUPE_BINARY_DIR "/bin:$PATH && " +
                          commands);
  }
  // Changes the last byte of a file.
  void Damage(const std::string& file) {
    const auto done = In("f=" + file +
                         " && n=$(stat -c %s $f) && printf '\\377' | dd of=$f bs=1 "
                         "seek=$((n - 1)) conv=notrunc 2>&1");
    ASSERT_EQ(done.exit_code, 0) << done.output;
  }
  testing::TemporaryFolder folder_;
};

TEST_F(CheckpointRunTest, ADamagedCheckpointIsNamedAndTheOneBeforeIsTakenAndSaid) {
  ASSERT_EQ(In("troupe run job.yaml --set checkpoint.every=2 --run-dir a 2>&1").exit_code, 0);
  EXPECT_EQ(In("troupe ckpt verify a 2>&1").exit_code, 0);
  const std::string file = "a/checkpoints/step-00000006/optim-00002-of-00004.safetensors";
  Damage(file);
  const auto verified = In("troupe ckpt verify a 2>&1");
  EXPECT_EQ(verified.exit_code, 1);
  EXPECT_THAT(verified.output, HasSubstr(file + ": tensor model.layers.1."));
  EXPECT_THAT(verified.output, HasSubstr("step-00000004: whole, "));
  const auto by_path =
      In("troupe run job.yaml --set train.steps=8 --run-dir b --resume a/checkpoints/step-00000006 "
         "2>&1");
  EXPECT_EQ(by_path.exit_code, 2) << by_path.output;
  EXPECT_THAT(by_path.output, HasSubstr(file + ": tensor model.layers.1."));
  const auto resumed = In("troupe run job.yaml --set train.steps=8 --run-dir a --resume 2>&1");
  EXPECT_EQ(resumed.exit_code, 2) << resumed.output;
  EXPECT_THAT(resumed.output, HasSubstr("or the newest whole one of --run-dir with auto"));
  const auto passed = In("troupe run job.yaml --set train.steps=8 --run-dir a --resume auto 2>&1");
  EXPECT_EQ(passed.exit_code, 0) << passed.output;
  EXPECT_THAT(passed.output, HasSubstr("passed over: "));
  EXPECT_THAT(passed.output, HasSubstr("a/checkpoints/step-00000004\n"));
  EXPECT_EQ(In("grep -c '\"loss\"' a/metrics.jsonl").output, "8\n");
  EXPECT_EQ(In("troupe ckpt verify nowhere 2>&1").exit_code, 2);
  EXPECT_THAT(In("troupe ckpt list a -o json").output, HasSubstr("\"has_digests\": true"));
  EXPECT_THAT(In("troupe ckpt show a").output, HasSubstr("model.layers.3.mlp.down_proj.weight"));
}

TEST_F(CheckpointRunTest, DataAreWhatTheyHoldWhereverTheyLie) {
  ASSERT_EQ(
      In("troupe run job.yaml --set train.stop_after=3 --run-dir a 2>&1 && cp text.txt moved.txt")
          .exit_code,
      0);
  const std::string resume = "troupe run job.yaml --resume --set data.train=moved.txt --run-dir ";
  ASSERT_EQ(In("echo more >>moved.txt").exit_code, 0);
  const auto longer = In(resume + "a 2>&1");
  EXPECT_EQ(longer.exit_code, 2);
  EXPECT_THAT(longer.output, HasSubstr("moved.txt: it had "));
  const auto allowed = In("cp -r a b && " + resume + "b --set data.allow_change=true 2>&1");
  EXPECT_EQ(allowed.exit_code, 0) << allowed.output;
  const auto moved = In("mv text.txt moved.txt && " + resume + "a 2>&1");
  EXPECT_EQ(moved.exit_code, 0) << moved.output;
  EXPECT_EQ(In("grep -c '\"loss\"' a/metrics.jsonl").output, "6\n");
}

TEST_F(CheckpointRunTest, ARunWhoseStepsAreDoneSamplesAndComparesWhenItGoesOn) {
  ASSERT_EQ(In("troupe run job.yaml --run-dir a 2>&1").exit_code, 0);
  const auto rest =
      In("troupe run job.yaml --run-dir a --resume --set eval.check_against=single_worker "
         "--set eval.sample.prompt=a --set eval.sample.tokens=4 --set eval.every=3 "
         "--set checkpoint.save_hf=true 2>&1");
  EXPECT_EQ(rest.exit_code, 0) << rest.output;
  EXPECT_THAT(rest.output, HasSubstr("all 6 steps are done"));
  EXPECT_THAT(rest.output, HasSubstr("sampled:"));
  EXPECT_THAT(rest.output, HasSubstr("val/loss"));
  EXPECT_THAT(rest.output, HasSubstr("parameters bit-equal after 6 steps on one worker"));
  EXPECT_EQ(In("ls a/hf/config.json").exit_code, 0);
  EXPECT_EQ(In("grep -c '\"loss\"' a/metrics.jsonl").output, "6\n");
}

// Weights and moments of another run, counted from 0: its own checkpoint knows the moments' age.
TEST_F(CheckpointRunTest, ANewRunBeginsWithTheWeightsAndOptimizerOfAnother) {
  ASSERT_EQ(In("troupe run job.yaml --run-dir a 2>&1").exit_code, 0);
  const auto anew =
      In("troupe run job.yaml --run-dir b --resume a --set checkpoint.resume_as=new_run "
         "--set optimizer.lr=1e-4 --set train.steps=4 2>&1 && troupe ckpt show b -o json && "
         "grep -c '\"loss\"' b/metrics.jsonl");
  EXPECT_EQ(anew.exit_code, 0) << anew.output;
  EXPECT_THAT(anew.output, HasSubstr("a new run with weights and optimizer state of"));
  EXPECT_THAT(anew.output, HasSubstr("optimizer.lr was 0.001, is 0.0001"));
  EXPECT_THAT(anew.output, HasSubstr("\"step\": 4"));
  EXPECT_THAT(anew.output, HasSubstr("\"optimizer_updates\": 10"));
  EXPECT_THAT(anew.output, HasSubstr("\n4\n"));
}

TEST_F(CheckpointRunTest, ATextThatIsCutWhileItIsReadIsNamed) {
  const auto run = In("{ troupe run job.yaml --set train.steps=100000 --run-dir a >out 2>&1 &\n" +
                      testing::AwaitLine("^step ", "out", "$!") +
                      ": > text.txt; wait $!; echo code $?; cat out; }");
  EXPECT_THAT(run.output, HasSubstr("code 1\n"));
  EXPECT_THAT(run.output, HasSubstr("text.txt: was cut from "));
  EXPECT_THAT(run.output, Not(HasSubstr("SIGBUS")));
}

TEST_F(CheckpointRunTest, WhatDoesNotFitIsRefusedByThePlan) {
  const std::string large =
      "job.yaml --set model.hidden_size=65536 --set model.intermediate_size=262144 "
      "--set model.num_hidden_layers=64 --set model.vocab_size=128256 --run-dir x 2>&1";
  const auto run = In("troupe run " + large);
  EXPECT_EQ(run.exit_code, 3) << run.output;
  EXPECT_THAT(run.output, HasSubstr("the job does not fit this host: "));
  EXPECT_THAT(run.output, HasSubstr("what would: "));
}

}  // namespace
}  // namespace troupe
