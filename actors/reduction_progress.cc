#include "actors/reduction_progress.h"

#include <algorithm>
#include <utility>

namespace troupe {

ReductionProgress::ReductionProgress(const std::vector<GradientReduction>& reductions,
                                     const Schedule& schedule, PipelineRank rank) {
  for (size_t i = 0; i < reductions.size(); ++i) {
    auto stages = StagesOn(schedule, reductions[i], rank);
    if (stages.empty()) continue;
    own_.push_back({.index = static_cast<int32_t>(i),
                    .weights = reductions[i].weights,
                    .stages = std::move(stages)});
  }
}

void ReductionProgress::MarkGradients(StageId stage) { has_gradients_.insert(stage); }

bool ReductionProgress::MayStart(size_t own) const {
  const std::vector<StageId>& stages = own_[own].stages;
  const auto shares_a_stage = [&](const Own& other) {
    return std::ranges::find_first_of(other.stages, stages) != other.stages.end();
  };
  for (size_t earlier = 0; earlier < own; ++earlier) {  // D2
    if (own_[earlier].state != State::kDone && shares_a_stage(own_[earlier])) return false;
  }
  return std::ranges::all_of(stages,
                             [this](StageId stage) { return has_gradients_.contains(stage); });
}

std::optional<ReductionProgress::Step> ReductionProgress::Next() {
  for (size_t i = 0; i < own_.size(); ++i) {
    if (own_[i].state != State::kWaiting || !MayStart(i)) continue;
    own_[i].state = State::kRunning;
    return Step{own_[i].index, own_[i].stages.back()};
  }
  return std::nullopt;
}

bool ReductionProgress::MarkReduced(int32_t reduction) {
  const auto own = std::ranges::find(own_, reduction, &Own::index);
  if (own == own_.end() || own->state != State::kRunning) return false;
  own->state = State::kDone;
  return true;
}

bool ReductionProgress::Done() const {
  return std::ranges::all_of(own_, [](const Own& own) { return own.state == State::kDone; });
}

bool ReductionProgress::HasRanksSums(StageId stage) const {
  return std::ranges::all_of(own_, [stage](const Own& own) {
    return own.state == State::kDone || own.weights != SharedWeights::kStage ||
           std::ranges::find(own.stages, stage) == own.stages.end();
  });
}

std::vector<int32_t> ReductionProgress::TakeEnded() {
  std::vector<int32_t> ended;
  std::erase_if(begun_, [&](const std::pair<int32_t, StageId>& entry_and_stage) {
    const bool done = HasRanksSums(entry_and_stage.second);
    if (done) ended.push_back(entry_and_stage.first);
    return done;
  });
  return ended;
}

}  // namespace troupe
