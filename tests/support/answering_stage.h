// What the stages of tests do alike: they meet their executor, vote alike in every layout, and have
// reduced and updated as soon as they are asked to. A stage derives from this one, says what an
// action is, and whatever else it does otherwise.
#pragma once

#include "actors/rank_seams.h"
#include "runtime/actor/actor.h"

namespace troupe::testing {

// A vote for the parameters whose index is the stage's, modulo the number of stages: `sum` is the
// first one's, the rest have none.
inline StageVote UnitVote(const JobPlan& plan, StageId stage, int64_t round, double sum) {
  StageVote vote{.stage = stage, .round = round};
  for (int parameter = stage.value; parameter < plan.table.size();
       parameter += plan.train.num_stages) {
    auto& node = vote.norm_nodes.emplace_back();
    node.set_parameter(parameter);
    node.set_num_leaves(1);
    node.set_sum(parameter == stage.value ? sum : 0);
  }
  return vote;
}

template <typename Stage>
class AnsweringStage
    : public Actor<Stage, MeetExecutor, RunAction, ReduceGradient, CollectVote, ApplyUpdate> {
 public:
  AnsweringStage(const RankPlace& place, StageId stage) : place_(place), stage_(stage) {}

  Status On(MeetExecutor meet) {
    executor_ = meet.executor;
    return {};
  }
  Status On(CollectVote collect) {
    StageVote vote = UnitVote(plan(), stage_, collect.round, 1);
    if (plan().mesh.ReplicaOf(place_.rank) > 0) vote.norm_nodes.clear();  // another rank's to vote
    return executor_.Send(std::move(vote));
  }
  Status On(ReduceGradient reduce) {
    return executor_.Send(GradientReduced{.round = reduce.round, .reduction = reduce.reduction});
  }
  Status On(ApplyUpdate update) {
    return executor_.Send(UpdateDone{.stage = stage_, .step = update.step});
  }

 protected:
  // Without an output. The loss of a microbatch is its number.
  ActionDone AnswerTo(const RunAction& run) const {
    ActionDone done{.action = run.action, .round = run.round, .step = run.step, .mode = run.mode};
    if (run.action.kind == ActionKind::kForward && plan().train.IsLastStage(run.action.stage)) {
      done.loss = {.nll = static_cast<double>(run.action.microbatch.value), .num_tokens = 1};
    }
    return done;
  }

  const RankPlace& place() const { return place_; }
  const JobPlan& plan() const { return place_.plan; }
  StageId stage() const { return stage_; }
  const ExecutorAnswers& executor() const { return executor_; }

 private:
  const RankPlace place_;
  const StageId stage_;
  ExecutorAnswers executor_{};
};

}  // namespace troupe::testing
