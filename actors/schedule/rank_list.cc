#include "actors/schedule/rank_list.h"

#include <algorithm>

#include "actors/schedule/activations.h"

namespace troupe {
namespace {

RankList::LaneKind LaneOf(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
      return RankList::kForwardLane;
    case ActionKind::kBackwardWeight:
      return RankList::kWeightLane;
    default:
      return RankList::kInputLane;
  }
}

}  // namespace

uint8_t RankList::ArrivalBit(InputKind kind, int input) {
  static_assert(kStageInputsMax == 4, "a bit of kOtherActivationsHere for each input but one");
  switch (kind) {
    case InputKind::kActivation:
      return input == 0 ? kActivationHere : static_cast<uint8_t>(1 << (4 + input));
    case InputKind::kGradient:
      return kGradientHere;
    case InputKind::kData:
      return kDataHere;
  }
  return 0;
}

RankList::RankList(const Schedule& schedule, PipelineRank rank, const ExecutionPolicy& policy,
                   DataArrival data, double held_for_weight)
    : schedule_(&schedule),
      rank_(rank),
      policy_(policy),
      data_(data),
      held_for_weight_(held_for_weight),
      microbatches_per_stage_(schedule.MicrobatchesPerDirection()) {
  CHECK(policy.open_actions >= 1 && policy.open_actions <= kOpenActionsMax,
        "a policy of {} open actions, at most {} may be", policy.open_actions, kOpenActionsMax);
  AddStages();
  lanes_.resize(stages_.size() * kLanesPerStage);
  const std::vector<Action>& actions = schedule.ActionsOf(rank);
  entries_.reserve(actions.size());
  for (const Action& action : actions) AddEntry(action);
  if (policy.pairs == PairMode::kFused) LinkPairs();
  if (policy.mode == ExecutorMode::kFreeRun) {
    activation_cap_ = policy.activation_limit;
  } else if (policy.activation_slack > 0) {
    peak_from_ = ActivationsAlong(schedule, rank, held_for_weight);
    for (size_t i = peak_from_.size(); i-- > 1;) {
      peak_from_[i - 1] = std::max(peak_from_[i - 1], peak_from_[i]);
    }
    activation_cap_ = (peak_from_.empty() ? 0 : peak_from_[0]) + policy.activation_slack;
  }
}

void RankList::AddStages() {
  const std::vector<StageId> held = schedule_->StagesOf(rank_);
  const double share = held.empty() ? 1 : schedule_->StageShare(held.front());
  stages_.reserve(held.size());
  for (const StageId stage : held) {
    const auto bits_of = [&](ActionKind kind) {
      uint8_t bits = 0;
      for (const Transfer& input : InputsOf(*schedule_, {.stage = stage, .kind = kind})) {
        bits |= ArrivalBit(input.kind, input.input);
      }
      return bits;
    };
    stages_.push_back({.stage = stage,
                       .first_microbatch = schedule_->FirstMicrobatch(stage).value,
                       .has_backward = schedule_->HasBackward(stage),
                       .inputs = bits_of(ActionKind::kForward),
                       .gradient = bits_of(ActionKind::kBackward),
                       .share = share,
                       .direction = schedule_->DirectionOf(stage)});
  }
  std::vector<int> deeper(static_cast<size_t>(schedule_->num_directions), 0);
  for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage) {
    stage->deeper_chunks = deeper[static_cast<size_t>(stage->direction)]++;
  }
}

void RankList::AddEntry(const Action& action) {
  Entry entry{.action = action};
  const auto index = static_cast<int32_t>(entries_.size());
  if (IsCompute(action.kind)) {
    entry.stage = StageIndex(action.stage);
    entry.cell = entry.stage < 0 ? -1 : CellOf(entry.stage, action.microbatch);
    CHECK(entry.cell >= 0, "{} is not of rank {}", ToString(action), rank_);
    const Stage& stage = stages_[static_cast<size_t>(entry.stage)];
    const LaneKind lane = LaneOf(action.kind);
    entry.lane = entry.stage * kLanesPerStage + lane;
    lanes_[static_cast<size_t>(entry.lane)].push_back(index);
    if (action.kind == ActionKind::kBackward) {
      lanes_[static_cast<size_t>(entry.WeightLane())].push_back(index);
    }
    switch (lane) {
      case kForwardLane:
        entry.needs = stage.inputs | kDataHere;
        entry.done = kForwardDone;
        break;
      case kInputLane:
        entry.needs = kForwardDone | stage.gradient;
        entry.done = kInputGradientDone;
        break;
      case kWeightLane:
        entry.needs = kInputGradientDone;
        break;
    }
    if (const auto output = OutputOf(*schedule_, action); output && !output->crosses_ranks()) {
      entry.hand_over_cell = CellIndex(output->to_stage, output->microbatch);
      entry.hand_over_bit = ArrivalBit(output->kind, output->input);
    }
  } else {
    CHECK(!IsCommunication(action.kind), "{}: sends and receives follow from the compute actions",
          ToString(action));
    CHECK(policy_.mode != ExecutorMode::kFreeRun, "{}: free-run keeps no list", ToString(action));
    entry.stage = StageIndex(action.stage);
    CHECK(entry.stage >= 0, "{} is not of rank {}", ToString(action), rank_);
    if (action.kind == ActionKind::kReduceGrad && !action.of_microbatch) {
      stages_[static_cast<size_t>(entry.stage)].lists_sums = true;
    }
  }
  entries_.push_back(entry);
}

void RankList::LinkPairs() {
  for (size_t first = 0; first < entries_.size(); ++first) {
    const int32_t pair = entries_[first].action.pair;
    if (pair == kNotPaired) continue;
    size_t last = first;
    while (last + 1 < entries_.size() && entries_[last + 1].action.pair == pair) ++last;
    entries_[first].followers = static_cast<int32_t>(last - first);
    for (size_t i = first; i <= last; ++i) entries_[i].fused = last > first;
    first = last;
  }
}

int RankList::StageIndex(StageId stage) const {
  const auto found = std::ranges::lower_bound(stages_, stage, {}, &Stage::stage);
  return found != stages_.end() && found->stage == stage ? static_cast<int>(found - stages_.begin())
                                                         : -1;
}

int RankList::CellIndex(StageId stage, MicrobatchId microbatch) const {
  const int index = StageIndex(stage);
  return index < 0 ? -1 : CellOf(index, microbatch);
}

int RankList::CellOf(int stage_index, MicrobatchId microbatch) const {
  const int column = microbatch.value - stages_[static_cast<size_t>(stage_index)].first_microbatch;
  if (column < 0 || column >= microbatches_per_stage_) return -1;
  return stage_index * microbatches_per_stage_ + column;
}

}  // namespace troupe
