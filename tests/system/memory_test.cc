// Memory of real runs: what every rank measured against what it and the plan predicted.
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "tests/system/troupe_test.h"

namespace troupe {
namespace {

// pp, dtype, level of ONEDNN_MAX_CPU_ISA.
class MemoryTest : public testing::TroupeTest,
                   public ::testing::WithParamInterface<std::tuple<int, std::string, std::string>> {
};

// Evaluation sends without gradients that hold it back, and sampling takes a row of logits; neither
// may need more than training.
TEST_P(MemoryTest, IsWhatWasPredicted) {
  const auto& [pp, dtype, level] = GetParam();
  const std::string at_level = TROUPE_BINARY_DIR "/tests/at_cpu_level " + level + " ";
  const auto there = testing::Shell(at_level + "true");
  if (there.exit_code == 77) GTEST_SKIP() << there.output;
  const auto run = testing::Shell(
      "cd " + folder_.path() + " && " + at_level +
      TROUPE_BINARY_DIR "/bin/troupe run job.yaml --set parallelism.pp=" + std::to_string(pp) +
      " --set train.dtype=" + dtype +
      " --set model.tie_word_embeddings=true --set batch.global_batch_size=16 "
      "--set eval.every=2 --set eval.sample.prompt=a --set eval.sample.tokens=4 "
      "--run-dir run 2>&1");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const auto plan = ReadJson("run/plan.json");
  const auto measured = ReadJson("run/memory.json");
  ASSERT_EQ(measured["ranks"].size(), static_cast<size_t>(pp));
  const int64_t boundary = 2 * 32 * 32 * (dtype == "float32" ? 4 : 2);
  for (int rank = 0; rank < pp; ++rank) {
    const auto& row = measured["ranks"][rank];
    const auto predicted = [&](const char* tag) {
      return row["tags"][tag]["predicted_bytes"].get<int64_t>();
    };
    const auto peak = [&](const char* tag) {
      return row["tags"][tag]["peak_bytes"].get<int64_t>();
    };
    const std::string whose = "rank " + std::to_string(rank) + "\n" + run.output;
    ASSERT_EQ(row["rank"], rank);
    for (const char* tag : {"params", "grads", "optimizer"}) {
      EXPECT_EQ(peak(tag), predicted(tag)) << tag << " of " << whose;
    }
    for (const char* tag : {"activations", "workspace"}) {
      const auto bytes = static_cast<double>(predicted(tag));
      EXPECT_NEAR(static_cast<double>(peak(tag)), bytes, 0.05 * bytes) << tag << " of " << whose;
    }
    // The slots are there all along; of the two output buffers a channel at least one was needed,
    // and so of the four blocks in which the tied gradient leaves the first and the last rank.
    const int neighbours = (rank > 0 ? 1 : 0) + (rank < pp - 1 ? 1 : 0);
    const int64_t tied = rank == 0 || rank == pp - 1 ? 256 * 32 * 4 : 0;
    EXPECT_LE(peak("comm"), predicted("comm")) << whose;
    if (pp == 1) {
      EXPECT_EQ(predicted("comm"), 0);
    } else {
      EXPECT_GT(peak("comm"), predicted("comm") - 2 * neighbours * boundary - 3 * tied) << whose;
    }
    EXPECT_GT(row["other_bytes"].get<int64_t>(), 0) << whose;
    // The plan was made on the same machine.
    for (const auto& [tag, bytes] : plan["ranks"][rank]["memory"].items()) {
      EXPECT_EQ(row["tags"][tag]["predicted_bytes"], bytes) << tag << " of " << whose;
    }
  }
}

std::string NameOf(const ::testing::TestParamInfo<MemoryTest::ParamType>& info) {
  const auto& [pp, dtype, level] = info.param;
  return "pp" + std::to_string(pp) + "_" + dtype + "_" + level;
}
INSTANTIATE_TEST_SUITE_P(Layouts, MemoryTest,
                         ::testing::Combine(::testing::Values(1, 3),
                                            ::testing::Values("float32", "bfloat16"),
                                            ::testing::Values("AVX2", "AVX512_CORE",
                                                              "AVX512_CORE_BF16",
                                                              "AVX512_CORE_AMX")),
                         NameOf);

}  // namespace
}  // namespace troupe
