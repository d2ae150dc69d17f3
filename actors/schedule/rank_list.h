// RankList: one rank's actions with everything that deciding about them needs, worked out once per
// schedule: inputs, hand-overs on the rank, order within each stage, memory. Immutable.
// Used by RankProgress and NextAction alone; made by executors and simulators.
#pragma once

#include <cstdint>
#include <vector>

#include "actors/schedule/execution_policy.h"
#include "actors/schedule/schedule.h"

namespace troupe {

// Whether what the Forwards read of the batch is there from the start, or comes by
// MarkArrived(kData, …), for every stage.
enum class DataArrival : uint8_t { kAtStart, kMarked };

class RankList {
 public:
  // Bits of one cell, that is of one (stage, microbatch).
  static constexpr uint8_t kActivationHere = 1;  // the first; others: ArrivalBit
  static constexpr uint8_t kGradientHere = 2;
  static constexpr uint8_t kDataHere = 4;
  static constexpr uint8_t kForwardDone = 8;
  static constexpr uint8_t kInputGradientDone = 16;
  static constexpr uint8_t kOtherActivationsHere = 0xe0;
  static constexpr uint8_t kMessagesHere = kActivationHere | kOtherActivationsHere | kGradientHere;
  static uint8_t ArrivalBit(InputKind kind, int input = 0);

  // Actions of one stage and one of: Forward, input gradient (BackwardInput, Backward), weight
  // gradient (BackwardWeight, Backward). Each lane starts its entries in the list's order; a
  // Backward stands in two.
  static constexpr int kLanesPerStage = 3;
  enum LaneKind : uint8_t { kForwardLane, kInputLane, kWeightLane };

  struct Entry {
    Action action{};
    int32_t cell = -1;   // -1 for collectives
    int32_t stage = -1;  // index in stages()
    int32_t lane = -1;   // stage · kLanesPerStage + LaneKind; -1 for collectives
    uint8_t needs = 0;   // bits of the cell that must be set
    uint8_t done = 0;    // bit that the action's end sets
    // Fused pairs: entries first + 1 .. first + followers start right after this one; all their
    // inputs are needed here, and no output leaves before the last one's end.
    int32_t followers = 0;
    bool fused = false;
    int32_t hand_over_cell = -1;  // of the neighbouring stage, where it is on this rank
    uint8_t hand_over_bit = 0;

    int32_t WeightLane() const { return stage * kLanesPerStage + kWeightLane; }
  };

  struct Stage {
    StageId stage{};
    int first_microbatch = 0;
    bool has_backward = true;
    uint8_t inputs = 0;    // bits of what its Forward reads of other stages
    uint8_t gradient = 0;  // bit of what its backward reads of another stage
    double share = 1;      // of a microbatch's activations, in units of the rank's whole share
    // Free-run's reserve: chunks of this direction that come after the stage and must still be able
    // to take one microbatch, as `share` each.
    int deeper_chunks = 0;
    int direction = 0;
    bool lists_sums = false;  // Schedule::ListsSums
  };

  // held_for_weight: the part of an activation that stays until the weight gradient (ρ).
  RankList(const Schedule& schedule, PipelineRank rank, const ExecutionPolicy& policy = {},
           DataArrival data = DataArrival::kAtStart, double held_for_weight = 1);

  const Schedule& schedule() const { return *schedule_; }  // outlives the list
  PipelineRank rank() const { return rank_; }
  const ExecutionPolicy& policy() const { return policy_; }
  DataArrival data() const { return data_; }
  double held_for_weight() const { return held_for_weight_; }
  const std::vector<Entry>& entries() const { return entries_; }
  const std::vector<Stage>& stages() const { return stages_; }  // ascending
  // lane → its entries' indices.
  const std::vector<std::vector<int32_t>>& lanes() const { return lanes_; }
  int microbatches_per_stage() const { return microbatches_per_stage_; }
  // Most activations that the rank holds at any time; only where Forwards may jump the queue.
  double activation_cap() const { return activation_cap_; }
  // Guided with slack: the most that the list itself holds from `entry` on.
  double PeakFrom(int32_t entry) const { return peak_from_[static_cast<size_t>(entry)]; }

  bool ListsSums(StageId stage) const {  // of a stage that is here
    return stages_[static_cast<size_t>(StageIndex(stage))].lists_sums;
  }

  int StageIndex(StageId stage) const;                          // -1 where the stage is elsewhere
  int CellIndex(StageId stage, MicrobatchId microbatch) const;  // -1 where it is not of this rank

 private:
  int CellOf(int stage_index, MicrobatchId microbatch) const;  // -1 where it is not of the stage
  void AddStages();
  void AddEntry(const Action& action);
  void LinkPairs();

  const Schedule* schedule_;
  PipelineRank rank_;
  ExecutionPolicy policy_;
  DataArrival data_;
  double held_for_weight_;
  int microbatches_per_stage_;
  double activation_cap_ = 0;
  std::vector<double> peak_from_{};
  std::vector<Stage> stages_;
  std::vector<Entry> entries_;
  std::vector<std::vector<int32_t>> lanes_;
};

}  // namespace troupe
