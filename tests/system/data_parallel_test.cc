// Real runs of data-parallel pipelines, with and without shared optimizer state: what one worker
// computes, saved and taken up by any other of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/system/troupe_test.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class DataParallelTest : public testing::TroupeTest {
 protected:
  // In three parts, each under another layout, against one run of one worker.
  void GoOn(const std::string& dtype) {
    testing::Shell("cd " + folder_.path() + " && rm -rf whole parts");
    const std::string save =
        " --set checkpoint.save_hf=true train.steps=12 batch.gradient_groups=2 train.dtype=" +
        dtype + " ";
    const auto whole =
        Troupe("run job.yaml -o jsonl --run-dir whole" + save + "parallelism.pp=1 2>/dev/null");
    ASSERT_EQ(whole.exit_code, 0) << whole.output;
    std::vector<std::string> steps;
    for (const std::string part :
         {"parallelism.pp=2 parallelism.dp=2 parallelism.zero_stage=1 train.stop_after=5",
          "parallelism.pp=1 parallelism.dp=2 train.stop_after=8",
          "parallelism.pp=1 parallelism.dp=2 parallelism.zero_stage=1 train.stop_after=10",
          "parallelism.pp=1"}) {
      const std::string resume = steps.empty() ? "" : " --resume";
      const auto run =
          Troupe("run job.yaml -o jsonl --run-dir parts" + resume + save + part + " 2>/dev/null");
      ASSERT_EQ(run.exit_code, 0) << part << "\n" << run.output;
      for (const std::string& step : testing::StepsOf(run.output)) steps.push_back(step);
    }
    EXPECT_EQ(steps, testing::StepsOf(whole.output)) << dtype;
    for (const std::string path :
         {"/checkpoints/step-00000012/tensors-00001-of-00001.safetensors",
          "/checkpoints/step-00000012/optim-00001-of-00001.safetensors", "/hf/model.safetensors"}) {
      const auto same = testing::Shell("cd " + folder_.path() + " && cmp whole" + path + " parts" +
                                       path + " 2>&1");
      EXPECT_EQ(same.exit_code, 0) << dtype << "\n" << same.output;
    }
  }
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

// Saved in pieces by four ranks, read by two that keep everything, by two with shards of their own,
// and by one.
TEST_F(DataParallelTest, AnyOtherLayoutGoesOnBitForBit) {
  for (const std::string dtype : {"float32", "bfloat16"}) GoOn(dtype);
}

// The optimizer's state, and bfloat16's masters, by shards: what each rank has is not even.
TEST_F(DataParallelTest, NeedsTheMemoryThatWasPredicted) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    for (const int dp : {2, 3}) {
      const auto run = Troupe(
          "run job.yaml --overwrite --run-dir run --set parallelism.pp=1 parallelism.zero_stage=1 "
          "batch.global_batch_size=12 model.tie_word_embeddings=true parallelism.dp=" +
          std::to_string(dp) + " train.dtype=" + dtype + " 2>&1");
      ASSERT_EQ(run.exit_code, 0) << run.output;
      const auto measured = ReadJson("run/memory.json");
      ASSERT_EQ(measured["ranks"].size(), static_cast<size_t>(dp));
      for (const auto& row : measured["ranks"]) {
        for (const char* tag : {"params", "grads", "optimizer", "activations"}) {
          EXPECT_EQ(row["tags"][tag]["peak_bytes"], row["tags"][tag]["predicted_bytes"])
              << tag << " of rank " << row["rank"] << "\n"
              << run.output;
        }
        EXPECT_LE(row["tags"]["comm"]["peak_bytes"].get<int64_t>(),
                  row["tags"]["comm"]["predicted_bytes"].get<int64_t>());
      }
    }
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
