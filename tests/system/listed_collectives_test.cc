// Real runs of lists that say when parameters are gathered and gradients reduced, as PyTorch's
// lowering does: what one worker computes, in every layout, with the bytes and the memory that were
// predicted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/system/troupe_test.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class ListedCollectivesTest : public testing::TroupeTest {
 protected:
  // A list for two ranks and 8 microbatches.
  void WriteList(const std::string& schedule_flags) {
    const auto written = Troupe("schedule " + schedule_flags +
                                " --stages 2 --microbatches 8 -o csv > list.csv 2>error.txt");
    ASSERT_EQ(written.exit_code, 0) << written.output;
  }
  testing::ShellResult Run(const std::string& settings) {
    return Troupe(
        "run job.yaml --overwrite --run-dir run --set parallelism.schedule_csv=list.csv "
        "parallelism.pp=2 model.tie_word_embeddings=true " +
        settings + " 2>&1");
  }
};

// Chunks of a rank take turns, so that parameters come and go; with sends, receives and waits it is
// the file that PyTorch writes of it.
TEST_F(ListedCollectivesTest, ComputeWhatOneWorkerComputesInEveryLayout) {
  for (const std::string list : {"interleaved-1f1b --unshard 1", "interleaved-zb --unshard 2",
                                 "zb-v --unshard 1 --dialect pytorch --with-communication"}) {
    WriteList(list);
    for (const std::string layout :
         {"parallelism.dp=1 batch.global_batch_size=16",
          "parallelism.dp=2 batch.global_batch_size=32 parallelism.zero_stage=0",
          "parallelism.dp=2 batch.global_batch_size=32 parallelism.zero_stage=1",
          "parallelism.dp=2 batch.global_batch_size=32 parallelism.zero_stage=2",
          "parallelism.dp=2 batch.global_batch_size=32 parallelism.zero_stage=3",
          "parallelism.dp=2 batch.global_batch_size=32 parallelism.zero_stage=3 "
          "parallelism.grad_reduce=step parallelism.reshard_after_forward=false"}) {
      const auto run = Run("eval.check_against=single_worker " + layout);
      EXPECT_EQ(run.exit_code, 0) << list << "\n" << layout << "\n" << run.output;
      EXPECT_THAT(run.output, HasSubstr("bit-equal")) << list << "\n" << layout;
      const auto result = ReadJson("run/result.json");
      EXPECT_FALSE(result["communication"].empty());
      for (const auto& row : result["communication"]) {
        EXPECT_EQ(row["measured"], row["predicted"]) << list << "\n" << layout << "\n" << row;
      }
      const auto memory = ReadJson("run/memory.json");
      EXPECT_FALSE(memory["ranks"].empty());
      for (const auto& row : memory["ranks"]) {
        const auto& comm = row["tags"]["comm"];
        EXPECT_LE(comm["peak_bytes"].get<int64_t>(), comm["predicted_bytes"].get<int64_t>())
            << list << "\n"
            << layout;
      }
    }
  }
}

// Kept between its UNSHARD and its RESHARD, a stage is gathered once.
TEST_F(ListedCollectivesTest, AGatherServesAllPassesUpToTheDrop) {
  const auto shards_of = [this](const std::string& layout) {
    const auto run =
        Run("parallelism.dp=2 batch.global_batch_size=32 parallelism.zero_stage=3 " + layout);
    EXPECT_EQ(run.exit_code, 0) << run.output;
    int64_t count = 0;
    const auto result = ReadJson("run/result.json");
    for (const auto& row : result["communication"]) {
      if (row["operation"] == "shard") count += row["measured"]["count"].get<int64_t>();
    }
    return count;
  };
  WriteList("1f1b --unshard 1");
  const int64_t kept = shards_of("");
  WriteList("1f1b");
  const int64_t each_pass = shards_of("");
  EXPECT_GT(kept, 0);
  EXPECT_GT(each_pass, 8 * kept) << "8 microbatches, forward and back";
}

}  // namespace
}  // namespace troupe
