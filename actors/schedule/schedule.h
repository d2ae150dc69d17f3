// A schedule: per rank an ordered list of actions, and which rank holds which stage. Also the
// topology questions that follow from it (who feeds whom). Its file form: csv.h.
// Pure values: any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/schedule/action.h"

namespace troupe {

// What a compute action waits for, and what crosses between stages.
enum class InputKind : uint8_t {
  kActivation,  // output of the previous stage's Forward
  kGradient,    // input gradient of the next stage's Backward or BackwardInput
  kData,        // tokens of the first stage, labels of the last
};
std::string_view InputKindName(InputKind kind);  // "activation", "gradient", "data"

// Stages form one chain, or with two directions two chains of equal length over the same ranks:
// stages 0..S/2-1 take microbatches 0..m/2-1, stages S/2..S-1 the rest.
struct Schedule {
  std::string name{};
  int num_ranks = 0;
  int num_stages = 0;
  int num_microbatches = 0;  // of all directions together
  int num_directions = 1;
  bool forward_only = false;              // evaluation and sampling: no backward, nothing is kept
  std::vector<PipelineRank> placement{};  // stage → rank
  // Rank → its actions in order; sends and receives follow from them and are not listed.
  std::vector<std::vector<Action>> ranks{};

  PipelineRank RankOf(StageId stage) const { return placement[stage.value]; }
  const std::vector<Action>& ActionsOf(PipelineRank rank) const { return ranks[rank.value]; }
  int StagesPerDirection() const { return num_stages / num_directions; }
  int MicrobatchesPerDirection() const { return num_microbatches / num_directions; }
  int DirectionOf(StageId stage) const { return stage.value / StagesPerDirection(); }
  bool IsFirstStage(StageId stage) const { return stage.value % StagesPerDirection() == 0; }
  bool IsLastStage(StageId stage) const { return IsFirstStage(stage.Next()); }
  // Microbatches that pass through the stage: FirstMicrobatch .. +MicrobatchesPerDirection()-1.
  MicrobatchId FirstMicrobatch(StageId stage) const {
    return MicrobatchId(DirectionOf(stage) * MicrobatchesPerDirection());
  }
  // The stages of a rank, ascending.
  std::vector<StageId> StagesOf(PipelineRank rank) const;
  // Share of a rank that one of its stages is: 1 over the model chunks that it holds per direction.
  double StageShare(StageId stage) const;
  std::vector<double> StageShares() const;  // of every stage
};

// A message, or hand-over on one rank, between two compute actions.
struct Transfer {
  InputKind kind = InputKind::kActivation;
  StageId from_stage{};
  StageId to_stage{};
  PipelineRank from{};
  PipelineRank to{};  // == from where neighbouring stages share a rank: no message then
  MicrobatchId microbatch{};

  bool crosses_ranks() const { return from != to; }
};

// What the action's completion sends on; nullopt where nothing leaves the stage.
std::optional<Transfer> OutputOf(const Schedule& schedule, const Action& action);
// What the action waits for from another stage; nullopt for data, weight gradients and the loss.
std::optional<Transfer> InputOf(const Schedule& schedule, const Action& action);

// stage → rank. Loop: stage mod ranks. V: out and back in turn, the same rank at each fold, so that
// two chunks a rank have their first and last stage on rank 0.
std::vector<PipelineRank> LoopPlacement(int num_ranks, int num_stages);
std::vector<PipelineRank> VPlacement(int num_ranks, int num_stages);
// Two directions of one stage a rank: stages 0..p-1 lie on ranks 0..p-1, stages p..2p-1 on p-1..0.
std::vector<PipelineRank> BidirectionalPlacement(int num_ranks);

}  // namespace troupe
