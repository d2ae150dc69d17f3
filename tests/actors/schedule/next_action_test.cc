#include "actors/schedule/next_action.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"

namespace troupe {
namespace {

// One rank of a schedule, driven by hand.
struct Driven {
  Schedule schedule;
  Rank rank;
  RankProgress progress;

  Driven(Schedule s, int r, DataArrival data = DataArrival::kAtStart,
         const std::vector<SendLimit>& limits = {})
      : schedule(std::move(s)), rank(r), progress(schedule, rank, data, limits) {}

  Decision Next() const { return NextAction(schedule, rank, progress); }
  // Runs the next action, which must be `text`.
  void Run(const std::string& text) {
    const Decision decision = Next();
    ASSERT_TRUE(std::holds_alternative<Action>(decision)) << text << " is blocked";
    const Action action = std::get<Action>(decision);
    EXPECT_EQ(ToString(action), text);
    progress.MarkStarted(action);
    EXPECT_EQ(std::get<Blocked>(Next()).reason, BlockReason::kRunning);
    progress.MarkDone(action);
  }
};

Schedule Generated(const char* name, int p, int m) {
  return *Generate({.name = name, .num_ranks = p, .num_microbatches = m});
}

TEST(NextAction, WaitsForTheActivationByName) {
  Driven driven(Generated("1f1b", 2, 2), 1);
  const Blocked blocked = std::get<Blocked>(driven.Next());
  EXPECT_EQ(blocked.reason, BlockReason::kInput);
  EXPECT_EQ(blocked.owed_by, Rank(0));
  EXPECT_EQ(blocked.owed_stage, StageId(0));
  EXPECT_EQ(Describe(blocked),
            "1F0 waits for the activation of microbatch 0 from stage 0 (rank 0)");
  // A later microbatch that comes early changes nothing: nothing overtakes the head.
  EXPECT_TRUE(driven.progress.MarkArrived(InputKind::kActivation, StageId(1), MicrobatchId(1)));
  EXPECT_TRUE(std::holds_alternative<Blocked>(driven.Next()));
  EXPECT_TRUE(driven.progress.MarkArrived(InputKind::kActivation, StageId(1), MicrobatchId(0)));
  driven.Run("1F0");
  driven.Run("1B0");  // the loss is on this stage: no gradient to wait for
  driven.Run("1F1");
  driven.Run("1B1");
  EXPECT_TRUE(std::holds_alternative<Finished>(driven.Next()));
}

TEST(NextAction, WaitsForTheGradient) {
  Driven driven(Generated("1f1b", 2, 1), 0);
  driven.Run("0F0");
  const Blocked blocked = std::get<Blocked>(driven.Next());
  EXPECT_EQ(blocked.kind, InputKind::kGradient);
  EXPECT_EQ(blocked.owed_by, Rank(1));
  EXPECT_TRUE(driven.progress.MarkArrived(InputKind::kGradient, StageId(0), MicrobatchId(0)));
  driven.Run("0B0");
  EXPECT_TRUE(std::holds_alternative<Finished>(driven.Next()));
}

TEST(NextAction, RefusesInputsThatNobodyWaitsFor) {
  Driven driven(Generated("1f1b", 2, 2), 1);
  RankProgress& progress = driven.progress;
  EXPECT_TRUE(progress.MarkArrived(InputKind::kActivation, StageId(1), MicrobatchId(0)));
  EXPECT_FALSE(progress.MarkArrived(InputKind::kActivation, StageId(1), MicrobatchId(0)));
  EXPECT_FALSE(progress.MarkArrived(InputKind::kActivation, StageId(0), MicrobatchId(0)));
  EXPECT_FALSE(progress.MarkArrived(InputKind::kActivation, StageId(1), MicrobatchId(2)));
  EXPECT_FALSE(progress.MarkArrived(InputKind::kActivation, StageId(1), MicrobatchId(-1)));
  EXPECT_FALSE(progress.MarkArrived(InputKind::kGradient, StageId(1), MicrobatchId(0)));
}

TEST(NextAction, WaitsForDataWhereItIsMarked) {
  Driven first(Generated("gpipe", 2, 1), 0, DataArrival::kMarked);
  EXPECT_EQ(std::get<Blocked>(first.Next()).reason, BlockReason::kData);
  EXPECT_TRUE(first.progress.MarkArrived(InputKind::kData, StageId(0), MicrobatchId(0)));
  first.Run("0F0");
  // The last stage reads labels: activation and data must both be here.
  Driven last(Generated("gpipe", 2, 1), 1, DataArrival::kMarked);
  EXPECT_TRUE(last.progress.MarkArrived(InputKind::kActivation, StageId(1), MicrobatchId(0)));
  EXPECT_EQ(std::get<Blocked>(last.Next()).reason, BlockReason::kData);
  EXPECT_TRUE(last.progress.MarkArrived(InputKind::kData, StageId(1), MicrobatchId(0)));
  last.Run("1F0");
  // A stage in between reads none.
  Driven middle(Generated("gpipe", 3, 1), 1, DataArrival::kMarked);
  EXPECT_FALSE(middle.progress.MarkArrived(InputKind::kData, StageId(1), MicrobatchId(0)));
}

TEST(NextAction, HandsOverBetweenStagesOfOneRank) {
  Driven driven(*ParseCsv("0F0,1F0,1I0,0I0,1W0,0W0,0REDUCE_GRAD\n", "fold"), 0);
  for (const char* text : {"0F0", "1F0", "1I0", "0I0", "1W0", "0W0", "0REDUCE_GRAD"}) {
    driven.Run(text);
  }
  EXPECT_TRUE(std::holds_alternative<Finished>(driven.Next()));
}

TEST(NextAction, KeepsAStagesOwnOrder) {
  Driven weight_first(*ParseCsv("0F0,0W0/1of2,0I0,0W0/2of2\n", "w"), 0);
  weight_first.Run("0F0");
  EXPECT_EQ(std::get<Blocked>(weight_first.Next()).reason, BlockReason::kOwnStage);
  Driven reduce_first(*ParseCsv("0F0,0I0,0W0/1of2,0REDUCE_GRAD,0W0/2of2\n", "r"), 0);
  for (const char* text : {"0F0", "0I0", "0W0/1of2"}) {
    reduce_first.Run(text);
  }
  EXPECT_EQ(std::get<Blocked>(reduce_first.Next()).reason, BlockReason::kOwnStage);
}

TEST(NextAction, StopsAtTheSendLimit) {
  Driven driven(Generated("gpipe", 2, 3), 0, DataArrival::kAtStart,
                {{.to = Rank(1), .kind = InputKind::kActivation, .limit = 2}});
  for (const char* text : {"0F0", "0F1"}) {
    driven.Run(text);
    driven.progress.MarkProduced(Rank(1), InputKind::kActivation);
  }
  const Blocked blocked = std::get<Blocked>(driven.Next());
  EXPECT_EQ(blocked.reason, BlockReason::kSendCredit);
  EXPECT_EQ(Describe(blocked),
            "0F2 waits until stage 1 (rank 1) has consumed an earlier activation");
  driven.progress.MarkConsumed(Rank(1), InputKind::kGradient);  // another channel: no effect
  EXPECT_TRUE(std::holds_alternative<Blocked>(driven.Next()));
  driven.progress.MarkConsumed(Rank(1), InputKind::kActivation);
  driven.Run("0F2");
}

TEST(NextActionDeathTest, OneActionAtATime) {
  Driven driven(Generated("gpipe", 1, 2), 0);
  const Action action = std::get<Action>(driven.Next());
  driven.progress.MarkStarted(action);
  EXPECT_DEATH(driven.progress.MarkStarted(action), "0F0 starts while another");
}

}  // namespace
}  // namespace troupe
