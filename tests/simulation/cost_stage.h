// A stage whose arithmetic is time, and whose weights count its updates: the first element of every
// parameter, and of its first moment, is the step that it stands at. So what a checkpoint holds,
// and where a resumed run goes on, can be looked at. The loss of a microbatch is its number, the
// squared gradient of every parameter 1: the same in every layout.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "actors/rank_seams.h"
#include "actors/stage_set.h"
#include "runtime/actor/actor.h"
#include "runtime/sim/sim_stream.h"

namespace troupe::testing {

class CostStage
    : public Actor<CostStage, MeetExecutor, RunAction, ReduceGradient, CollectVote, ApplyUpdate> {
 public:
  struct Options {
    std::function<int64_t()> draw_cost_ns{};
    // Before the weights change.
    std::function<void(StageId, const ApplyUpdate&)> on_update{};
    SimWork& work;
    MemoryLedger& ledger;
  };

  // `model` outlives it.
  CostStage(const RankPlace& place, StageId stage, StageModel& model, Options options)
      : plan_(place.plan),
        stream_(place.stream),
        stage_(stage),
        model_(model),
        options_(std::move(options)) {}

  Status On(MeetExecutor meet) {
    executor_ = meet.executor;
    return {};
  }
  Status On(RunAction run) {
    auto done = std::make_shared<ActionDone>();
    done->action = run.action;
    done->round = run.round;
    done->step = run.step;
    done->mode = run.mode;
    stream_.Launch([this, done] { Work(*done); },
                   [this, done](const WorkTime& time) {
                     done->time = time;
                     if (executor_.alive()) (void)executor_.Send(std::move(*done));
                   });
    return {};
  }
  Status On(CollectVote collect) {
    StageVote vote{.stage = stage_, .round = collect.round};
    for (const StageParameter& p : model_.parameters().all()) {
      if (!p.owned) continue;
      auto& node = vote.norm_nodes.emplace_back();
      node.set_parameter(p.index);
      node.set_num_leaves(1);
      node.set_sum(1);
    }
    return executor_.Send(std::move(vote));
  }
  Status On(ReduceGradient reduce) {
    return executor_.Send(GradientReduced{.round = reduce.round, .reduction = reduce.reduction});
  }
  Status On(ApplyUpdate update) {
    auto time = std::make_shared<UpdateDone>(UpdateDone{.stage = stage_, .step = update.step});
    options_.on_update(stage_, update);
    stream_.Launch(
        [this, update] {
          options_.work.Spend(options_.draw_cost_ns());
          for (const StageParameter& p : model_.parameters().all()) {
            for (const TensorView& view : {p.weight, p.m}) {
              view.Flat().as<float>()[0] = static_cast<float>(update.step);
            }
          }
        },
        [this, time](const WorkTime& took) {
          time->time = took;
          if (executor_.alive()) (void)executor_.Send(std::move(*time));
        });
    return {};
  }

 private:
  void Work(ActionDone& done) const {
    options_.work.Spend(options_.draw_cost_ns());
    const bool forward = done.action.kind == ActionKind::kForward;
    const bool last = plan_.train.IsLastStage(done.action.stage);
    if (forward && last) {
      done.loss_sum = done.action.microbatch.value;
      done.num_tokens = 1;
    }
    if (!OutputOf(plan_.train, done.action)) return;
    const int64_t num_bytes = plan_.batch.micro_batch_size * plan_.batch.seq_len *
                              plan_.config.hidden_size * static_cast<int64_t>(sizeof(float));
    done.output = Buffer(options_.ledger, MemoryTag::kActivations, num_bytes);
  }

  const JobPlan& plan_;
  Stream& stream_;
  const StageId stage_;
  StageModel& model_;
  const Options options_;
  ExecutorAnswers executor_{};
};

// The step that the weights of a stage stand at; nothing where they disagree.
inline std::optional<int64_t> StepOf(StageModel& model) {
  std::optional<int64_t> step;
  for (const StageParameter& p : model.parameters().all()) {
    const auto at = static_cast<int64_t>(p.m.Flat().as<float>()[0]);
    if (step && *step != at) return std::nullopt;
    step = at;
  }
  return step;
}

}  // namespace troupe::testing
