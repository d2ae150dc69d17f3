// A schedule: per rank an ordered list of actions, and which rank holds which stage. Also the
// topology questions that follow from it (who feeds whom). Its file form: csv.h.
// Pure values: any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/schedule/action.h"
#include "runtime/base/inline_list.h"

namespace troupe {

// What a compute action waits for, and what crosses between stages.
enum class InputKind : uint8_t {
  kActivation,  // output of a Forward of a stage before
  kGradient,    // input gradient of the Backward or BackwardInput of the stage that this one feeds
  kData,        // what a Forward reads of the batch: tokens, labels, positions
};
std::string_view InputKindName(InputKind kind);  // "activation", "gradient", "data"

// One stage feeds another: the output of its Forward is an input of the other's.
struct StageEdge {
  StageId from{};
  StageId to{};                  // a later stage
  bool carries_gradient = true;  // back; not where what lies before is only read, as a teacher is

  bool operator==(const StageEdge&) const = default;
};

// So many stages feed one at most.
inline constexpr int kStageInputsMax = 4;

// Stages form one chain, or with two directions two chains of equal length over the same ranks:
// stages 0..S/2-1 take microbatches 0..m/2-1, stages S/2..S-1 the rest. Or they are fed as `edges`
// says: each feeds one other or none, and one edge at most brings a stage's gradient back, so that
// every action has one output; but a Forward may have several inputs.
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
  // Empty: the chain of each direction. Those into one stage are in the order of its inputs.
  std::vector<StageEdge> edges{};

  PipelineRank RankOf(StageId stage) const { return placement[stage.value]; }
  const std::vector<Action>& ActionsOf(PipelineRank rank) const { return ranks[rank.value]; }
  int StagesPerDirection() const { return num_stages / num_directions; }
  int MicrobatchesPerDirection() const { return num_microbatches / num_directions; }
  int DirectionOf(StageId stage) const { return stage.value / StagesPerDirection(); }
  // No stage feeds it: it starts from tokens.
  bool IsFirstStage(StageId stage) const { return EdgesInto(stage).empty(); }
  // It feeds none: it ends in the loss.
  bool IsLastStage(StageId stage) const { return !EdgeFrom(stage); }
  // Its Forward is followed by a backward: by one of its own loss, or of the stage that it feeds.
  bool HasBackward(StageId stage) const {
    const std::optional<StageEdge> edge = EdgeFrom(stage);
    return !forward_only && (!edge || edge->carries_gradient);
  }
  // Microbatches that pass through the stage: FirstMicrobatch .. +MicrobatchesPerDirection()-1.
  MicrobatchId FirstMicrobatch(StageId stage) const {
    return MicrobatchId(DirectionOf(stage) * MicrobatchesPerDirection());
  }

  using EdgeList = InlineList<StageEdge, kStageInputsMax>;
  EdgeList EdgesInto(StageId stage) const {
    EdgeList into;
    if (!edges.empty()) {
      AddListedEdges(stage, into);
    } else if (const StageId before(stage.value - 1); before.value >= 0 && IsChained(before)) {
      into.push_back({before, stage});
    }
    return into;
  }
  std::optional<StageEdge> EdgeFrom(StageId stage) const {
    if (!edges.empty()) return ListedEdgeFrom(stage);
    if (!IsChained(stage)) return std::nullopt;
    return StageEdge{stage, stage.Next()};
  }

  // The stages of a rank, ascending.
  std::vector<StageId> StagesOf(PipelineRank rank) const;
  // Share of a rank that one of its stages is: 1 over the model chunks that it holds per direction.
  double StageShare(StageId stage) const;
  std::vector<double> StageShares() const;  // of every stage
  bool HasHalves() const;                   // a backward comes as BackwardInput and BackwardWeight
  bool HasWeightParts() const;              // a weight gradient runs in several
  // Its rank's list says when the sums of the stage's gradients begin: by a REDUCE_GRAD of the
  // whole stage. They begin by themselves elsewhere.
  bool ListsSums(StageId stage) const;

 private:
  // Without listed edges: the stage feeds the next one.
  bool IsChained(StageId stage) const {
    if (num_directions == 1) return stage.value + 1 < num_stages;
    return (stage.value + 1) % StagesPerDirection() != 0;
  }
  std::optional<StageEdge> ListedEdgeFrom(StageId stage) const;
  void AddListedEdges(StageId into, EdgeList& list) const;
};

// A message, or hand-over on one rank, between two compute actions.
struct Transfer {
  InputKind kind = InputKind::kActivation;
  StageId from_stage{};
  StageId to_stage{};
  PipelineRank from{};
  PipelineRank to{};  // == from where neighbouring stages share a rank: no message then
  MicrobatchId microbatch{};
  int input = 0;  // which of InputsOf the reading action

  bool crosses_ranks() const { return from != to; }
};

using InputList = InlineList<Transfer, kStageInputsMax>;  // of one action

// What the action's completion sends on; nullopt where nothing leaves the stage.
std::optional<Transfer> OutputOf(const Schedule& schedule, const Action& action);
// What the action waits for from other stages; none for data, weight gradients and the loss.
InputList InputsOf(const Schedule& schedule, const Action& action);

// stage → rank. Loop: stage mod ranks. V: out and back in turn, the same rank at each fold, so that
// two chunks a rank have their first and last stage on rank 0.
std::vector<PipelineRank> LoopPlacement(int num_ranks, int num_stages);
std::vector<PipelineRank> VPlacement(int num_ranks, int num_stages);
// Two directions of one stage a rank: stages 0..p-1 lie on ranks 0..p-1, stages p..2p-1 on p-1..0.
std::vector<PipelineRank> BidirectionalPlacement(int num_ranks);

}  // namespace troupe
