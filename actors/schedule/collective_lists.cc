#include "actors/schedule/collective_lists.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>
#include <vector>

#include "actors/schedule/deadlock.h"

namespace troupe {
namespace {

constexpr size_t kNever = std::numeric_limits<size_t>::max();

// For each action, where its stage's next one stands.
std::vector<size_t> NextOfStage(const Schedule& schedule, const std::vector<Action>& actions) {
  std::vector<size_t> at(static_cast<size_t>(schedule.num_stages), kNever);
  std::vector<size_t> next(actions.size(), kNever);
  for (size_t i = actions.size(); i-- > 0;) {
    next[i] = std::exchange(at[static_cast<size_t>(actions[i].stage.value)], i);
  }
  return next;
}

class RankLowering {
 public:
  RankLowering(const Schedule& schedule, PipelineRank rank, int num_stages)
      : schedule_(schedule),
        rank_(rank),
        num_stages_(static_cast<size_t>(num_stages)),
        actions_(schedule.ActionsOf(rank)),
        next_of_stage_(NextOfStage(schedule, actions_)),
        gradients_left_(static_cast<size_t>(schedule.num_stages),
                        schedule.MicrobatchesPerDirection()) {
    std::set<StageId> seen;
    for (size_t i = 0; i < actions_.size(); ++i) {
      if (seen.insert(actions_[i].stage).second) upcoming_.emplace(i, actions_[i].stage);
    }
  }

  Result<std::vector<Action>> Run() {
    for (size_t first = 0; first < actions_.size();) {
      size_t end = first + 1;
      while (end < actions_.size() && SamePair(first, end)) ++end;
      std::set<StageId> stages;
      for (size_t i = first; i < end; ++i) stages.insert(actions_[i].stage);
      if (stages.size() > num_stages_) {
        return MakeError(ErrorCode::kInvalidSpec,
                         "{}: its pair needs the parameters of {} stages at once, more than {}",
                         CellName(schedule_, rank_, first), stages.size(), num_stages_);
      }
      Gather();
      list_.insert(list_.end(), actions_.begin() + static_cast<std::ptrdiff_t>(first),
                   actions_.begin() + static_cast<std::ptrdiff_t>(end));
      for (size_t i = first; i < end; ++i) Pass(i);
      first = end;
    }
    for (const StageId stage : gathered_) Add(stage, ActionKind::kReshard);
    return std::move(list_);
  }

 private:
  bool SamePair(size_t a, size_t b) const {
    return actions_[a].pair != kNotPaired && actions_[a].pair == actions_[b].pair;
  }
  void Add(StageId stage, ActionKind kind) { list_.push_back({.stage = stage, .kind = kind}); }

  // The next different stages; a pair that begins among them is whole among them.
  std::vector<StageId> NextStages() const {
    std::vector<StageId> next;
    size_t last = kNever;
    for (const auto& [at, stage] : upcoming_) {
      if (next.size() >= num_stages_ && !SamePair(last, at)) break;
      next.push_back(stage);
      last = at;
    }
    return next;
  }

  void Gather() {
    const std::vector<StageId> next = NextStages();
    std::erase_if(gathered_, [&](StageId stage) {
      const bool goes = std::ranges::find(next, stage) == next.end();
      if (goes) Add(stage, ActionKind::kReshard);
      return goes;
    });
    for (const StageId stage : next) {
      if (std::ranges::find(gathered_, stage) != gathered_.end()) continue;
      gathered_.push_back(stage);
      Add(stage, ActionKind::kUnshard);
    }
  }

  // The action is in the list.
  void Pass(size_t index) {
    const Action& action = actions_[index];
    upcoming_.erase({index, action.stage});
    if (next_of_stage_[index] != kNever) upcoming_.emplace(next_of_stage_[index], action.stage);
    const bool whole =
        action.kind == ActionKind::kBackward ||
        (action.kind == ActionKind::kBackwardWeight && action.part + 1 == action.num_parts);
    if (whole && --gradients_left_[static_cast<size_t>(action.stage.value)] == 0) {
      Add(action.stage, ActionKind::kReduceGrad);
    }
  }

  const Schedule& schedule_;
  const PipelineRank rank_;
  const size_t num_stages_;
  const std::vector<Action>& actions_;
  const std::vector<size_t> next_of_stage_;
  std::vector<int> gradients_left_;                  // by stage
  std::set<std::pair<size_t, StageId>> upcoming_{};  // where each stage's next action stands
  std::vector<StageId> gathered_{};                  // in the order of their gathers
  std::vector<Action> list_{};
};

}  // namespace

Result<Schedule> WithCollectives(const Schedule& schedule, int num_stages) {
  Schedule lowered = schedule;
  for (PipelineRank rank{}; rank.value < schedule.num_ranks; rank = rank.Next()) {
    ASSIGN_OR_RETURN(lowered.ranks[static_cast<size_t>(rank.value)],
                     RankLowering(schedule, rank, num_stages).Run());
  }
  return lowered;
}

}  // namespace troupe
