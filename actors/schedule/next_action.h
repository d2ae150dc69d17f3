// Which action a rank starts next: the one decision of a schedule, shared by the executor actor and
// the simulator. A pure function of a rank's list and progress, O(stages of the rank) a call.
//
// Calls of an executor:
//   const RankList list(schedule, rank, policy, DataArrival::kMarked);
//   RankProgress progress(list);
//   on an input:       progress.MarkArrived(kind, stage, microbatch); then decide
//   on a completion:   if progress.MarkDone(entry): send outputs; then decide
//   on a collective's end: the same, without outputs
//   on a wait's begin
//   or end:            progress.MarkWaiting(entry, waits); then decide
//   where another rank decides (RankProgress::Follow), on its choice:
//                      progress.MarkChosen(stage, kind, microbatch); then decide
//   decide:            NextAction(progress) → Start: progress.MarkStarted(entry), launch it; after
//                                             a collective, which holds up nothing, decide again
//                                           → Blocked: keep as the wait record
//                                           → Finished: the rank's list is done
//
// Why no mode deadlocks when slots suffice (ChannelsOf): strict and guided always start the head
// once it can, and the list is proved to run in order (Validate). Free-run keeps a place for one
// microbatch in every deeper chunk and the other direction, so the oldest microbatch of each
// direction always finds the next stage open. A rank that follows another one starts what that one
// started, whose inputs therefore come, and holds no more than it once its own weight gradients
// are done: a Forward that does not fit waits for those, and for nothing else.
#pragma once

#include <string>
#include <variant>

#include "actors/schedule/rank_progress.h"

namespace troupe {

struct Start {
  int32_t entry = 0;  // in the rank's list
  Action action{};
};

enum class BlockReason : uint8_t {
  kRunning,   // an action of this rank computes, or those that wait leave nothing to do
  kInput,     // an activation or gradient of another stage is owed
  kData,      // what the data loader brings is owed
  kOwnStage,  // an earlier action of the same stage must come first (a list that is out of order)
  kMemory,    // free-run: a Forward must wait until a gradient lets activations go
  kSums,      // the list waits for the sums of a stage's gradients
  kChoice,    // the rank that decides what this one starts has not said it
};

// A blocked edge: who waits, for what, owed by whom. The executor adds step and since-when.
struct Blocked {
  BlockReason reason = BlockReason::kRunning;
  Action waiting{};  // the head of the list (for kRunning: the head after it)
  InputKind kind = InputKind::kActivation;  // of the owed message
  PipelineRank owed_by{};  // who must act; the rank itself for all but kInput and kMemory
  StageId owed_stage{};    // the stage that produces what is owed
  MicrobatchId microbatch{};

  bool operator==(const Blocked&) const = default;
};
struct Finished {};

using Decision = std::variant<Start, Blocked, Finished>;

Decision NextAction(const RankProgress& progress);
// The entry that NextAction starts, or -1: the decision without its reasons.
int32_t NextEntry(const RankProgress& progress);

// The first action that has not started and reads weights, where it is certain to be the next such
// one (strict): null where it is not, or where there is none.
const Action* NextOverWeights(const RankProgress& progress);

// "2F3 waits for the activation of microbatch 3 from stage 1 (rank 1)".
std::string Describe(const Blocked& blocked);

}  // namespace troupe
