#include "actors/schedule/next_action.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"
#include "tests/support/two_chains.h"

namespace troupe {
namespace {

// One rank of a schedule, driven by hand.
struct Driven {
  Schedule schedule;
  RankList list;
  RankProgress progress;

  Driven(Schedule s, int rank, DataArrival data = DataArrival::kAtStart,
         const ExecutionPolicy& policy = {})
      : schedule(std::move(s)), list(schedule, PipelineRank(rank), policy, data), progress(list) {}

  Decision Next() const { return NextAction(progress); }
  // Runs the next action, which must be `text`; tells whether outputs may leave after it.
  bool Run(const std::string& text) {
    const Decision decision = Next();
    if (!std::holds_alternative<Start>(decision)) {
      ADD_FAILURE() << text << " is blocked: " << Describe(std::get<Blocked>(decision));
      return false;
    }
    EXPECT_EQ(ToString(std::get<Start>(decision).action), text);
    const int32_t entry = std::get<Start>(decision).entry;
    progress.MarkStarted(entry);
    EXPECT_EQ(std::get<Blocked>(Next()).reason, BlockReason::kRunning);
    return progress.MarkDone(entry);
  }
  // The next action, which must be `text`, without its end.
  int32_t Begin(const std::string& text) {
    const Decision decision = Next();
    if (!std::holds_alternative<Start>(decision)) {
      ADD_FAILURE() << text << " is blocked: " << Describe(std::get<Blocked>(decision));
      return -1;
    }
    EXPECT_EQ(ToString(std::get<Start>(decision).action), text);
    progress.MarkStarted(std::get<Start>(decision).entry);
    return std::get<Start>(decision).entry;
  }
  bool Runs() const {
    const auto decision = Next();
    const auto* blocked = std::get_if<Blocked>(&decision);
    return blocked != nullptr && blocked->reason == BlockReason::kRunning;
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
  EXPECT_EQ(blocked.owed_by, PipelineRank(0));
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
  EXPECT_EQ(blocked.owed_by, PipelineRank(1));
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

TEST(NextAction, WaitsForEveryInputAndNamesTheOneThatIsOwed) {
  Driven driven(testing::TwoChains(testing::SameSender(), 1), 2);  // the loss
  RankProgress& progress = driven.progress;
  EXPECT_TRUE(progress.MarkArrived(InputKind::kActivation, StageId(3), MicrobatchId(0), 0));
  Blocked blocked = std::get<Blocked>(driven.Next());
  EXPECT_EQ(Describe(blocked),
            "3F0 waits for the activation of microbatch 0 from stage 2 (rank 0)");
  EXPECT_FALSE(progress.MarkArrived(InputKind::kActivation, StageId(3), MicrobatchId(0), 0));
  EXPECT_FALSE(progress.MarkArrived(InputKind::kActivation, StageId(3), MicrobatchId(0), 2));
  EXPECT_FALSE(progress.MarkArrived(InputKind::kActivation, StageId(3), MicrobatchId(0), -1));
  EXPECT_TRUE(progress.MarkArrived(InputKind::kActivation, StageId(3), MicrobatchId(0), 1));
  driven.Run("3F0");
  driven.Run("3B0");
  EXPECT_TRUE(std::holds_alternative<Finished>(driven.Next()));
}

// The teacher beside the loss hands over on the rank; what it held ends with its Forward.
TEST(NextAction, AStageThatIsOnlyReadKeepsNothing) {
  Driven driven(testing::TwoChains(testing::TeacherBesideLoss(), 1), 1);
  driven.Arrive(InputKind::kActivation, /*stage=*/2, /*microbatch=*/0);
  driven.Run("2F0");
  EXPECT_EQ(driven.progress.held(), 0);
  EXPECT_EQ(std::get<Blocked>(driven.Next()).owed_stage, StageId(0));
  driven.Arrive(InputKind::kActivation, /*stage=*/3, /*microbatch=*/0);
  driven.Run("3F0");
  EXPECT_EQ(driven.progress.held(), 0.5);
}

TEST(NextAction, WaitsForDataWhereItIsMarked) {
  Driven first(Generated("gpipe", 2, 1), 0, DataArrival::kMarked);
  EXPECT_EQ(std::get<Blocked>(first.Next()).reason, BlockReason::kData);
  EXPECT_TRUE(first.progress.MarkArrived(InputKind::kData, StageId(0), MicrobatchId(0)));
  first.Run("0F0");
  // Activation and data must both be here.
  Driven last(Generated("gpipe", 2, 1), 1, DataArrival::kMarked);
  EXPECT_TRUE(last.progress.MarkArrived(InputKind::kActivation, StageId(1), MicrobatchId(0)));
  EXPECT_EQ(std::get<Blocked>(last.Next()).reason, BlockReason::kData);
  EXPECT_TRUE(last.progress.MarkArrived(InputKind::kData, StageId(1), MicrobatchId(0)));
  last.Run("1F0");
  // A stage in between reads positions; none comes twice.
  Driven middle(Generated("gpipe", 3, 1), 1, DataArrival::kMarked);
  EXPECT_TRUE(middle.progress.MarkArrived(InputKind::kActivation, StageId(1), MicrobatchId(0)));
  EXPECT_EQ(std::get<Blocked>(middle.Next()).reason, BlockReason::kData);
  EXPECT_TRUE(middle.progress.MarkArrived(InputKind::kData, StageId(1), MicrobatchId(0)));
  EXPECT_FALSE(middle.progress.MarkArrived(InputKind::kData, StageId(1), MicrobatchId(0)));
  middle.Run("1F0");
}

TEST(NextAction, KnowsWhatReadsWeightsNextWhereTheOrderIsCertain) {
  const auto next = [](const Driven& of) -> std::string {
    const Action* action = NextOverWeights(of.progress);
    return action == nullptr ? "none" : ToString(*action);
  };
  const Schedule list = *ParseCsv("0F0,0I0,0W0,0F1,0B1\n", "certain");
  Driven strict(list, 0);
  EXPECT_EQ(next(strict), "0F0");
  strict.Run("0F0");
  strict.Begin("0I0");
  EXPECT_EQ(next(strict), "0F1") << "a weight gradient reads none";
  Driven whole(list, 0);
  for (const char* action : {"0F0", "0I0", "0W0", "0F1", "0B1"}) whole.Run(action);
  EXPECT_EQ(next(whole), "none");
  EXPECT_EQ(next(Driven(list, 0, DataArrival::kAtStart, {.mode = ExecutorMode::kGuided})), "none");
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

// Gathers and sums begin in their place and hold up nothing; the list is done when they are.
TEST(NextAction, CollectivesGoOnBesideTheActions) {
  Driven driven(*ParseCsv("0UNSHARD,0F0,0RESHARD,0B0,0REDUCE_GRAD\n", "beside"), 0);
  const int32_t unshard = driven.Begin("0UNSHARD");
  const int32_t forward = driven.Begin("0F0");
  EXPECT_TRUE(driven.Runs()) << "0RESHARD comes when 0F0 has ended";
  driven.progress.MarkDone(forward);
  const int32_t reshard = driven.Begin("0RESHARD");
  driven.progress.MarkDone(unshard);
  EXPECT_TRUE(driven.Runs()) << "0B0 comes when what 0RESHARD lets go has gone";
  driven.progress.MarkDone(reshard);
  driven.progress.MarkDone(driven.Begin("0B0"));
  const int32_t sum = driven.Begin("0REDUCE_GRAD");
  EXPECT_TRUE(driven.Runs());
  EXPECT_EQ(driven.progress.OpenEntryOf(*ParseAction("0REDUCE_GRAD")), sum);
  driven.progress.MarkDone(sum);
  EXPECT_TRUE(std::holds_alternative<Finished>(driven.Next()));
}

TEST(NextAction, AWaitHoldsTheListUntilTheSumsAreThere) {
  for (const ExecutorMode mode : {ExecutorMode::kStrict, ExecutorMode::kGuided}) {
    Driven driven(
        *ParseCsv("0F0,1F0,1B0,1REDUCE_GRAD,0I0,1WAIT_REDUCE_GRAD,0W0,0REDUCE_GRAD0\n", "wait"), 0,
        DataArrival::kAtStart, {.mode = mode});
    for (const char* text : {"0F0", "1F0", "1B0"}) driven.Run(text);
    const int32_t sum = driven.Begin("1REDUCE_GRAD");
    driven.Run("0I0");
    const Blocked blocked = std::get<Blocked>(driven.Next());  // 0W0 may not jump
    EXPECT_EQ(blocked.reason, BlockReason::kSums);
    EXPECT_EQ(Describe(blocked), "1WAIT_REDUCE_GRAD waits for the sums of stage 1's gradients");
    driven.progress.MarkDone(sum);
    driven.progress.MarkDone(driven.Begin("1WAIT_REDUCE_GRAD"));
    driven.Run("0W0");
    driven.Run("0REDUCE_GRAD0");
    EXPECT_TRUE(std::holds_alternative<Finished>(driven.Next()));
  }
}

TEST(NextAction, GuidedFillsAGapWithWeightGradientsAlone) {
  Driven driven(*ParseCsv("0F0,0F1,0F2,0I0,0I1,0W0,0I2,0W1,0W2\n1F0,1B0,1F1,1B1,1F2,1B2\n", "g"), 0,
                DataArrival::kAtStart, {.mode = ExecutorMode::kGuided});
  for (const char* text : {"0F0", "0F1", "0F2"}) driven.Run(text);
  driven.Arrive(InputKind::kGradient, 0, 0);
  driven.Run("0I0");
  driven.Run("0W0");  // 0I1 has no gradient yet
  EXPECT_EQ(std::get<Blocked>(driven.Next()).waiting.microbatch, MicrobatchId(1));
  driven.Arrive(InputKind::kGradient, 0, 2);  // a later input gradient does not jump without slack
  EXPECT_TRUE(std::holds_alternative<Blocked>(driven.Next()));
  driven.Arrive(InputKind::kGradient, 0, 1);
  for (const char* text : {"0I1", "0I2", "0W1", "0W2"}) driven.Run(text);
  EXPECT_TRUE(std::holds_alternative<Finished>(driven.Next()));
}

TEST(NextAction, SlackLetsForwardsJumpOnTopOfWhatTheListWillHold) {
  Driven driven(
      *ParseCsv("0F0,0B0,0F1,0F2,0B1,0B2,0F3,0B3\n1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3\n", "s"), 0,
      DataArrival::kAtStart, {.mode = ExecutorMode::kGuided, .activation_slack = 1});
  EXPECT_EQ(driven.list.activation_cap(), 3);  // the list holds two at most
  driven.Run("0F0");
  driven.Run("0F1");
  // Two are held, but the list will hold two beside what jumped: another would make four.
  EXPECT_TRUE(std::holds_alternative<Blocked>(driven.Next()));
  driven.Arrive(InputKind::kGradient, 0, 0);
  for (const char* text : {"0B0", "0F2", "0F3"}) driven.Run(text);
  EXPECT_EQ(driven.progress.held(), 3);
  for (const int microbatch : {1, 2, 3}) driven.Arrive(InputKind::kGradient, 0, microbatch);
  for (const char* text : {"0B1", "0B2", "0B3"}) driven.Run(text);
  EXPECT_EQ(driven.progress.peak_held(), 3);
  EXPECT_EQ(driven.progress.held_ahead(), 0);
}

// ---- ranks that follow another one's choice ----------------------------------------------------

// A rank that follows, told by the texts of actions.
struct Following : Driven {
  Following(const Schedule& s, const ExecutionPolicy& policy)
      : Driven(s, 0, DataArrival::kAtStart, policy) {
    progress.Follow();
  }
  bool Choose(const std::string& text) {
    const Action action = *ParseAction(text);
    return progress.MarkChosen(action.stage, action.kind, action.microbatch);
  }
  BlockReason Reason() const { return std::get<Blocked>(Next()).reason; }
};

const ExecutionPolicy kFreeRun{.mode = ExecutorMode::kFreeRun, .activation_limit = 2};
const ExecutionPolicy kSlack{.mode = ExecutorMode::kGuided, .activation_slack = 1};

TEST(NextAction, AFollowerStartsWhatIsChosenAndNothingElse) {
  for (const ExecutionPolicy& policy : {kFreeRun, kSlack}) {
    Following driven(*ParseCsv("0F0,0B0,0F1,0B1,0F2,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n", "f"), policy);
    EXPECT_EQ(driven.Reason(), BlockReason::kChoice) << "0F0 could start";
    EXPECT_EQ(Describe(std::get<Blocked>(driven.Next())),
              "rank 0 waits for the first of its group to choose what starts next");
    ASSERT_TRUE(driven.Choose("0F0") && driven.Choose("0F1") && driven.Choose("0B0"));
    driven.Run("0F0");
    driven.Run("0F1");
    const Blocked blocked = std::get<Blocked>(driven.Next());
    EXPECT_EQ(Describe(blocked),
              "0B0 waits for the gradient of microbatch 0 from stage 1 (rank 1)");
    driven.Arrive(InputKind::kGradient, 0, 1);  // before the other, which was chosen
    EXPECT_EQ(std::get<Blocked>(driven.Next()), blocked);
    driven.Arrive(InputKind::kGradient, 0, 0);
    driven.Run("0B0");
    EXPECT_EQ(driven.Reason(), BlockReason::kChoice);
    for (const char* text : {"0B1", "0F2", "0B2"}) ASSERT_TRUE(driven.Choose(text));
    driven.Arrive(InputKind::kGradient, 0, 2);
    for (const char* text : {"0B1", "0F2", "0B2"}) driven.Run(text);
    EXPECT_TRUE(std::holds_alternative<Finished>(driven.Next()));
  }
}

// Its weight gradients are its own matter, and go before a Forward that has no room.
TEST(NextAction, AFollowerFillsItsGapsWithWeightGradients) {
  const Schedule list =
      *ParseCsv("0F0,0F1,0I0,0W0,0F2,0I1,0W1,0I2,0W2\n1F0,1B0,1F1,1B1,1F2,1B2\n", "fill");
  Following free(list, kFreeRun);
  for (const char* text : {"0F0", "0F1", "0I0"}) ASSERT_TRUE(free.Choose(text));
  for (const char* text : {"0F0", "0F1"}) free.Run(text);
  free.Arrive(InputKind::kGradient, 0, 0);
  ASSERT_TRUE(free.Choose("0F2"));
  free.Run("0I0");
  free.Run("0W0");  // two are held until it ends, as many as may be
  free.Run("0F2");
  EXPECT_EQ(free.progress.peak_held(), 2);
  EXPECT_EQ(free.Reason(), BlockReason::kChoice);
  Following guided(list, kSlack);
  for (const char* text : {"0F0", "0F1", "0I0"}) ASSERT_TRUE(guided.Choose(text));
  for (const char* text : {"0F0", "0F1"}) guided.Run(text);
  guided.Arrive(InputKind::kGradient, 0, 0);
  guided.Run("0I0");
  guided.Run("0W0");  // in its turn: nobody chooses it
  EXPECT_EQ(guided.Reason(), BlockReason::kChoice);
}

TEST(NextAction, AFollowerTakesOnlyChoicesThatCanBe) {
  const Schedule list = *ParseCsv("0F0,0F1,0I0,0W0,0B1\n1F0,1B0,1F1,1B1\n", "wrong");
  Following driven(list, kFreeRun);
  for (const char* wrong : {"0F1", "1F0", "2F0", "0B0", "0W0", "0REDUCE_GRAD"}) {
    EXPECT_FALSE(driven.Choose(wrong)) << wrong;
  }
  EXPECT_TRUE(driven.Choose("0F0"));
  EXPECT_FALSE(driven.Choose("0F0")) << "again";
  EXPECT_TRUE(driven.Choose("0I0"));
  EXPECT_TRUE(driven.Choose("0F1"));
  EXPECT_TRUE(driven.Choose("0B1"));
  EXPECT_FALSE(driven.Choose("0F2"));
  Driven decides(list, 0, DataArrival::kAtStart, kFreeRun);
  EXPECT_FALSE(decides.progress.MarkChosen(StageId(0), ActionKind::kForward, MicrobatchId(0)));
}

// While an action waits for the ranks that it is shared with, what may be open beside it is the
// same: a weight gradient, or the chosen other action of its pair.
TEST(NextAction, AFollowersWaitIsFilledAsAnyOther) {
  ExecutionPolicy policy = kSlack;
  policy.open_actions = 2;
  Following pair(*ParseCsv("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n1F0,1B0,1F1,1B1\n", "pair"), policy);
  ASSERT_TRUE(pair.Choose("0F0") && pair.Choose("0F1"));
  pair.Arrive(InputKind::kGradient, 0, 0);
  pair.Run("0F0");
  pair.progress.MarkWaiting(pair.Begin("0F1"), true);
  EXPECT_TRUE(pair.Runs()) << "0B0 was not chosen yet";
  ASSERT_TRUE(pair.Choose("0B0"));
  pair.Begin("0B0");
  Following halves(*ParseCsv("0F0,0I0,0F1,0W0,0B1\n1F0,1B0,1F1,1B1\n", "halves"), policy);
  for (const char* text : {"0F0", "0I0", "0F1"}) ASSERT_TRUE(halves.Choose(text));
  halves.Arrive(InputKind::kGradient, 0, 0);
  halves.Run("0F0");
  halves.Run("0I0");
  halves.progress.MarkWaiting(halves.Begin("0F1"), true);
  halves.Run("0W0");
}

TEST(NextAction, FreeRunTakesGradientsFirstAndForwardsWithinItsLimit) {
  // Rank 0 holds the first and the last stage, each half a share.
  Driven driven(Generated("dynamic", 2, 4), 0, DataArrival::kAtStart,
                {.mode = ExecutorMode::kFreeRun, .activation_limit = 1.5});
  driven.Run("0F0");
  driven.Run("0F1");
  // A third would leave no room for the last stage.
  const Blocked blocked = std::get<Blocked>(driven.Next());
  EXPECT_EQ(blocked.reason, BlockReason::kMemory);
  EXPECT_THAT(Describe(blocked), ::testing::HasSubstr("0F2 waits for memory"));
  driven.Arrive(InputKind::kActivation, 3, 0);
  driven.Run("3F0");
  driven.Run("3I0");  // before the Forward that still lacks memory
  driven.Run("3W0");
  EXPECT_EQ(std::get<Blocked>(driven.Next()).reason, BlockReason::kMemory);  // two are held still
  driven.Arrive(InputKind::kGradient, 0, 0);
  for (const char* text : {"0I0", "0W0", "0F2"}) driven.Run(text);
}

TEST(NextAction, AFusedPairStartsWithAllItsInputsAndSendsAtItsEnd) {
  Driven driven(*ParseCsv("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n1F0,1B0,1F1,1B1\n", "pair"), 0,
                DataArrival::kAtStart, {.pairs = PairMode::kFused});
  EXPECT_TRUE(driven.Run("0F0"));
  EXPECT_EQ(std::get<Blocked>(driven.Next()).kind, InputKind::kGradient);  // of its second action
  driven.Arrive(InputKind::kGradient, 0, 0);
  EXPECT_FALSE(driven.Run("0F1"));
  EXPECT_TRUE(driven.Run("0B0"));
}

TEST(NextAction, AWholeBackwardWaitsForWeightGradientsThatWerePutOff) {
  Driven driven(*ParseCsv("0F0,0F1,0I0,0W0,0B1\n1F0,1B0,1F1,1B1\n", "order"), 0,
                DataArrival::kAtStart, {.mode = ExecutorMode::kFreeRun, .activation_limit = 2});
  for (const char* text : {"0F0", "0F1"}) driven.Run(text);
  driven.Arrive(InputKind::kGradient, 0, 0);
  driven.Run("0I0");
  driven.Arrive(InputKind::kGradient, 0, 1);
  driven.Run("0W0");  // the input gradient of microbatch 1 is here, but sums go in order
  driven.Run("0B1");
}

TEST(NextActionDeathTest, OneActionAtATime) {
  Driven driven(Generated("gpipe", 1, 2), 0);
  const int32_t entry = std::get<Start>(driven.Next()).entry;
  driven.progress.MarkStarted(entry);
  EXPECT_DEATH(driven.progress.MarkStarted(entry), "0F0 starts while another");
}

TEST(NextAction, APairsActionsTakeTurnsWhileOneWaits) {
  for (const PairMode pairs : {PairMode::kEager, PairMode::kFused}) {
    Driven driven(*ParseCsv("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n1F0,1B0,1F1,1B1\n", "pair"), 0,
                  DataArrival::kAtStart, {.pairs = pairs, .open_actions = 2});
    const bool eager = pairs == PairMode::kEager;
    driven.Run("0F0");
    driven.Arrive(InputKind::kGradient, 0, 0);
    driven.Arrive(InputKind::kGradient, 0, 1);
    const int32_t forward = driven.Begin("0F1");
    EXPECT_TRUE(driven.Runs());
    driven.progress.MarkWaiting(forward, true);
    const int32_t backward = driven.Begin("0B0");
    driven.progress.MarkWaiting(backward, true);
    EXPECT_TRUE(driven.Runs()) << "0B1 is not of the pair";
    driven.progress.MarkWaiting(forward, false);
    EXPECT_TRUE(driven.Runs());
    EXPECT_EQ(driven.progress.MarkDone(forward), eager) << "a fused pair has not ended";
    EXPECT_TRUE(driven.Runs()) << "0B1 must not overtake 0B0, which waits";
    driven.progress.MarkWaiting(backward, false);
    EXPECT_TRUE(driven.progress.MarkDone(backward));
    driven.Run("0B1");
    EXPECT_TRUE(std::holds_alternative<Finished>(driven.Next()));
  }
}

TEST(NextAction, APairWaitsForItsTurnWhereOneActionMayBeOpen) {
  Driven driven(*ParseCsv("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n1F0,1B0,1F1,1B1\n", "pair"), 0);
  driven.Run("0F0");
  driven.Arrive(InputKind::kGradient, 0, 0);
  driven.progress.MarkWaiting(driven.Begin("0F1"), true);
  EXPECT_TRUE(driven.Runs());
}

TEST(NextAction, AWeightGradientFillsAWaitWhereTheModeLetsItJump) {
  const Schedule list =
      *ParseCsv("0F0,0F1,0I0,0F2,0W0,0I1,0W1,0I2,0W2\n1F0,1B0,1F1,1B1,1F2,1B2\n", "w");
  for (const ExecutorMode mode :
       {ExecutorMode::kStrict, ExecutorMode::kGuided, ExecutorMode::kFreeRun}) {
    Driven driven(list, 0, DataArrival::kAtStart,
                  {.mode = mode, .activation_limit = 3, .open_actions = 2});
    for (const char* text : {"0F0", "0F1"}) driven.Run(text);
    driven.Arrive(InputKind::kGradient, 0, 0);
    driven.Run("0I0");
    const int32_t forward = driven.Begin("0F2");
    driven.progress.MarkWaiting(forward, true);
    driven.Arrive(InputKind::kGradient, 0, 1);
    if (mode == ExecutorMode::kStrict) {
      EXPECT_TRUE(driven.Runs());
      continue;
    }
    driven.Run("0W0");  // and 0I1, though ready, does not
    EXPECT_TRUE(driven.Runs());
    driven.progress.MarkWaiting(forward, false);
    EXPECT_TRUE(driven.progress.MarkDone(forward));
    driven.Run("0I1");
  }
}

// Sums keep their order: two weight gradients of one stage are never open together.
TEST(NextAction, NothingOvertakesAnOpenActionOfItsOwnLane) {
  Driven driven(*ParseCsv("0F0,0F1,0I0,0I1,0W0,0W1\n", "lanes"), 0, DataArrival::kAtStart,
                {.mode = ExecutorMode::kGuided, .open_actions = 3});
  for (const char* text : {"0F0", "0F1", "0I0", "0I1"}) driven.Run(text);
  const int32_t weight = driven.Begin("0W0");
  driven.progress.MarkWaiting(weight, true);
  EXPECT_TRUE(driven.Runs());
  driven.progress.MarkWaiting(weight, false);
  driven.progress.MarkDone(weight);
  driven.Run("0W1");
}

}  // namespace
}  // namespace troupe
