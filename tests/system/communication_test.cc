// What the ranks of real runs sent, against what the plan predicted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/system/troupe_test.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class CommunicationTest : public testing::TroupeTest {};

const std::string kLayout =
    "--set parallelism.pp=2 parallelism.dp=2 model.tie_word_embeddings=true "
    "batch.global_batch_size=16 ";

// Evaluating and sampling send too: that is not a training step's.
TEST_F(CommunicationTest, IsWhatWasPredicted) {
  const auto run = Troupe("run job.yaml " + kLayout +
                          "eval.every=2 eval.sample.prompt=a eval.sample.tokens=4 --run-dir run "
                          "2>&1");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  EXPECT_THAT(run.output, HasSubstr("communication, measured/predicted"));
  const auto result = ReadJson("run/result.json");
  const auto plan = ReadJson("run/plan.json");
  ASSERT_TRUE(result.contains("communication")) << result.dump(2);
  auto planned = nlohmann::json::array();
  for (const auto& row : result["communication"]) {
    EXPECT_EQ(row["measured"], row["predicted"]) << row.dump();
    planned.push_back({{"rank", row["rank"]},
                       {"axis", row["axis"]},
                       {"operation", row["operation"]},
                       {"count", row["predicted"]["count"]},
                       {"bytes", row["predicted"]["bytes"]}});
  }
  EXPECT_EQ(planned, plan["communication"]);
  // Of each rank: its messages one way, the tied gradient, its stage's gradients.
  EXPECT_EQ(planned.size(), 4U * 3U) << planned.dump(2);
  ASSERT_EQ(result["memory"].size(), 4U);
  for (size_t rank = 0; rank < 4; ++rank) {
    nlohmann::json predicted = result["memory"][rank]["predicted"];
    predicted["rank"] = rank;
    EXPECT_EQ(predicted, plan["memory"][rank]);
    EXPECT_EQ(result["memory"][rank]["peak"]["params"], predicted["params"]);
  }
}

TEST_F(CommunicationTest, ThePlanSaysTheSameBefore) {
  const auto json = Troupe("plan job.yaml -o json " + kLayout + "2>/dev/null");
  ASSERT_EQ(json.exit_code, 0) << json.output;
  const auto plan = nlohmann::json::parse(json.output);
  std::map<std::string, int64_t> sent;
  for (const auto& row : plan["communication"]) {
    sent[row["axis"].get<std::string>() + " " + row["operation"].get<std::string>()] +=
        row["bytes"].get<int64_t>();
  }
  // 4 microbatches a pipeline, of 2 x 32 tokens; two pipelines.
  EXPECT_EQ(sent["pp activation"], 2 * 4 * 64 * 32 * 4);
  EXPECT_EQ(sent["pp gradient"], 2 * 4 * 64 * 32 * 4);
  EXPECT_EQ(sent["pp all-reduce"], 2 * 2 * 256 * 32 * 4);
  const int64_t gradients = plan["parameters"].get<int64_t>() + 256 * 32;  // both uses of the tied
  EXPECT_EQ(sent["dp all-reduce"], 2 * gradients * 4);
  for (const auto& row : plan["memory"]) {
    int64_t total = 0;
    for (const auto& [tag, bytes] : row.items()) {
      if (tag != "rank" && tag != "total") total += bytes.get<int64_t>();
    }
    EXPECT_EQ(row["total"], total);
  }
  const auto text = Troupe("plan job.yaml " + kLayout + "2>&1");
  EXPECT_THAT(text.output, HasSubstr("what a rank sends in a step"));
  EXPECT_THAT(text.output, HasSubstr("32.0 KiB in 4"));
}

}  // namespace
}  // namespace troupe
