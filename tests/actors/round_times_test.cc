#include "actors/round_times.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

Action Of(int stage, ActionKind kind, int microbatch, int part = 0, int num_parts = 1) {
  Action action;
  action.stage = StageId(stage);
  action.kind = kind;
  action.microbatch = MicrobatchId(microbatch);
  action.part = static_cast<uint8_t>(part);
  action.num_parts = static_cast<uint8_t>(num_parts);
  return action;
}

TEST(RoundTimes, AreMediansOfEachStageAndKind) {
  RoundTimes times;
  int microbatch = 0;
  for (const int64_t ns : {30, 10, 1000, 20, 25}) {
    times.Add(Of(1, ActionKind::kForward, microbatch++), ns);
  }
  times.Add(Of(0, ActionKind::kBackward, 0), 7);
  proto::Vote vote;
  times.WriteTo(vote);
  ASSERT_EQ(vote.stage_times_size(), 2);
  EXPECT_EQ(vote.stage_times(0).stage(), 0);
  EXPECT_EQ(vote.stage_times(0).backward_ns(), 7);
  EXPECT_EQ(vote.stage_times(0).forward_ns(), 0) << "it ran none";
  EXPECT_EQ(vote.stage_times(1).forward_ns(), 25) << "one hiccup moves no median";
}

TEST(RoundTimes, PartsOfAWeightGradientCountTogether) {
  RoundTimes times;
  for (int microbatch = 0; microbatch < 3; ++microbatch) {
    times.Add(Of(0, ActionKind::kBackwardWeight, microbatch, 0, 2), 15);
    times.Add(Of(0, ActionKind::kBackwardWeight, microbatch, 1, 2), 5);
  }
  proto::Vote vote;
  times.WriteTo(vote);
  EXPECT_EQ(vote.stage_times(0).backward_weight_ns(), 20);
}

TEST(RoundTimes, ARoundForgetsTheOneBefore) {
  RoundTimes times;
  times.Add(Of(0, ActionKind::kForward, 0), 5);
  times.Clear();
  proto::Vote vote;
  times.WriteTo(vote);
  EXPECT_EQ(vote.stage_times_size(), 0);
}

}  // namespace
}  // namespace troupe
