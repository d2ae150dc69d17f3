#include "actors/rank_activity.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

TEST(RankActivity, NamesTheActionAndTheHopOfItsAttention) {
  RankActivity activity{.step = 4, .phase = "optimizer"};
  EXPECT_EQ(InWords(activity), "optimizer");
  activity.hop = KvHop{.layer = 5, .hop = 2};
  EXPECT_EQ(InWords(activity), "optimizer");
  activity.action =
      Action{.stage = StageId(1), .kind = ActionKind::kBackward, .microbatch = MicrobatchId(3)};
  EXPECT_EQ(InWords(activity), "Backward of microbatch 3 on stage 1, attention of layer 5, hop 2");
  activity.hop.reset();
  EXPECT_EQ(InWords(activity), "Backward of microbatch 3 on stage 1");
}

}  // namespace
}  // namespace troupe
