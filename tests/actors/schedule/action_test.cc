#include "actors/schedule/action.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::HasSubstr;

TEST(ActionText, WritesPytorchGrammar) {
  EXPECT_EQ(
      ToString({.stage = StageId(2), .kind = ActionKind::kForward, .microbatch = MicrobatchId(3)}),
      "2F3");
  EXPECT_EQ(
      ToString(
          {.stage = StageId(10), .kind = ActionKind::kSendBackward, .microbatch = MicrobatchId(0)}),
      "10SEND_B0");
  EXPECT_EQ(ToString({.stage = StageId(1), .kind = ActionKind::kReduceGrad}), "1REDUCE_GRAD");
  EXPECT_EQ(ToString({.stage = StageId(1),
                      .kind = ActionKind::kReduceGrad,
                      .of_microbatch = true,
                      .microbatch = MicrobatchId(4)}),
            "1REDUCE_GRAD4");
  EXPECT_EQ(ToString({.stage = StageId(3),
                      .kind = ActionKind::kBackwardWeight,
                      .part = 0,
                      .num_parts = 4,
                      .microbatch = MicrobatchId(5)}),
            "3W5/1of4");
}

TEST(ActionText, ReadsBackWhatItWrites) {
  for (int kind = 0; kind < kNumActionKinds; ++kind) {
    Action action{.stage = StageId(7), .kind = static_cast<ActionKind>(kind)};
    if (HasMicrobatch(action)) {
      action.microbatch = MicrobatchId(12);
    }
    if (action.kind == ActionKind::kBackwardWeight) {
      action.part = 2;
      action.num_parts = 3;
    }
    const auto parsed = ParseAction(ToString(action));
    ASSERT_TRUE(parsed.ok()) << ToString(action);
    EXPECT_EQ(*parsed, action) << ToString(action);
  }
  const Action of_one{.stage = StageId(7),
                      .kind = ActionKind::kReduceGrad,
                      .of_microbatch = true,
                      .microbatch = MicrobatchId(0)};
  EXPECT_EQ(*ParseAction("7REDUCE_GRAD0"), of_one);
  EXPECT_NE(*ParseAction("7REDUCE_GRAD"), of_one);
}

TEST(ActionText, RefusesWithTheReason) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "no stage number"},
      {"F3", "no stage number"},
      {"-1F3", "no stage number"},
      {"2X3", "unknown type 'X'"},
      {"2F", "no microbatch number"},
      {"0F0junk", "'junk' follows"},
      {"2BW0", "older dialect"},
      {"20f3", "no type in capitals after the stage; write"},
      {"1UNSHARD4", "UNSHARD is of a whole stage; leave the microbatch out"},
      {"1UNSHARDx", "'x' follows"},
      {"1WAIT_REDUCE_GRAD4", "WAIT_REDUCE_GRAD is of a whole stage; leave the microbatch out"},
      {"1REDUCE_GRAD1048576", "its microbatch number is too large; use 0 to 1048575"},
      {"3W5/5of4", "counts from 1"},
      {"3W5/0of4", "counts from 1"},
      {"3F5/1of4", "a part is for W"},
      {"3W5/1of", "counts from 1"},
      {"3W5/of4", "counts from 1"},
      {"3W5/300of400", "its part number is too large; use 1 to 255"},
      {"3W5/1of99999999999", "its part number is too large; use 1 to 255"},
      {"32768F0", "its stage number is too large; use 0 to 32767"},
      {"99999999999F0", "its stage number is too large; use 0 to 32767"},
      {"2F1048576", "its microbatch number is too large; use 0 to 1048575"},
      {"2F-1", "no microbatch number"},
  };
  for (const auto& [text, reason] : cases) {
    const auto parsed = ParseAction(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidSpec);
    EXPECT_THAT(parsed.error().message, HasSubstr(reason)) << text;
  }
}

TEST(ActionKinds, AreClassed) {
  EXPECT_TRUE(IsCompute(ActionKind::kForward));
  EXPECT_TRUE(IsCompute(ActionKind::kBackward));
  EXPECT_FALSE(IsCompute(ActionKind::kSendForward));
  EXPECT_TRUE(IsCommunication(ActionKind::kRecvBackward));
  EXPECT_TRUE(IsCommunication(ActionKind::kWaitSendForward));
  for (const ActionKind kind : {ActionKind::kUnshard, ActionKind::kReshard, ActionKind::kReduceGrad,
                                ActionKind::kWaitReduceGrad}) {
    EXPECT_FALSE(IsCommunication(kind));
    EXPECT_TRUE(IsCollective(kind));
    EXPECT_FALSE(HasMicrobatch({.kind = kind}));
  }
  EXPECT_FALSE(IsCollective(ActionKind::kWaitSendBackward));
  EXPECT_EQ(KindName(ActionKind::kBackwardInput), "BackwardInput");
  EXPECT_EQ(KindLetters(ActionKind::kBackwardInput), "I");
}

}  // namespace
}  // namespace troupe
