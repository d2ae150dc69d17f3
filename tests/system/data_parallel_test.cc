// Real runs of data-parallel pipelines, with and without shared optimizer state: what one worker
// computes, saved and taken up by any other of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/shell.h"
#include "tests/support/small_job.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class DataParallelTest : public ::testing::Test {
 protected:
  DataParallelTest() { testing::WriteSmallJob(folder_); }
  testing::ShellResult Troupe(const std::string& arguments) {
    return testing::Shell("cd " + folder_.path() + " && " TROUPE_BINARY_DIR "/bin/troupe " +
                          arguments);
  }
  testing::TemporaryFolder folder_;
};

TEST_F(DataParallelTest, ComputesWhatOneWorkerComputes) {
  for (const std::string layout :
       {"parallelism.pp=1 parallelism.dp=2 parallelism.zero_stage=1",
        "parallelism.pp=2 parallelism.dp=2 parallelism.schedule=zb-h1",
        "parallelism.pp=2 parallelism.dp=2 parallelism.zero_stage=1 train.dtype=bfloat16"}) {
    const auto run = Troupe(
        "run job.yaml --overwrite --run-dir a --set model.tie_word_embeddings=true eval.every=3 "
        "eval.check_against=single_worker " +
        layout + " 2>&1");
    EXPECT_EQ(run.exit_code, 0) << layout << "\n" << run.output;
    EXPECT_THAT(run.output, HasSubstr("parity with 1 worker: 6 losses, 6 gradient norms and 38 "
                                      "parameters bit-equal"))
        << layout;
  }
}

// Saved in pieces by four ranks, read by two that keep everything, and saved whole by one.
TEST_F(DataParallelTest, AnyOtherLayoutGoesOnBitForBit) {
  const std::string save = " --set checkpoint.save_hf=true train.steps=12 batch.gradient_groups=2 ";
  const auto whole =
      Troupe("run job.yaml -o jsonl --run-dir whole" + save + "parallelism.pp=1 2>/dev/null");
  ASSERT_EQ(whole.exit_code, 0) << whole.output;
  const auto first = Troupe("run job.yaml -o jsonl --run-dir parts" + save +
                            "parallelism.pp=2 parallelism.dp=2 parallelism.zero_stage=1 "
                            "train.stop_after=5 2>/dev/null");
  ASSERT_EQ(first.exit_code, 0) << first.output;
  const auto second = Troupe("run job.yaml -o jsonl --run-dir parts --resume" + save +
                             "parallelism.pp=1 parallelism.dp=2 train.stop_after=9 2>/dev/null");
  ASSERT_EQ(second.exit_code, 0) << second.output;
  const auto third = Troupe("run job.yaml -o jsonl --run-dir parts --resume" + save +
                            "parallelism.pp=1 2>/dev/null");
  ASSERT_EQ(third.exit_code, 0) << third.output;
  std::vector<std::string> steps;
  for (const auto* part : {&first, &second, &third}) {
    for (const std::string& step : testing::StepsOf(part->output)) steps.push_back(step);
  }
  EXPECT_EQ(steps, testing::StepsOf(whole.output));
  for (const std::string path :
       {"/checkpoints/step-00000012/tensors-00001-of-00001.safetensors",
        "/checkpoints/step-00000012/optim-00001-of-00001.safetensors", "/hf/model.safetensors"}) {
    const auto same =
        testing::Shell("cd " + folder_.path() + " && cmp whole" + path + " parts" + path + " 2>&1");
    EXPECT_EQ(same.exit_code, 0) << same.output;
  }
}

// The first pipeline exports, from weights that are whole though the state beside them is not.
TEST_F(DataParallelTest, ExportsTheSameFolder) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    const std::string save =
        " --overwrite --set checkpoint.save_hf=true train.dtype=" + dtype + " ";
    const auto one = Troupe("run job.yaml --run-dir one" + save +
                            "parallelism.pp=2 batch.gradient_groups=2 2>&1");
    const auto many = Troupe("run job.yaml --run-dir many" + save +
                             "parallelism.pp=2 parallelism.dp=2 parallelism.zero_stage=1 2>&1");
    ASSERT_EQ(one.exit_code, 0) << one.output;
    ASSERT_EQ(many.exit_code, 0) << many.output;
    const auto same =
        testing::Shell("cd " + folder_.path() + " && diff -r one/hf many/hf && ls many/hf 2>&1");
    EXPECT_EQ(same.exit_code, 0) << same.output;
    EXPECT_THAT(same.output, HasSubstr("model-00002-of-00002.safetensors"));
  }
}

}  // namespace
}  // namespace troupe
