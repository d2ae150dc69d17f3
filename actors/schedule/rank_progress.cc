#include "actors/schedule/rank_progress.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace troupe {

RankProgress::RankProgress(const RankList& list)
    : list_(&list),
      cells_(list.stages().size() * static_cast<size_t>(list.microbatches_per_stage()),
             list.data() == DataArrival::kAtStart ? RankList::kDataHere : uint8_t{0}),
      next_in_lane_(list.lanes().size(), 0),
      started_(list.entries().size(), 0),
      gradients_done_(list.stages().size(), 0),
      in_flight_(list.stages().size(), 0),
      peak_in_flight_(list.stages().size(), 0) {
  if (list.policy().mode == ExecutorMode::kFreeRun) weights_.reserve(cells_.size());
}

bool RankProgress::MarkArrived(InputKind kind, StageId stage, MicrobatchId microbatch, int input) {
  const int cell = list_->CellIndex(stage, microbatch);
  if (cell < 0) return false;
  const RankList::Stage& local =
      list_->stages()[static_cast<size_t>(cell / list_->microbatches_per_stage())];
  if (input < 0 || input >= kStageInputsMax) return false;
  const uint8_t expected = local.inputs | local.gradient | RankList::kDataHere;
  const uint8_t bit = RankList::ArrivalBit(kind, input);
  if ((expected & bit) == 0 || (Bits(cell) & bit) != 0) return false;
  MarkArrived(cell, bit);
  return true;
}

void RankProgress::MarkArrived(int32_t cell, uint8_t bit) {
  uint8_t& bits = cells_[static_cast<size_t>(cell)];
  CHECK((bits & bit) == 0, "rank {}: an input came twice", list_->rank());
  bits |= bit;
}

void RankProgress::Follow() {
  CHECK(num_started_ == 0, "rank {} follows before it starts", list_->rank());
  follows_ = true;
  chosen_.reserve(list_->entries().size());
  chosen_in_lane_.assign(list_->lanes().size(), 0);
}

bool RankProgress::MarkChosen(StageId stage, ActionKind kind, MicrobatchId microbatch) {
  const int index = list_->StageIndex(stage);
  if (!follows_ || index < 0 || !ReadsWeights(kind)) return false;
  const auto lane = static_cast<size_t>(
      index * RankList::kLanesPerStage +
      (kind == ActionKind::kForward ? RankList::kForwardLane : RankList::kInputLane));
  const std::vector<int32_t>& entries = list_->lanes()[lane];
  const auto at = static_cast<size_t>(chosen_in_lane_[lane]);
  if (at >= entries.size()) return false;
  const Action& next = list_->entries()[static_cast<size_t>(entries[at])].action;
  if (next.kind != kind || next.microbatch != microbatch) return false;
  chosen_.push_back(entries[at]);
  ++chosen_in_lane_[lane];
  return true;
}

void RankProgress::MarkStarted(int32_t entry) {
  const RankList::Entry& e = list_->entries()[static_cast<size_t>(entry)];
  CHECK(num_computing_ == 0 && open_.size() < static_cast<size_t>(list_->policy().open_actions),
        "{} starts while another action of its rank runs", ToString(e.action));
  CHECK(!std::exchange(started_[static_cast<size_t>(entry)], char{1}), "{} starts twice",
        ToString(e.action));
  if (follows_ && ReadsWeights(e.action.kind)) {
    CHECK(entry == Chosen(), "{} starts and was not chosen", ToString(e.action));
    ++chosen_taken_;
  }
  ++num_started_;
  MoveHead(entry);
  if (e.lane < 0) return beside_.push_back(entry);
  open_.push_back({.entry = entry});
  ++num_computing_;
  if (e.followers > 0) fused_left_ = e.followers + 1;
  TakeFromLane(e.lane, entry);
  if (e.action.kind == ActionKind::kBackward) TakeFromLane(e.WeightLane(), entry);
  const bool last_part = e.action.part + 1 == e.action.num_parts;
  if (e.action.kind == ActionKind::kBackwardWeight && last_part &&
      list_->policy().mode == ExecutorMode::kFreeRun) {
    ++weights_taken_;
  }
  Hold(e, /*starts=*/true);
}

// `entry` has just started: in its turn, or ahead of it.
void RankProgress::MoveHead(int32_t entry) {
  const auto share = [this](int32_t index) {
    const RankList::Entry& e = list_->entries()[static_cast<size_t>(index)];
    return e.action.kind == ActionKind::kForward
               ? list_->stages()[static_cast<size_t>(e.stage)].share
               : 0.0;
  };
  if (entry != head_) held_ahead_ += share(entry);
  for (; static_cast<size_t>(head_) < started_.size() && started_[static_cast<size_t>(head_)];
       ++head_) {
    if (head_ != entry) held_ahead_ -= share(head_);
  }
}

void RankProgress::TakeFromLane(int32_t lane, int32_t entry) {
  CHECK(NextOf(lane) == entry, "{} overtakes its own stage's actions",
        ToString(list_->entries()[static_cast<size_t>(entry)].action));
  ++next_in_lane_[static_cast<size_t>(lane)];
}

// A Forward's activations are held from its start, and let go at the end of what reads them.
void RankProgress::Hold(const RankList::Entry& e, bool starts) {
  const RankList::Stage& stage = list_->stages()[static_cast<size_t>(e.stage)];
  const double share = stage.share;
  const double rho = list_->held_for_weight();
  int& in_flight = in_flight_[static_cast<size_t>(e.stage)];
  if (e.action.kind == ActionKind::kForward) {
    if (starts) {
      held_ += share;
      ++in_flight;
      int& most = peak_in_flight_[static_cast<size_t>(e.stage)];
      most = std::max(most, in_flight);
      peak_held_ = std::max(peak_held_, held_);
    } else if (!stage.has_backward) {
      held_ -= share;
      --in_flight;
    }
    return;
  }
  if (starts) return;
  switch (e.action.kind) {
    case ActionKind::kBackward:
      held_ -= share;
      --in_flight;
      return;
    case ActionKind::kBackwardInput:
      held_ -= share * (1 - rho);
      return;
    default:
      held_ -= share * rho / e.action.num_parts;
      if (e.action.part + 1 == e.action.num_parts) --in_flight;
  }
}

int32_t RankProgress::OpenEntryOf(const Action& action) const {
  const auto is_it = [&](int32_t entry) {
    return list_->entries()[static_cast<size_t>(entry)].action == action;
  };
  for (const Open& open : open_) {
    if (is_it(open.entry)) return open.entry;
  }
  const auto found = std::ranges::find_if(beside_, is_it);
  return found == beside_.end() ? -1 : *found;
}

void RankProgress::MarkWaiting(int32_t entry, bool waits) {
  Open* const open = std::ranges::find(open_, entry, &Open::entry);
  CHECK(open != open_.end() && open->waits != waits, "rank {}: an action waits out of turn",
        list_->rank());
  open->waits = waits;
  num_computing_ += waits ? -1 : 1;
}

bool RankProgress::MarkDone(int32_t entry) {
  const RankList::Entry& e = list_->entries()[static_cast<size_t>(entry)];
  if (e.lane < 0) return MarkCollectiveDone(entry);
  Open* const open = std::ranges::find(open_, entry, &Open::entry);
  CHECK(open != open_.end() && !open->waits, "an action of rank {} ends without having started",
        list_->rank());
  open_.erase(open);
  --num_computing_;
  if (e.fused) --fused_left_;
  cells_[static_cast<size_t>(e.cell)] |= e.done;
  if (e.hand_over_cell >= 0) MarkArrived(e.hand_over_cell, e.hand_over_bit);
  const bool last_part = e.action.part + 1 == e.action.num_parts;
  const bool weight = e.action.kind == ActionKind::kBackwardWeight;
  if (e.action.kind == ActionKind::kBackward || (weight && last_part)) {
    ++gradients_done_[static_cast<size_t>(e.stage)];
  }
  if (e.action.kind == ActionKind::kBackwardInput &&
      list_->policy().mode == ExecutorMode::kFreeRun) {
    static_assert(kStagesMax - 1 <= std::numeric_limits<int16_t>::max());
    weights_.push_back(static_cast<int16_t>(e.stage));
  }
  Hold(e, /*starts=*/false);
  return fused_left_ == 0;
}

bool RankProgress::MarkCollectiveDone(int32_t entry) {
  CHECK(std::erase(beside_, entry) == 1, "{} ends without having started",
        ToString(list_->entries()[static_cast<size_t>(entry)].action));
  return fused_left_ == 0;
}

bool RankProgress::LanesAreFree(int32_t entry) const {
  const auto works_in = [](const RankList::Entry& e, int32_t lane) {
    return e.lane == lane || (e.action.kind == ActionKind::kBackward && e.WeightLane() == lane);
  };
  const RankList::Entry& wanted = list_->entries()[static_cast<size_t>(entry)];
  return std::ranges::none_of(open_, [&](const Open& open) {
    const RankList::Entry& e = list_->entries()[static_cast<size_t>(open.entry)];
    return works_in(wanted, e.lane) ||
           (e.action.kind == ActionKind::kBackward && works_in(wanted, e.WeightLane()));
  });
}

bool RankProgress::IsNextIn(int32_t lane, const RankList::Entry& e) const {
  const int32_t next = NextOf(lane);
  return next >= 0 && &list_->entries()[static_cast<size_t>(next)] == &e;
}

// A pass that began while the stage's weights go could miss them, or wait for what is going.
bool RankProgress::WaitsForReshard(const RankList::Entry& e) const {
  if (beside_.empty()) return false;
  if (!ReadsWeights(e.action.kind) && e.action.kind != ActionKind::kUnshard) return false;
  return std::ranges::any_of(beside_, [&](int32_t entry) {
    const Action& other = list_->entries()[static_cast<size_t>(entry)].action;
    return other.kind == ActionKind::kReshard && other.stage == e.action.stage;
  });
}

bool RankProgress::CellReady(const RankList::Entry& e) const {
  if (WaitsForReshard(e)) return false;
  if (e.cell >= 0) {
    // Weight gradients add up in order: a whole backward waits for those that were put off.
    const bool in_turn = e.action.kind != ActionKind::kBackward || IsNextIn(e.WeightLane(), e);
    return in_turn && (Bits(e.cell) & e.needs) == e.needs;
  }
  return CollectiveReady(e);
}

bool RankProgress::CollectiveReady(const RankList::Entry& e) const {
  switch (e.action.kind) {
    case ActionKind::kReduceGrad:
      return e.action.of_microbatch ||
             gradients_done_[static_cast<size_t>(e.stage)] == list_->microbatches_per_stage();
    case ActionKind::kWaitReduceGrad:
      return std::ranges::none_of(beside_, [&](int32_t entry) {
        const Action& other = list_->entries()[static_cast<size_t>(entry)].action;
        return other.kind == ActionKind::kReduceGrad && other.stage == e.action.stage;
      });
    default:
      return true;
  }
}

bool RankProgress::HasInputs(int32_t entry) const {
  const RankList::Entry& e = list_->entries()[static_cast<size_t>(entry)];
  if (!CellReady(e)) return false;
  for (int32_t i = 1; i <= e.followers; ++i) {
    const RankList::Entry& follower =
        list_->entries()[static_cast<size_t>(entry) + static_cast<size_t>(i)];
    // What an earlier action of the pair will have done by then is not waited for.
    uint8_t missing = follower.needs & static_cast<uint8_t>(~Bits(follower.cell));
    for (int32_t k = 0; k < i; ++k) {
      const RankList::Entry& earlier =
          list_->entries()[static_cast<size_t>(entry) + static_cast<size_t>(k)];
      if (earlier.cell == follower.cell) missing &= static_cast<uint8_t>(~earlier.done);
      if (earlier.hand_over_cell == follower.cell) {
        missing &= static_cast<uint8_t>(~earlier.hand_over_bit);
      }
    }
    if (missing != 0 || WaitsForReshard(follower)) return false;
  }
  return true;
}

bool RankProgress::HasAllGradients(StageId stage) const {
  return gradients_done_[static_cast<size_t>(list_->StageIndex(stage))] ==
         list_->microbatches_per_stage();
}

int RankProgress::InFlight(int direction) const {
  int sum = 0;
  for (size_t i = 0; i < in_flight_.size(); ++i) {
    if (list_->stages()[i].direction == direction) sum += in_flight_[i];
  }
  return sum;
}

}  // namespace troupe
