#include "runtime/format/costs_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

CostsFile Read(std::string_view text) {
  auto costs = ParseCostsFile(text, "costs");
  EXPECT_TRUE(costs.ok()) << costs.error().message;
  return *std::move(costs);
}

std::string Refusal(std::string_view text) {
  const auto costs = ParseCostsFile(text, "costs");
  EXPECT_FALSE(costs.ok()) << text;
  if (costs.ok()) return "";
  EXPECT_EQ(costs.error().code, ErrorCode::kCorrupt);
  return costs.error().message;
}

TEST(CostsFileTest, ReadsJson) {
  const CostsFile costs = Read(
      R"({"unit": "ms", "link_latency": 0.05, "step": 7, "stages": [
          {"forward": 1.5, "backward_input": 1.6, "backward_weight": 1.2},
          {"forward": 1, "backward": 2},
          {"forward": 1, "backward_input": 1, "backward_weight": 0, "backward": 1.5},
          {"forward": 1, "backward": 2, "unshard": 0.5, "reduce_grad": 0.25}]})");
  EXPECT_EQ(costs.unit, "ms");
  EXPECT_EQ(costs.link_latency, 0.05);
  EXPECT_EQ(costs.step, 7);
  ASSERT_EQ(costs.stages.size(), 4U);
  EXPECT_EQ(costs.stages[0],
            (StageTimes{.forward = 1.5, .backward_input = 1.6, .backward_weight = 1.2}));
  EXPECT_EQ(costs.stages[1], (StageTimes{.forward = 1, .backward = 2}));
  EXPECT_EQ(costs.stages[2].backward, 1.5);
  EXPECT_EQ(costs.stages[3],
            (StageTimes{.forward = 1, .backward = 2, .unshard = 0.5, .reduce_grad = 0.25}));
}

TEST(CostsFileTest, ReadsCommaSeparatedValues) {
  const CostsFile costs =
      Read("backward_weight, forward,backward_input\r\n1.2,1.5,1.6\r\n\r\n3,1,2\n");
  EXPECT_EQ(costs.unit, "");
  ASSERT_EQ(costs.stages.size(), 2U);
  EXPECT_EQ(costs.stages[0],
            (StageTimes{.forward = 1.5, .backward_input = 1.6, .backward_weight = 1.2}));
  EXPECT_EQ(costs.stages[1], (StageTimes{.forward = 1, .backward_input = 2, .backward_weight = 3}));
  EXPECT_EQ(Read("forward,backward\n1e-3,2").stages[0].backward, 2);
  EXPECT_EQ(Read("unshard,forward,backward\n3,1,2").stages[0].unshard, 3);
}

TEST(CostsFileTest, WritesWhatItReads) {
  CostsFile costs{.unit = "s", .link_latency = 1e-7, .step = 3};
  costs.stages = {{.forward = 0.1, .backward_input = 1.0 / 3, .backward_weight = 2e-9},
                  {.forward = 5, .backward = 1e11, .unshard = 0.5},
                  {.forward = 5, .backward = 1, .reduce_grad = 0.1}};
  EXPECT_EQ(Read(CostsFileJson(costs)), costs);
  costs = {.stages = {{.forward = 1, .backward = 2}}};
  EXPECT_EQ(CostsFileJson(costs),
            "{\"link_latency\": 0,\n \"stages\": [\n  {\"forward\": 1, \"backward\": 2}\n ]}\n");
}

TEST(CostsFileTest, SaysWhereAndWhatIsWrong) {
  EXPECT_EQ(Refusal(R"({"stages": [{"forward": 1, "backward": 2}, {"backward": 2}]})"),
            "costs: stage 1: forward is missing");
  EXPECT_EQ(Refusal(R"({"stages": [{"forward": 1, "backward_input": 2}]})"),
            "costs: stage 0: give backward_input and backward_weight, or backward");
  EXPECT_EQ(Refusal(R"({"stages": [{"foward": 1}]})"),
            "costs: stage 0: 'foward' is no key; use forward, backward_input, backward_weight, "
            "backward, unshard, reduce_grad");
  EXPECT_EQ(Refusal(R"({"stages": [{"forward": -1, "backward": 2}]})"),
            "costs: stage 0: forward must be a time from 0 to 1e+12");
  EXPECT_THAT(Refusal(R"({"stages": [{"forward": "1", "backward": 2}]})"),
              HasSubstr("stage 0: forward must be a number"));
  EXPECT_THAT(Refusal(R"({"stages": 3})"), HasSubstr("stages must be a list"));
  EXPECT_THAT(Refusal(R"({"stages": []})"), HasSubstr("0 stages; give 1 to 16384"));
  EXPECT_THAT(Refusal(R"({"stages": [{"forward": 0, "backward": 0}]})"),
              HasSubstr("every time is 0"));
  EXPECT_THAT(Refusal(R"({"unit": "a unit of many letters", "stages": []})"),
              HasSubstr("unit must be at most 16 letters"));
  EXPECT_THAT(Refusal("{"), StartsWith("costs: not the JSON expected here"));
  EXPECT_EQ(Refusal("forward,backward\n1,2\n1\n"), "costs: line 3: 1 cells under 2 column names");
  EXPECT_EQ(Refusal("forward,backward\n1,x\n"), "costs: line 2: 'x' is no number");
  EXPECT_EQ(Refusal("forward,backward\n1,nan\n"),
            "costs: line 2: backward must be a time from 0 to 1e+12");
  EXPECT_THAT(Refusal("stage,forward\n0,1\n"), HasSubstr("line 1: 'stage' is no column"));
  EXPECT_THAT(Refusal("forward,forward\n"), HasSubstr("'forward' is no column"));
  EXPECT_THAT(Refusal(""), HasSubstr("0 stages"));
  EXPECT_THAT(Refusal(std::string(kCostsFileBytesMax + 1, ' ')), HasSubstr("at most 4194304"));
}

}  // namespace
}  // namespace troupe
