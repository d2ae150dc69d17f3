// A stage whose arithmetic is time, and whose weights count its updates: the first element of every
// parameter, and of its first moment, is the step that it stands at. So what a checkpoint holds,
// and where a resumed run goes on, can be looked at. The loss of a microbatch is its number, the
// squared gradient of every parameter 1: the same in every layout.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "actors/stage_set.h"
#include "runtime/sim/sim_stream.h"
#include "tests/support/answering_stage.h"

namespace troupe::testing {

class CostStage : public AnsweringStage<CostStage> {
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
      : AnsweringStage(place, stage), model_(model), options_(std::move(options)) {}

  using AnsweringStage::On;
  Status On(RunAction run) {
    Spend(AnswerTo(run), [this](ActionDone& done) {
      if (!OutputOf(plan().train, done.action)) return;
      const int64_t num_bytes = plan().batch.tokens_per_microbatch() * plan().config.hidden_size *
                                static_cast<int64_t>(sizeof(float));
      done.output = Buffer(options_.ledger, MemoryTag::kActivations, num_bytes);
    });
    return {};
  }
  Status On(CollectVote collect) {
    StageVote vote{.stage = stage(), .round = collect.round};
    for (const StageParameter& p : model_.parameters().all()) {
      if (!p.owned) continue;
      auto& node = vote.norm_nodes.emplace_back();
      node.set_parameter(p.index);
      node.set_num_leaves(1);
      node.set_sum(1);
    }
    return executor().Send(std::move(vote));
  }
  Status On(ApplyUpdate update) {
    options_.on_update(stage(), update);
    Spend(UpdateDone{.stage = stage(), .step = update.step}, [this](const UpdateDone& done) {
      for (const StageParameter& p : model_.parameters().all()) {
        for (const TensorView& view : {p.weight, p.m}) {
          view.Flat().as<float>()[0] = static_cast<float>(done.step);
        }
      }
    });
    return {};
  }

 private:
  // Work of a drawn cost, then work(answer), on the stream; then the answer.
  template <typename Answer, typename Work>
  void Spend(Answer answer, Work work) {
    auto shared = std::make_shared<Answer>(std::move(answer));
    place().stream.Launch(
        [this, shared, work = std::move(work)] {
          options_.work.Spend(options_.draw_cost_ns());
          work(*shared);
        },
        [this, shared](const WorkTime& time) {
          shared->time = time;
          if (executor().alive()) (void)executor().Send(std::move(*shared));
        });
  }

  StageModel& model_;
  const Options options_;
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
