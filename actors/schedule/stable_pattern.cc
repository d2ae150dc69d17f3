#include "actors/schedule/stable_pattern.h"

#include <algorithm>
#include <array>
#include <compare>
#include <vector>

#include "actors/schedule/list_writer.h"

namespace troupe {
namespace {

// What a rank does in one slot of unit time. Down is its stage on the way out, up the one on the
// way back; each of the first four waits for the one before it of the same microbatch.
enum Kind : int8_t { kForwardDown, kForwardUp, kInputUp, kInputDown, kWeight, kFree };
constexpr int kNumPlaced = 4;  // kinds that the pattern places; weight gradients fill what is free
constexpr int kNumKinds = 5;
constexpr int kPeriod = 6;  // slots between two microbatches

using Offsets = std::array<int, kNumPlaced>;  // of microbatch 0, per kind

struct Operation {
  int at = 0;  // slot
  int rank = 0;
  Kind kind = kFree;
  int index = 0;  // the microbatch, or how many weight gradients came before

  auto operator<=>(const Operation&) const = default;
};

// One rank's slots, and where each operation lies in them.
class RankSlots {
 public:
  RankSlots() = default;
  RankSlots(const Offsets& offsets, int num_microbatches) {
    for (int kind = 0; kind < kNumPlaced; ++kind) {
      for (int i = 0; i < num_microbatches; ++i) {
        Put(static_cast<Kind>(kind), i, offsets[kind] + kPeriod * i);
      }
    }
  }

  int At(Kind kind, int index) const { return at_[kind][index]; }
  int Count(Kind kind) const { return static_cast<int>(at_[kind].size()); }
  int NumSlots() const { return static_cast<int>(slots_.size()); }
  Kind In(int slot) const { return slots_[slot]; }

  void Put(Kind kind, int index, int slot) {
    if (slot >= NumSlots()) {
      slots_.resize(slot + 1, kFree);
    }
    CHECK(slots_[slot] == kFree, "slot {} is taken", slot);
    slots_[slot] = kind;
    at_[kind].resize(std::max<size_t>(at_[kind].size(), index + 1));
    at_[kind][index] = slot;
  }
  void Move(Kind kind, int index, int slot) {
    slots_[At(kind, index)] = kFree;
    Put(kind, index, slot);
  }

  // Of the input gradient before which `index` others stand, of whichever stage.
  int SlotOfInput(int index) const {
    for (int slot = 0; slot < NumSlots(); ++slot) {
      const bool input = slots_[slot] == kInputUp || slots_[slot] == kInputDown;
      if (input && index-- == 0) {
        return slot;
      }
    }
    CHECK(false, "a weight gradient has no input gradient");
  }

  // A weight gradient in every free slot after an input gradient that has none yet; the rest at the
  // end.
  void FillWithWeights() {
    int owed = 0;
    int written = 0;
    for (int slot = 0; slot < NumSlots() || owed > 0; ++slot) {
      const Kind kind = slot < NumSlots() ? slots_[slot] : kFree;
      owed += kind == kInputUp || kind == kInputDown;
      if (kind == kFree && owed > 0) {
        Put(kWeight, written++, slot);
        --owed;
      }
    }
  }
  void DropWeights() {
    std::ranges::replace(slots_, kWeight, kFree);
    at_[kWeight].clear();
    while (!slots_.empty() && slots_.back() == kFree) {
      slots_.pop_back();
    }
  }

  // Most activations at one time, in chunks. Without weight gradients in the slots, free ones count
  // as such.
  int Peak() const {
    const bool fills = at_[kWeight].empty();
    int held = 0;
    int owed = 0;
    int peak = 0;
    for (const Kind kind : slots_) {
      if (kind == kForwardDown || kind == kForwardUp) {
        peak = std::max(peak, ++held);
      } else if (kind == kInputUp || kind == kInputDown) {
        ++owed;
      } else if (kind == kWeight || (kind == kFree && fills && owed > 0)) {
        --held;
        --owed;
      }
    }
    return peak;
  }

 private:
  std::vector<Kind> slots_;
  std::array<std::vector<int>, kNumKinds> at_;
};

class StablePattern {
 public:
  StablePattern(const std::vector<Offsets>& offsets, int num_microbatches)
      : num_microbatches_(num_microbatches) {
    for (const Offsets& of_rank : offsets) {
      ranks_.emplace_back(of_rank, num_microbatches);
    }
  }

  // Pulls warm-up and cool-down together without more memory: first around the weight gradients in
  // their places, then the cool-down once more as if they were none, and places them anew.
  void Squeeze() {
    FillWithWeights();
    PullForward(/*from_the_start=*/true);
    CloseGaps();
    DropWeights();
    PullForward(/*from_the_start=*/false);
    FillWithWeights();
    CloseGaps();
    DropWeights();
    FillWithWeights();
  }
  const RankSlots& SlotsOf(int rank) const { return ranks_[rank]; }

 private:
  void FillWithWeights() { std::ranges::for_each(ranks_, &RankSlots::FillWithWeights); }
  void DropWeights() { std::ranges::for_each(ranks_, &RankSlots::DropWeights); }
  std::vector<Operation> InOrder() const;
  void PullForward(bool from_the_start);
  void Pull(const Operation& operation, int peak_max);
  void CloseGaps();

  int num_microbatches_;
  std::vector<RankSlots> ranks_;
};

// All operations by time; at one time by rank and kind.
std::vector<Operation> StablePattern::InOrder() const {
  std::vector<Operation> order;
  for (int rank = 0; rank < static_cast<int>(ranks_.size()); ++rank) {
    for (int i = 0; i < kNumKinds; ++i) {
      const auto kind = static_cast<Kind>(i);
      for (int index = 0; index < ranks_[rank].Count(kind); ++index) {
        order.push_back({ranks_[rank].At(kind, index), rank, kind, index});
      }
    }
  }
  std::ranges::sort(order);
  return order;
}

// The slot after all that the operation waits for: the microbatch before it; itself on the rank
// before this one on its way, and the kind before it on this rank; for a weight gradient, as many
// input gradients.
int EarliestSlot(const std::vector<RankSlots>& ranks, const Operation& op) {
  const RankSlots& own = ranks[op.rank];
  int last = op.index > 0 ? own.At(op.kind, op.index - 1) : -1;
  if (op.kind == kWeight) {
    return std::max(last, own.SlotOfInput(op.index)) + 1;
  }
  const bool to_higher_ranks = op.kind == kForwardDown || op.kind == kInputUp;
  const int before = op.rank + (to_higher_ranks ? -1 : 1);
  if (before >= 0 && before < static_cast<int>(ranks.size())) {
    last = std::max(last, ranks[before].At(op.kind, op.index));
  }
  if (op.kind != kForwardDown) {
    last = std::max(last, own.At(static_cast<Kind>(op.kind - 1), op.index));
  }
  return last + 1;
}

// The steady phase, which stays as it is, lasts from the first input gradient that comes back to
// rank 0 to the first last Forward.
void StablePattern::PullForward(bool from_the_start) {
  int peak_max = 0;
  for (const RankSlots& slots : ranks_) {
    peak_max = std::max(peak_max, slots.Peak());
  }
  bool warming_up = true;
  bool cooling_down = false;
  for (const Operation& op : InOrder()) {
    warming_up = warming_up && !(op.kind == kInputDown && op.rank == 0);
    if (cooling_down || (warming_up && from_the_start)) {
      Pull(op, peak_max);
    }
    cooling_down = cooling_down ||
                   (!warming_up && op.kind == kForwardDown && op.index == num_microbatches_ - 1);
  }
}

// To the earliest free slot in which the rank keeps within `peak_max`.
void StablePattern::Pull(const Operation& op, int peak_max) {
  RankSlots& own = ranks_[op.rank];
  for (int slot = EarliestSlot(ranks_, op); slot < op.at; ++slot) {
    if (own.In(slot) == kFree) {
      own.Move(op.kind, op.index, slot);
      if (own.Peak() <= peak_max) {
        return;
      }
    }
  }
  own.Move(op.kind, op.index, op.at);
}

// Every operation as early as it can be, in the order in which they are.
void StablePattern::CloseGaps() {
  std::vector<RankSlots> closed(ranks_.size());
  for (const Operation& op : InOrder()) {
    RankSlots& own = closed[op.rank];
    own.Put(op.kind, op.index, std::max(EarliestSlot(closed, op), own.NumSlots()));
  }
  ranks_ = std::move(closed);
}

void Fill(Schedule& schedule, const std::vector<Offsets>& offsets) {
  StablePattern pattern(offsets, schedule.num_microbatches);
  pattern.Squeeze();
  for (int rank = 0; rank < schedule.num_ranks; ++rank) {
    const StageId down(rank);
    const StageId up(2 * schedule.num_ranks - 1 - rank);
    ListWriter list(schedule, PipelineRank(rank));
    const RankSlots& slots = pattern.SlotsOf(rank);
    for (int slot = 0; slot < slots.NumSlots(); ++slot) {
      switch (slots.In(slot)) {
        case kForwardDown:
          list.Forward(down);
          break;
        case kForwardUp:
          list.Forward(up);
          break;
        case kInputUp:
          list.BackwardInput(up);
          break;
        case kInputDown:
          list.BackwardInput(down);
          break;
        case kWeight:
          list.BackwardWeight(list.OwesWeight(up) ? up : down);
          break;
        case kFree:
          break;
      }
    }
  }
}

}  // namespace

void FillVHalf(const ScheduleSpec& spec, Schedule& schedule) {
  const int p = spec.num_ranks;
  const int pause = p % 2 == 0 ? 3 : 0;  // keeps two operations out of one slot
  std::vector<Offsets> offsets;
  for (int r = 0; r < p; ++r) {
    offsets.push_back({2 * r, 3 * p - r - 2, 3 * p + pause + 2 * r - 1, 6 * p + pause - r - 2});
  }
  Fill(schedule, offsets);
}

void FillVMin(const ScheduleSpec& spec, Schedule& schedule) {
  const int p = spec.num_ranks;
  const int pause = p % 3 == 0 ? 2 : 0;
  std::vector<Offsets> offsets;
  for (int r = 0; r < p; ++r) {
    offsets.push_back({r, 2 * p - r - 1, 2 * p + pause + r, 4 * p + pause - r - 1});
  }
  Fill(schedule, offsets);
}

}  // namespace troupe
