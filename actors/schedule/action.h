// One action of a pipeline schedule and its text form. Everything else in this folder (generators,
// validator, next-action function, simulator, drawing) and the executor speak in these.
// Pure values: any thread, no state.
//
// Text is PyTorch's textual schedule grammar, with one addition for parts of a weight gradient:
//   action := STAGE TYPE [MICROBATCH] ["/" PART "of" PARTS]      PART counts from 1
//   TYPE   := F | I | W | B | SEND_F | RECV_F | SEND_B | RECV_B | WAIT_SEND_F | WAIT_SEND_B
//           | UNSHARD | RESHARD | REDUCE_GRAD | WAIT_REDUCE_GRAD
// UNSHARD, RESHARD and WAIT_REDUCE_GRAD have no microbatch; REDUCE_GRAD may have one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/ids.h"
#include "runtime/base/result.h"

namespace troupe {

// A position along the pipeline, from 0: where a schedule's stages lie. The plan's mesh says which
// ranks of the job stand there (actors/plan/mesh.h). "Rank" in this folder's names and texts is
// this one.
using PipelineRank = Id<struct PipelineRankTag>;

enum class ActionKind : uint8_t {
  kForward,          // F
  kBackwardInput,    // I: gradient of the stage's input
  kBackwardWeight,   // W: gradient of the stage's weights, after I of the same microbatch
  kBackward,         // B: I and W as one; sends the input gradient at its end
  kSendForward,      // carries the sender's stage
  kRecvForward,      // carries the receiver's stage
  kSendBackward,     // carries the sender's stage
  kRecvBackward,     // carries the receiver's stage
  kWaitSendForward,  // until the send of the same stage and microbatch is over
  kWaitSendBackward,
  kUnshard,         // begins to gather the stage's parameters, which stay until its RESHARD
  kReshard,         // drops the gathered parameters again
  kReduceGrad,      // begins to reduce gradients of the stage over its data-parallel group
  kWaitReduceGrad,  // nothing after it starts before the stage's reductions are over
};
inline constexpr int kNumActionKinds = 14;

// The largest schedules that are read or generated: a slip in a file sizes no table.
inline constexpr int kRanksMax = 1 << 14;
inline constexpr int kStagesMax = 1 << 15;
inline constexpr int kMicrobatchesMax = 1 << 20;

inline constexpr int32_t kNotPaired = -1;

struct Action {
  StageId stage{};
  ActionKind kind = ActionKind::kForward;
  // Which slice of a weight gradient this is: `part` in 0 .. num_parts-1. 0 of 1 for all others.
  uint8_t part = 0;
  uint8_t num_parts = 1;
  // REDUCE_GRAD alone: of its microbatch's gradients, not of the whole stage's.
  bool of_microbatch = false;
  // The two actions of an overlapped pair (PyTorch's OVERLAP_F_B), one Forward and then one
  // backward, stand next to each other in their rank's list and share this number, unique in that
  // list; kNotPaired for all others. A pair is *eager*: ordinary actions in this order, neither
  // waiting for the other's input.
  int32_t pair = kNotPaired;
  MicrobatchId microbatch{};

  bool operator==(const Action&) const = default;
};

// Forward, BackwardInput, BackwardWeight or Backward.
bool IsCompute(ActionKind kind);
// Forward, BackwardInput or Backward: a pass over the stage's weights.
bool ReadsWeights(ActionKind kind);
// A send, a receive or a wait for one's end: what follows from the other actions.
bool IsCommunication(ActionKind kind);
// Unshard, Reshard, ReduceGrad or WaitReduceGrad: they run beside the compute actions.
bool IsCollective(ActionKind kind);
bool HasMicrobatch(const Action& action);
// "F", "I", "W", "B", "SEND_F", …: the spelling in files and drawings.
std::string_view KindLetters(ActionKind kind);
// "Forward", "BackwardInput", …: the spelling in sentences and traces.
std::string_view KindName(ActionKind kind);

// "2F3", "3W5/1of4", "1REDUCE_GRAD", "1REDUCE_GRAD3". The pair is not part of an action's text; a
// row's is (schedule.h).
std::string ToString(const Action& action);
// Refuses numbers above the limits, and trailing text, so that an older dialect's "2BW0" is not
// read as "2B". Errors are kInvalidSpec and quote the text.
Result<Action> ParseAction(std::string_view text);

}  // namespace troupe
