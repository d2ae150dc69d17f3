#include "actors/schedule/next_action.h"

#include <algorithm>

namespace troupe {
namespace {

// Bits of one (stage, microbatch) cell.
constexpr uint8_t kActivationHere = 1;
constexpr uint8_t kGradientHere = 2;
constexpr uint8_t kDataHere = 4;
constexpr uint8_t kForwardDone = 8;
constexpr uint8_t kInputGradientDone = 16;

uint8_t ArrivalBit(InputKind kind) {
  switch (kind) {
    case InputKind::kActivation:
      return kActivationHere;
    case InputKind::kGradient:
      return kGradientHere;
    case InputKind::kData:
      return kDataHere;
  }
  return 0;
}

// What keeps `action` from starting apart from its stage's own earlier actions; false: nothing
// does.
bool LacksInput(const Schedule& schedule, Rank rank, const RankProgress& progress,
                const Action& action, Blocked& blocked) {
  if (const auto input = InputOf(schedule, action);
      input && !progress.HasArrived(input->kind, action.stage, action.microbatch)) {
    blocked.reason = BlockReason::kInput;
    blocked.kind = input->kind;
    blocked.owed_by = input->from;
    blocked.owed_stage = input->from_stage;
    return true;
  }
  const bool reads_data =
      action.kind == ActionKind::kForward &&
      (schedule.IsFirstStage(action.stage) || schedule.IsLastStage(action.stage));
  if (reads_data && !progress.HasArrived(InputKind::kData, action.stage, action.microbatch)) {
    blocked.reason = BlockReason::kData;
    blocked.kind = InputKind::kData;
    blocked.owed_by = rank;
    blocked.owed_stage = action.stage;
    return true;
  }
  return false;
}

bool OwnStageReady(const RankProgress& progress, const Action& action) {
  switch (action.kind) {
    case ActionKind::kBackwardInput:
    case ActionKind::kBackward:
      return progress.ForwardDone(action.stage, action.microbatch);
    case ActionKind::kBackwardWeight:
      return progress.InputGradientDone(action.stage, action.microbatch);
    case ActionKind::kReduceGrad:
      return progress.AllGradientsDone(action.stage);
    default:
      return true;
  }
}

}  // namespace

RankProgress::RankProgress(const Schedule& schedule, Rank rank, DataArrival data,
                           const std::vector<SendLimit>& send_limits)
    : microbatches_per_stage_(schedule.MicrobatchesPerDirection()) {
  const std::vector<StageId> held = schedule.StagesOf(rank);
  stages_.reserve(held.size());
  for (const StageId stage : held) {
    stages_.push_back({.stage = stage,
                       .first_microbatch = schedule.FirstMicrobatch(stage).value,
                       .is_first = schedule.IsFirstStage(stage),
                       .is_last = schedule.IsLastStage(stage)});
  }
  for (LocalStage& local : stages_) {
    local.previous_local = local.is_first ? -1 : LocalIndex(StageId(local.stage.value - 1));
    local.next_local = local.is_last ? -1 : LocalIndex(local.stage.Next());
  }
  cells_.assign(stages_.size() * microbatches_per_stage_,
                data == DataArrival::kAtStart ? kDataHere : 0);
  limited_.reserve(send_limits.size());
  for (const SendLimit& limit : send_limits) {
    limited_.push_back({.limit = limit});
  }
}

int RankProgress::LocalIndex(StageId stage) const {
  for (size_t i = 0; i < stages_.size(); ++i) {
    if (stages_[i].stage == stage) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

int RankProgress::CellIndex(StageId stage, MicrobatchId microbatch) const {
  const int local = LocalIndex(stage);
  if (local < 0) {
    return -1;
  }
  const int column = microbatch.value - stages_[local].first_microbatch;
  return column < 0 || column >= microbatches_per_stage_ ? -1
                                                         : local * microbatches_per_stage_ + column;
}

bool RankProgress::Has(StageId stage, MicrobatchId microbatch, uint8_t bit) const {
  const int cell = CellIndex(stage, microbatch);
  return cell >= 0 && (cells_[cell] & bit) != 0;
}

bool RankProgress::MarkArrived(InputKind kind, StageId stage, MicrobatchId microbatch) {
  const int cell = CellIndex(stage, microbatch);
  if (cell < 0) {
    return false;
  }
  const LocalStage& local = stages_[cell / microbatches_per_stage_];
  const bool expected = kind == InputKind::kActivation ? !local.is_first
                        : kind == InputKind::kGradient ? !local.is_last
                                                       : local.is_first || local.is_last;
  const uint8_t bit = ArrivalBit(kind);
  if (!expected || (cells_[cell] & bit) != 0) {
    return false;
  }
  cells_[cell] |= bit;
  return true;
}

void RankProgress::MarkStarted(const Action& action) {
  CHECK(!running_, "{} starts while another action of its rank runs", ToString(action));
  running_ = true;
  ++started_;
}

void RankProgress::MarkDone(const Action& action) {
  CHECK(running_, "{} ends without having started", ToString(action));
  running_ = false;
  if (!IsCompute(action.kind)) {
    return;
  }
  const int cell = CellIndex(action.stage, action.microbatch);
  CHECK(cell >= 0, "{} is not of this rank", ToString(action));
  LocalStage& local = stages_[cell / microbatches_per_stage_];
  const int column = cell % microbatches_per_stage_;
  const bool forward = action.kind == ActionKind::kForward;
  const bool sends_gradient =
      action.kind == ActionKind::kBackward || action.kind == ActionKind::kBackwardInput;
  if (forward) {
    cells_[cell] |= kForwardDone;
    HandOver(local.next_local, column, kActivationHere, action);
  } else if (sends_gradient) {
    cells_[cell] |= kInputGradientDone;
    HandOver(local.previous_local, column, kGradientHere, action);
  }
  const bool last_part = action.part + 1 == action.num_parts;
  if (action.kind == ActionKind::kBackward ||
      (action.kind == ActionKind::kBackwardWeight && last_part)) {
    ++local.weight_gradients_done;
  }
}

void RankProgress::HandOver(int to_local, int column, uint8_t bit, const Action& action) {
  if (to_local >= 0) {
    uint8_t& cell = cells_[to_local * microbatches_per_stage_ + column];
    CHECK((cell & bit) == 0, "{} hands over what its neighbour stage already has",
          ToString(action));
    cell |= bit;
  }
}

void RankProgress::MarkProduced(Rank to, InputKind kind) {
  for (LimitedChannel& channel : limited_) {
    if (channel.limit.to == to && channel.limit.kind == kind) {
      ++channel.outstanding;
      CHECK(channel.outstanding <= channel.limit.limit, "output to rank {} beyond its limit of {}",
            to, channel.limit.limit);
    }
  }
}

void RankProgress::MarkConsumed(Rank to, InputKind kind) {
  for (LimitedChannel& channel : limited_) {
    if (channel.limit.to == to && channel.limit.kind == kind) {
      CHECK(channel.outstanding > 0, "rank {} consumed more than was sent to it", to);
      --channel.outstanding;
    }
  }
}

bool RankProgress::HasArrived(InputKind kind, StageId stage, MicrobatchId microbatch) const {
  return Has(stage, microbatch, ArrivalBit(kind));
}

bool RankProgress::ForwardDone(StageId stage, MicrobatchId microbatch) const {
  return Has(stage, microbatch, kForwardDone);
}

bool RankProgress::InputGradientDone(StageId stage, MicrobatchId microbatch) const {
  return Has(stage, microbatch, kInputGradientDone);
}

bool RankProgress::AllGradientsDone(StageId stage) const {
  const int local = LocalIndex(stage);
  return local >= 0 && stages_[local].weight_gradients_done == microbatches_per_stage_;
}

bool RankProgress::HasSendCredit(Rank to, InputKind kind) const {
  return std::ranges::all_of(limited_, [&](const LimitedChannel& channel) {
    return channel.limit.to != to || channel.limit.kind != kind ||
           channel.outstanding < channel.limit.limit;
  });
}

Decision NextAction(const Schedule& schedule, Rank rank, const RankProgress& progress) {
  const std::vector<Action>& actions = schedule.ActionsOf(rank);
  const size_t head = progress.started();
  if (head == actions.size() && !progress.running()) {
    return Finished{};
  }
  const Action& action = actions[std::min(head, actions.size() - 1)];
  Blocked blocked{.waiting = action,
                  .owed_by = rank,
                  .owed_stage = action.stage,
                  .microbatch = action.microbatch};
  if (progress.running()) {
    blocked.reason = BlockReason::kRunning;
    return blocked;
  }
  CHECK(!IsCommunication(action.kind), "{}: sends and receives follow from the compute actions",
        ToString(action));
  if (!OwnStageReady(progress, action)) {
    blocked.reason = BlockReason::kOwnStage;
    return blocked;
  }
  if (LacksInput(schedule, rank, progress, action, blocked)) {
    return blocked;
  }
  if (!progress.limits_sends()) {
    return action;
  }
  if (const auto output = OutputOf(schedule, action);
      output && output->crosses_ranks() && !progress.HasSendCredit(output->to, output->kind)) {
    blocked.reason = BlockReason::kSendCredit;
    blocked.kind = output->kind;
    blocked.owed_by = output->to;
    blocked.owed_stage = output->to_stage;
    return blocked;
  }
  return action;
}

std::string Describe(const Blocked& blocked) {
  const std::string waiting = ToString(blocked.waiting);
  switch (blocked.reason) {
    case BlockReason::kRunning:
      return fmt::format("{} waits for the action that rank {} runs", waiting, blocked.owed_by);
    case BlockReason::kInput:
      return fmt::format("{} waits for the {} of microbatch {} from stage {} (rank {})", waiting,
                         InputKindName(blocked.kind), blocked.microbatch, blocked.owed_stage,
                         blocked.owed_by);
    case BlockReason::kData:
      return fmt::format("{} waits for the data of microbatch {} on rank {}", waiting,
                         blocked.microbatch, blocked.owed_by);
    case BlockReason::kOwnStage:
      return fmt::format("{} waits for an earlier action of stage {} that rank {} lists later",
                         waiting, blocked.owed_stage, blocked.owed_by);
    case BlockReason::kSendCredit:
      return fmt::format("{} waits until stage {} (rank {}) has consumed an earlier {}", waiting,
                         blocked.owed_stage, blocked.owed_by, InputKindName(blocked.kind));
  }
  return waiting;
}

}  // namespace troupe
