// RankProgress: how far one rank has got with a schedule: what has arrived, what has started and
// ended, how much is held. Read by NextAction; kept by the executor and by the simulator.
// Thread: its owner's; no lock.
#pragma once

#include <cstdint>
#include <vector>

#include "actors/schedule/rank_list.h"
#include "runtime/base/inline_list.h"

namespace troupe {

//   I1. One action computes at a time; at most policy().open_actions are open, and no two of one
//       lane: sums keep their order. Collectives start between them, and go on beside them.
//   I2. An input arrives once, for a stage of this rank and a microbatch of that stage.
//   I3. Hand-over between two stages of this rank is an arrival at the moment of MarkDone.
//   I4. Entries of one lane start in the list's order.
//   I5. A rank that follows starts its passes (ReadsWeights) in the order of MarkChosen.
class RankProgress {
 public:
  explicit RankProgress(const RankList& list);  // the list outlives it

  // False where the input is a duplicate or not one this rank waits for; nothing changes then.
  // `input`: which of the reading action's inputs of other stages (Transfer).
  [[nodiscard]] bool MarkArrived(InputKind kind, StageId stage, MicrobatchId microbatch,
                                 int input = 0);
  // The same by cell and bit of the rank's list, for an input that is known to be right.
  void MarkArrived(int32_t cell, uint8_t bit);
  void MarkStarted(int32_t entry);
  // An open action waits in its middle, or is over its wait.
  void MarkWaiting(int32_t entry, bool waits);
  // True where outputs may leave now; false inside a fused pair, whose end lets all of them go. Of
  // a ReduceGrad: the sums of its stage are there.
  bool MarkDone(int32_t entry);

  // For ranks that run a pass together: its order is another's to choose. Before the first start.
  void Follow();
  // That one starts this pass next. False, and nothing changes, where it is not the next of its
  // stage and kind, or the rank does not follow.
  [[nodiscard]] bool MarkChosen(StageId stage, ActionKind kind, MicrobatchId microbatch);

  const RankList& list() const { return *list_; }
  size_t num_started() const { return num_started_; }
  // Compute actions that have started and not ended, in the order of their starts.
  struct Open {
    int32_t entry = -1;
    bool waits = false;
  };
  using OpenList = InlineList<Open, kOpenActionsMax>;
  const OpenList& open() const { return open_; }
  // Collectives that have, likewise.
  const std::vector<int32_t>& beside() const { return beside_; }
  int32_t OpenEntryOf(const Action& action) const;  // of both; -1 where it is not open
  bool computes() const { return num_computing_ > 0; }
  double held() const { return held_; }  // activations, in units of the rank's whole share
  double peak_held() const { return peak_held_; }
  // Shares of the Forwards that started before their turn and whose turn has not come.
  double held_ahead() const { return held_ahead_; }
  // Most microbatches of the stage (an index) whose Forward had started and backward not ended.
  int peak_in_flight(size_t stage) const { return peak_in_flight_[stage]; }

  // ---- what the decision reads ----
  int32_t head() const { return head_; }  // first entry that has not started
  // The lane's next entry, or -1.
  int32_t NextOf(int32_t lane) const {
    const auto& entries = list_->lanes()[static_cast<size_t>(lane)];
    const auto at = static_cast<size_t>(next_in_lane_[static_cast<size_t>(lane)]);
    return at < entries.size() ? entries[at] : -1;
  }
  // All of the entry's bits are set; for a fused pair's first, its followers' too.
  bool HasInputs(int32_t entry) const;
  // No open action works in a lane of the entry.
  bool LanesAreFree(int32_t entry) const;
  uint8_t Bits(int32_t cell) const { return cells_[static_cast<size_t>(cell)]; }
  // Every microbatch of the stage, one of the rank's, has all its weight gradients.
  bool HasAllGradients(StageId stage) const;
  int InFlight(int direction) const;  // Forwards started whose backward has not ended
  // Free-run: the stage index whose input gradient ended first and whose weight gradient has not
  // started wholly; -1 where there is none.
  int OldestWeight() const {
    return weights_taken_ < weights_.size() ? weights_[weights_taken_] : -1;
  }

  bool follows() const { return follows_; }
  // The pass that was chosen first of those that have not started, or -1.
  int32_t Chosen() const { return chosen_taken_ < chosen_.size() ? chosen_[chosen_taken_] : -1; }

  // The entry reads weights of a stage whose RESHARD has begun and not ended.
  bool WaitsForReshard(const RankList::Entry& entry) const;

 private:
  bool CellReady(const RankList::Entry& entry) const;
  bool CollectiveReady(const RankList::Entry& entry) const;
  [[gnu::cold]] bool MarkCollectiveDone(int32_t entry);
  bool IsNextIn(int32_t lane, const RankList::Entry& entry) const;
  void MoveHead(int32_t entry);
  void TakeFromLane(int32_t lane, int32_t entry);
  void Hold(const RankList::Entry& entry, bool starts);

  const RankList* list_;
  std::vector<uint8_t> cells_;  // [stage index][microbatch]: bits
  std::vector<int32_t> next_in_lane_;
  std::vector<char> started_;        // per entry
  std::vector<int> gradients_done_;  // per stage index
  std::vector<int> in_flight_;       // per stage index
  std::vector<int> peak_in_flight_;
  std::vector<int16_t> weights_;  // stage indices in the order of their input gradients' ends
  size_t weights_taken_ = 0;
  size_t num_started_ = 0;
  int32_t head_ = 0;
  bool follows_ = false;
  std::vector<int32_t> chosen_{};  // entries, in the order of MarkChosen
  size_t chosen_taken_ = 0;
  std::vector<int32_t> chosen_in_lane_{};
  OpenList open_{};
  std::vector<int32_t> beside_{};
  int num_computing_ = 0;   // of the open ones
  int32_t fused_left_ = 0;  // of the fused pair under way, those that have not ended
  double held_ = 0;
  double peak_held_ = 0;
  double held_ahead_ = 0;
};

}  // namespace troupe
