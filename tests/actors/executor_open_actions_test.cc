// An executor whose actions wait in their middle, and whose gradients are reduced beside them, as a
// script of messages: the test is the stages.
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

TEST_F(ExecutorOpenActions, AReductionThatIsNotUnderWayDoesNotEnd) {
  Open("0F0,0B0", {});
  Reduced(0);
  EXPECT_THAT(errors_, ElementsAre(HasSubstr("gradient 0 was reduced unasked")));
}

}  // namespace
}  // namespace troupe
