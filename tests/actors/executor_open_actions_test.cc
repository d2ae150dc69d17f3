// An executor whose actions wait in their middle, and whose weights are gathered and gradients
// reduced beside them, as a script of messages: the test is the stages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actors/executor_actor.h"
#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class NotingStage : public Actor<NotingStage, RunAction, ReduceGradient, CollectVote, ApplyUpdate> {
 public:
  explicit NotingStage(std::vector<std::string>& asked) : asked_(asked) {}
  Status On(RunAction run) {
    asked_.push_back(ToString(run.action));
    return {};
  }
  Status On(CollectVote) {
    asked_.emplace_back("vote");
    return {};
  }
  Status On(ReduceGradient reduce) {
    asked_.push_back(fmt::format("reduce {}", reduce.reduction));
    return {};
  }
  Status On(ApplyUpdate) { return {}; }

 private:
  std::vector<std::string>& asked_;
};

class DeafLoader : public Actor<DeafLoader, FetchMicrobatches> {
 public:
  Status On(FetchMicrobatches) { return {}; }
};

class ExecutorOpenActions : public ::testing::Test {
 protected:
  // One rank that runs `list`; its tokens are here.
  void Open(const std::string& list, const ExecutionPolicy& policy,
            std::vector<GradientReduction> reductions = {}) {
    const Schedule schedule = *ParseCsv(list + "\n", "list");
    for (const Action& action : schedule.ActionsOf(PipelineRank(0))) {
      actions_[ToString(action)] = action;
    }
    scheduler_.SetOnDown([this](const Down& down) { errors_.push_back(down.error.message); });
    ExecutorActor::Peers peers{.loader = scheduler_.Spawn<DeafLoader>({.name = "loader"})};
    for (const StageId stage : schedule.StagesOf(PipelineRank(0))) {
      peers.stages[stage] =
          scheduler_.Spawn<NotingStage>({.name = fmt::format("stage {}", stage)}, asked_);
    }
    executor_ = scheduler_.Spawn<ExecutorActor>(
        {.name = "executor"},
        ExecutorOptions{
            .pipeline = {Rank(0)},
            .train = schedule,
            .policy = policy,
            .evaluate = GenerateForwardOnly(1, schedule.placement, schedule.num_microbatches),
            .sample = GenerateForwardOnly(1, schedule.placement, 1),
            .reductions = std::move(reductions)},
        std::move(peers));
    proto::StepStart start;
    start.set_round(1);
    start.set_step(1);
    start.set_num_microbatches(schedule.num_microbatches);
    Tell(start);
    Tell(MicrobatchesReady{
        .round = 1,
        .microbatches = std::vector<SharedMicrobatch>(
            static_cast<size_t>(schedule.num_microbatches), std::make_shared<const Microbatch>())});
  }
  ~ExecutorOpenActions() override { scheduler_.End(executor_); }

  void Waits(const std::string& action) { Tell(ActionWaits{actions_.at(action), true}); }
  void GoesOn(const std::string& action) { Tell(ActionWaits{actions_.at(action), false}); }
  void Done(const std::string& action) {
    Tell(ActionDone{.action = actions_.at(action), .round = 1, .step = 1});
  }
  void Reduced(int32_t reduction) { Tell(GradientReduced{.round = 1, .reduction = reduction}); }
  // What the stages were asked for since the last call.
  std::vector<std::string> Asked() { return std::exchange(asked_, {}); }

  size_t NumWaits() { return scheduler_.waits().Snapshot().size(); }

  std::vector<std::string> errors_{};

 private:
  template <typename M>
  void Tell(M message) {
    CHECK(executor_.Send(std::move(message)).ok());
    scheduler_.RunUntilIdle();
  }

  Scheduler scheduler_{};
  std::map<std::string, Action> actions_{};  // by their text, which says nothing of pairs
  std::vector<std::string> asked_{};
  ExecutorActor::SelfRef executor_{};
};

TEST_F(ExecutorOpenActions, APairsActionsHandTheStreamToEachOther) {
  Open("0F0,(0F1;0B0)OVERLAP_F_B,0B1", {.open_actions = 2});
  EXPECT_THAT(Asked(), ElementsAre("0F0"));
  Waits("0F0");
  EXPECT_THAT(Asked(), IsEmpty()) << "0F1 is not of its pair";
  GoesOn("0F0");
  Done("0F0");
  EXPECT_THAT(Asked(), ElementsAre("0F1"));
  Waits("0F1");
  EXPECT_THAT(Asked(), ElementsAre("0B0"));
  Waits("0B0");
  GoesOn("0F1");
  GoesOn("0B0");
  Done("0B0");
  EXPECT_THAT(Asked(), IsEmpty()) << "0F1 is open still";
  Done("0F1");
  EXPECT_THAT(Asked(), ElementsAre("0B1"));
  Done("0B1");
  EXPECT_THAT(Asked(), ElementsAre("vote"));
  EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(ExecutorOpenActions, AWeightGradientRunsWhileAForwardWaits) {
  Open("0F0,0I0,0F1,0W0,0I1,0W1", {.mode = ExecutorMode::kGuided, .open_actions = 2});
  Done("0F0");
  Done("0I0");
  EXPECT_THAT(Asked(), ElementsAre("0F0", "0I0", "0F1"));
  Waits("0F1");
  EXPECT_THAT(Asked(), ElementsAre("0W0"));
  GoesOn("0F1");
  Done("0W0");
  Done("0F1");
  EXPECT_THAT(Asked(), ElementsAre("0I1"));
}

TEST_F(ExecutorOpenActions, OneOpenActionWaitsAlone) {
  Open("0F0,(0F1;0B0)OVERLAP_F_B,0B1", {});
  Done("0F0");
  Asked();
  Waits("0F1");
  EXPECT_THAT(Asked(), IsEmpty());
  GoesOn("0F1");
  Done("0F1");
  EXPECT_THAT(Asked(), ElementsAre("0B0"));
}

TEST_F(ExecutorOpenActions, AnActionThatIsNotOpenNeitherWaitsNorEnds) {
  Open("0F0,0B0", {});
  Waits("0B0");
  EXPECT_THAT(errors_, ElementsAre(HasSubstr("0B0 waits without having started")));
}

TEST_F(ExecutorOpenActions, AnActionEndsOnce) {
  Open("0F0,0B0", {});
  Done("0F0");
  Done("0F0");
  EXPECT_THAT(errors_, ElementsAre(HasSubstr("0F0 ends without having started")));
}

TEST_F(ExecutorOpenActions, AReductionStartsWithItsStagesLastGradientBesideTheActions) {
  Open("0F0,1F0,1B0,0B0", {}, {{SharedWeights::kReplica, {StageId(1)}}});
  Done("0F0");
  Done("1F0");
  Asked();
  Done("1B0");
  EXPECT_THAT(Asked(), ElementsAre("0B0", "reduce 0")) << "compute goes first";
  Done("0B0");
  EXPECT_THAT(Asked(), IsEmpty()) << "no vote before the sum is there";
  EXPECT_EQ(NumWaits(), 0u) << "a wait that names no rank would hide the group's";
  Reduced(0);
  EXPECT_THAT(Asked(), ElementsAre("vote", "vote"));
  EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(ExecutorOpenActions, AVoteWaitsForTheListToo) {
  Open("0F0,1F0,1B0,0B0", {}, {{SharedWeights::kReplica, {StageId(1)}}});
  for (const char* action : {"0F0", "1F0", "1B0"}) Done(action);
  Asked();
  Reduced(0);
  EXPECT_THAT(Asked(), IsEmpty());
  Done("0B0");
  EXPECT_THAT(Asked(), ElementsAre("vote", "vote"));
}

// ---- collectives of the list -------------------------------------------------------------------

TEST_F(ExecutorOpenActions, GathersStartInTheirPlaceAndHoldUpNothing) {
  Open("0UNSHARD,1UNSHARD,0F0,0RESHARD,1F0,1B0,1RESHARD,0B0", {});
  EXPECT_THAT(Asked(), ElementsAre("0UNSHARD", "1UNSHARD", "0F0"));
  Waits("1UNSHARD");
  Done("0UNSHARD");
  EXPECT_THAT(Asked(), IsEmpty());
  Done("0F0");
  EXPECT_THAT(Asked(), ElementsAre("0RESHARD", "1F0"));
  GoesOn("1UNSHARD");
  Done("1UNSHARD");
  Done("1F0");
  Done("1B0");
  EXPECT_THAT(Asked(), ElementsAre("1B0", "1RESHARD")) << "what 0B0 reads is going";
  Done("0RESHARD");
  EXPECT_THAT(Asked(), ElementsAre("0B0"));
  Done("0B0");
  EXPECT_THAT(Asked(), IsEmpty()) << "the step does not end before its collectives";
  Done("1RESHARD");
  EXPECT_THAT(Asked(), ElementsAre("vote", "vote"));
  EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(ExecutorOpenActions, AListedReductionStartsInItsPlaceAndNotBefore) {
  Open("0F0,1F0,1I0,1W0,0B0,1REDUCE_GRAD,0REDUCE_GRAD", {},
       {{SharedWeights::kStage, {StageId(1)}}});
  for (const char* action : {"0F0", "1F0", "1I0", "1W0"}) Done(action);
  EXPECT_THAT(Asked(), ElementsAre("0F0", "1F0", "1I0", "1W0", "0B0"));
  Done("0B0");
  EXPECT_THAT(Asked(), ElementsAre("1REDUCE_GRAD", "0REDUCE_GRAD"));
  Done("1REDUCE_GRAD");
  EXPECT_THAT(Asked(), ElementsAre("reduce 0"));
  Done("0REDUCE_GRAD");
  EXPECT_THAT(Asked(), IsEmpty()) << "no vote before the sum is there";
  Reduced(0);
  EXPECT_THAT(Asked(), ElementsAre("vote", "vote"));
  EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(ExecutorOpenActions, AWaitHoldsTheListUntilTheStagesSumsAreThere) {
  Open("0F0,1F0,1B0,1REDUCE_GRAD,1WAIT_REDUCE_GRAD,0B0", {},
       {{SharedWeights::kStage, {StageId(1)}}});
  for (const char* action : {"0F0", "1F0", "1B0"}) Done(action);
  EXPECT_THAT(Asked(), ElementsAre("0F0", "1F0", "1B0", "1REDUCE_GRAD"));
  Done("1REDUCE_GRAD");
  EXPECT_THAT(Asked(), ElementsAre("reduce 0"));
  EXPECT_EQ(NumWaits(), 0u) << "a wait that names no rank would hide the group's";
  Reduced(0);
  EXPECT_THAT(Asked(), ElementsAre("0B0"));
  Done("0B0");
  EXPECT_THAT(Asked(), ElementsAre("vote", "vote"));
  EXPECT_THAT(errors_, IsEmpty());
}

// The other copy may be on a rank that needs what stands behind the wait.
TEST_F(ExecutorOpenActions, AWaitIsNotForOtherCopiesOfAWeight) {
  Open("0F0,1F0,1B0,1REDUCE_GRAD,1WAIT_REDUCE_GRAD,0B0", {},
       {{SharedWeights::kTied, {StageId(1)}}});
  for (const char* action : {"0F0", "1F0", "1B0", "1REDUCE_GRAD"}) Done(action);
  EXPECT_THAT(Asked(), ElementsAre("0F0", "1F0", "1B0", "1REDUCE_GRAD", "0B0", "reduce 0"));
  Done("0B0");
  EXPECT_THAT(Asked(), IsEmpty()) << "the vote is";
  Reduced(0);
  EXPECT_THAT(Asked(), ElementsAre("vote", "vote"));
}

// Where no other rank has the stage there is nothing to wait for.
TEST_F(ExecutorOpenActions, AReductionOfNothingEndsAtOnce) {
  Open("0F0,0F1,0B0,0REDUCE_GRAD0,0B1,0REDUCE_GRAD1,0WAIT_REDUCE_GRAD", {});
  for (const char* action : {"0F0", "0F1", "0B0"}) Done(action);
  EXPECT_THAT(Asked(), ElementsAre("0F0", "0F1", "0B0", "0REDUCE_GRAD0", "0B1"));
  Done("0B1");
  Done("0REDUCE_GRAD0");
  EXPECT_THAT(Asked(), ElementsAre("0REDUCE_GRAD1"));
  Done("0REDUCE_GRAD1");
  EXPECT_THAT(Asked(), ElementsAre("vote"));
  EXPECT_THAT(errors_, IsEmpty());
}

// Reductions of single microbatches change nothing of when the stage's own begin.
TEST_F(ExecutorOpenActions, ReductionsOfMicrobatchesEndWithTheStages) {
  Open("0F0,0B0,0REDUCE_GRAD0,0WAIT_REDUCE_GRAD", {}, {{SharedWeights::kStage, {StageId(0)}}});
  for (const char* action : {"0F0", "0B0"}) Done(action);
  EXPECT_THAT(Asked(), ElementsAre("0F0", "0B0", "0REDUCE_GRAD0", "reduce 0"));
  Reduced(0);
  EXPECT_THAT(Asked(), IsEmpty()) << "its own work has not ended";
  Done("0REDUCE_GRAD0");
  EXPECT_THAT(Asked(), ElementsAre("vote"));
  EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(ExecutorOpenActions, ACollectiveEndsOnce) {
  Open("0UNSHARD,0F0,0B0,0RESHARD", {});
  Done("0UNSHARD");
  Done("0UNSHARD");
  EXPECT_THAT(errors_, ElementsAre(HasSubstr("0UNSHARD ends without having started")));
}

TEST_F(ExecutorOpenActions, AReductionThatIsNotUnderWayDoesNotEnd) {
  Open("0F0,0B0", {});
  Reduced(0);
  EXPECT_THAT(errors_, ElementsAre(HasSubstr("gradient 0 was reduced unasked")));
}

}  // namespace
}  // namespace troupe
