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
  RankList list;
  RankProgress progress;

  Driven(Schedule s, int rank, DataArrival data = DataArrival::kAtStart,
         const ExecutionPolicy& policy = {})
      : schedule(std::move(s)), list(schedule, Rank(rank), policy, data), progress(list) {}

  Decision Next() const { return NextAction(progress); }
  // Runs the next action, which must be `text`; tells whether outputs may leave after it.
  bool Run(const std::string& text) {
    const Decision decision = Next();
    if (!std::holds_alternative<Start>(decision)) {
      ADD_FAILURE() << text << " is blocked: " << Describe(std::get<Blocked>(decision));
      return false;
    }
    EXPECT_EQ(ToString(std::get<Start>(decision).action), text);
    progress.MarkStarted(std::get<Start>(decision).entry);
    EXPECT_EQ(std::get<Blocked>(Next()).reason, BlockReason::kRunning);
    return progress.MarkDone();
  }
  void Arrive(InputKind kind, int stage, int microbatch) {
    EXPECT_TRUE(progress.MarkArrived(kind, StageId(stage), MicrobatchId(microbatch)));
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

TEST(NextActionDeathTest, OneActionAtATime) {
  Driven driven(Generated("gpipe", 1, 2), 0);
  const int32_t entry = std::get<Start>(driven.Next()).entry;
  driven.progress.MarkStarted(entry);
  EXPECT_DEATH(driven.progress.MarkStarted(entry), "0F0 starts while another");
}

}  // namespace
}  // namespace troupe
