// The messages that actors of a job exchange, but for the control messages of proto/training.proto.
// Actors include this file and never each other.
//
// Wire messages are plain structs whose bytes are their format; the tensor lies in the bulk beside.
// Local messages stay inside a rank's process.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "actors/model/kv_ring.h"
#include "actors/plan/microbatch.h"
#include "actors/schedule/schedule.h"
#include "kernels/cross_entropy.h"
#include "proto/training.pb.h"
#include "runtime/actor/actor_ref.h"
#include "runtime/actor/stream.h"
#include "runtime/base/ids.h"
#include "runtime/memory/buffer.h"
#include "runtime/transport/envelope.h"

namespace troupe {

// Indices in a rank's registry, the same on every rank.
inline constexpr uint32_t kExecutorIndex = 1;
inline constexpr uint32_t kScheduleIndex = 2;  // rank 0 only
inline constexpr uint32_t kCollectiveIndex = 3;
inline constexpr uint32_t kRingAttentionIndex = 4;  // where ranks share sequences (cp)
// Of the rank's first row of shards; each row has an actor of its own, by stage and row.
inline constexpr uint32_t kFirstShardIndex = 64;

// Data channels between two ranks.
inline constexpr uint16_t kActivationChannel = 1;
inline constexpr uint16_t kGradientChannel = 2;
inline constexpr uint16_t kShardChannel = 3;
// Of blocks of keys and values, one for each lane (KvPhase), and of their gradients.
inline constexpr uint16_t kKvChannel = 4;
inline constexpr uint16_t kKvGradientChannel = 6;
// Of what arrives as `kind`.
constexpr uint16_t ChannelOf(InputKind kind) {
  return kind == InputKind::kActivation ? kActivationChannel : kGradientChannel;
}
// Of the plan's first gradient reduction; each has one of its own.
inline constexpr uint16_t kFirstGroupChannel = 16;

// ---- wire, executor -> executor ---------------------------------------------------------------

// Output of a stage that feeds `stage`, for one microbatch. tensor: (tokens, hidden_size).
struct Activation {
  static constexpr std::string_view kMessageName = "troupe.Activation";
  int64_t round = 0;
  int16_t stage = 0;  // the receiver's
  int16_t input = 0;  // which of its inputs (Transfer)
  int32_t microbatch = 0;
  TensorDescriptor tensor{};
};

// Gradient of the output of `stage` for one microbatch. tensor: (tokens, hidden_size).
struct ActivationGradient {
  static constexpr std::string_view kMessageName = "troupe.ActivationGradient";
  int64_t round = 0;
  int32_t stage = 0;  // the receiver's
  int32_t microbatch = 0;
  TensorDescriptor tensor{};
};

// The first rank of a group that shares sequences (cp) -> the others: it starts this pass, the next
// in the order of the round (ActionChoices).
struct ActionChosen {
  static constexpr std::string_view kMessageName = "troupe.ActionChosen";
  int64_t round = 0;
  int32_t stage = 0;
  int32_t microbatch = 0;
  uint32_t kind = 0;  // ActionKind
  uint32_t reserved = 0;
};
static_assert(sizeof(ActionChosen) == 24, "a wire format");

// ---- wire, shard actor -> shard actor of the same row ------------------------------------------

// Asks an owner for its run of the row, as of `version`.
struct ShardWanted {
  static constexpr std::string_view kMessageName = "troupe.ShardWanted";
  int64_t version = 0;
  int32_t stage = 0;
  int32_t row = 0;        // of the stage
  uint32_t training = 0;  // 1: for a training step, whose traffic is reported
  uint32_t reserved = 0;
};
static_assert(sizeof(ShardWanted) == 24, "a wire format");

// A block of the sender's run of the row, beside the message; a run's blocks come in order.
struct ShardBlock {
  static constexpr std::string_view kMessageName = "troupe.ShardBlock";
  int64_t version = 0;
  int32_t stage = 0;
  int32_t row = 0;
  int64_t run_bytes = 0;
  int64_t first_byte = 0;  // of this block, within the run
};
static_assert(sizeof(ShardBlock) == 32, "a wire format");

// ---- wire, ring attention actor -> that of the next rank along cp -------------------------------

// Keys and values of the tokens of rank `origin` of the group, which come with hop `hop` (from 1)
// of a pass over a layer. tensor: (tokens, 2 · key channels), keys in the first half of the
// columns.
struct KvBlock {
  static constexpr std::string_view kMessageName = "troupe.KvBlock";
  int64_t step = 0;
  int32_t microbatch = 0;  // -1: one that is not trained on
  int32_t layer = 0;
  int16_t hop = 0;
  int16_t origin = 0;
  uint32_t phase = 0;  // KvPhase
  TensorDescriptor tensor{};
};
static_assert(sizeof(KvBlock) == 80, "a wire format");
// What the ranks so far make of the gradient of that block. float32 (float64).
struct KvGradientBlock {
  static constexpr std::string_view kMessageName = "troupe.KvGradientBlock";
  int64_t step = 0;
  int32_t microbatch = 0;
  int32_t layer = 0;
  int16_t hop = 0;
  int16_t origin = 0;
  uint32_t phase = 0;
  TensorDescriptor tensor{};
};
static_assert(sizeof(KvGradientBlock) == sizeof(KvBlock), "a wire format");

// ---- local, a stage's RowSource -> shard actor --------------------------------------------------

struct RowArrival;

// RowSource::Gather and Publish, of the actor's row.
struct GatherRow {
  static constexpr std::string_view kMessageName = "troupe.GatherRow";
  std::span<std::byte> whole{};
  RowArrival* arrival = nullptr;
};
struct PublishRow {
  static constexpr std::string_view kMessageName = "troupe.PublishRow";
  std::span<const std::byte> own{};
  int64_t version = 0;
};

// ---- local, a layer's pass (KvRing) -> ring attention actor -------------------------------------

// KvRing::Expect, Send and Let.
struct ExpectBlock {
  static constexpr std::string_view kMessageName = "troupe.ExpectBlock";
  KvHop hop{};
  int64_t num_bytes = 0;
  KvArrival* arrival = nullptr;
};
struct SendBlock {
  static constexpr std::string_view kMessageName = "troupe.SendBlock";
  KvHop hop{};
  std::span<const std::byte> block{};
  KvDeparture* departure = nullptr;
};
struct LetBlock {
  static constexpr std::string_view kMessageName = "troupe.LetBlock";
  KvHop hop{};
  int64_t idle_ns = 0;
};

// ---- local, transport -> ring attention actor ---------------------------------------------------

// The transport has let go of a block: which, the actor numbered.
struct BlockSent {
  static constexpr std::string_view kMessageName = "troupe.BlockSent";
  uint64_t number = 0;
};
// A credit came back: a parked block may leave.
struct RingCredit {
  static constexpr std::string_view kMessageName = "troupe.RingCredit";
  uint16_t channel = 0;
};

// ---- local, the worker's root -> stages and loader ----------------------------------------------

struct ActionDone;
struct ActionWaits;
struct StageVote;
struct GradientReduced;
struct UpdateDone;
struct MicrobatchesReady;
using ExecutorAnswers =
    ActorRef<ActionDone, ActionWaits, GradientReduced, StageVote, UpdateDone, MicrobatchesReady>;

// The first message to a stage and to the loader: whom they answer. An executor is spawned after
// the actors that it starts, so it cannot be an argument of theirs.
struct MeetExecutor {
  static constexpr std::string_view kMessageName = "troupe.MeetExecutor";
  ExecutorAnswers executor{};
};

// ---- local, executor <-> stage actors ---------------------------------------------------------

// Run one compute action, or collective. `inputs` (activations or a gradient, in the order of
// InputsOf; empty where the stage starts from tokens or from the loss) stay valid until the answer.
struct RunAction {
  static constexpr std::string_view kMessageName = "troupe.RunAction";
  Action action{};
  int64_t round = 0;
  int64_t step = 0;
  proto::StepMode mode = proto::STEP_MODE_TRAIN;
  std::optional<Action> next{};  // that reads weights, where it is known (NextOverWeights)
  std::array<std::span<const std::byte>, kStageInputsMax> inputs{};
  SharedMicrobatch data{};  // Forward only
  int32_t last_token = 0;   // sampling: the position whose follower is drawn, in the first sequence
  double temperature = 0;
  uint64_t sample_counter = 0;  // of the token to draw
  int32_t sample_seed = 0;
};

// The action has ended; its status, as that of every answer of a stage, is an error where its work
// failed, and then nothing else holds. `output` is what the neighbour needs (empty where nothing
// leaves the stage).
struct ActionDone {
  static constexpr std::string_view kMessageName = "troupe.ActionDone";
  Action action{};
  int64_t round = 0;
  int64_t step = 0;
  proto::StepMode mode = proto::STEP_MODE_TRAIN;
  Buffer output{};
  std::optional<LossSum> loss{};  // Forward of the last stage in training and evaluation
  int32_t sampled_token = -1;
  WorkTime time{};
  Status status{};
};

// An action waits in its middle for other ranks, and its stream is free; or its wait is over, and
// it goes on when its turn comes.
struct ActionWaits {
  static constexpr std::string_view kMessageName = "troupe.ActionWaits";
  Action action{};
  bool waits = false;
};

// All gradients of the round are summed, those of shared weights over all copies: what this stage
// votes.
struct CollectVote {
  static constexpr std::string_view kMessageName = "troupe.CollectVote";
  int64_t round = 0;
};
struct StageVote {
  static constexpr std::string_view kMessageName = "troupe.StageVote";
  StageId stage{};
  int64_t round = 0;
  std::vector<proto::NormNode> norm_nodes{};
  bool finite = true;
  Status status{};
};

// Add up the gradient of weights that the stage shares, wherever the copies are
// (GradientReduction): `reduction` is its place in the plan. It goes on beside other actions.
struct ReduceGradient {
  static constexpr std::string_view kMessageName = "troupe.ReduceGradient";
  int64_t round = 0;
  int64_t step = 0;
  int32_t reduction = 0;
};
// Every copy of this rank has the sum.
struct GradientReduced {
  static constexpr std::string_view kMessageName = "troupe.GradientReduced";
  int64_t round = 0;
  int32_t reduction = 0;
  Status status{};
};

struct ApplyUpdate {
  static constexpr std::string_view kMessageName = "troupe.ApplyUpdate";
  int64_t step = 0;
  bool apply = true;   // false: drop the gradients
  int64_t number = 0;  // of those that the optimizer's state has seen, from 1
  double gradient_factor = 0;
  double learning_rate = 0;
};
struct UpdateDone {
  static constexpr std::string_view kMessageName = "troupe.UpdateDone";
  StageId stage{};
  int64_t step = 0;
  WorkTime time{};
  Status status{};
};

// ---- local, transport -> executor ------------------------------------------------------------

// The transport has let go of an output: its buffer is free again.
struct OutputSent {
  static constexpr std::string_view kMessageName = "troupe.OutputSent";
  PipelineRank to{};
  InputKind kind = InputKind::kActivation;
};
// A credit came back: a parked output to that rank may leave.
struct CreditReturned {
  static constexpr std::string_view kMessageName = "troupe.CreditReturned";
  PipelineRank to{};
  uint16_t channel = 0;
};

// ---- local, executor -> itself ----------------------------------------------------------------

// An output is parked and the next action launched: it may leave.
struct OutputReady {
  static constexpr std::string_view kMessageName = "troupe.OutputReady";
  PipelineRank to{};
  InputKind kind = InputKind::kActivation;
};

// ---- local, executor <-> data loader ----------------------------------------------------------

struct FetchMicrobatches {
  static constexpr std::string_view kMessageName = "troupe.FetchMicrobatches";
  int64_t round = 0;
  proto::StepMode mode = proto::STEP_MODE_TRAIN;
  int64_t first_sample = 0;  // global sample number, or validation sample index
  int32_t num_microbatches = 0;
  std::vector<int32_t> text{};  // sampling: the tokens, in place of samples
};
// One message a round, so that no number of microbatches fills a mailbox.
struct MicrobatchesReady {
  static constexpr std::string_view kMessageName = "troupe.MicrobatchesReady";
  int64_t round = 0;
  std::vector<SharedMicrobatch> microbatches{};
  Status status{};  // an error ends the job: the tokens are gone or others
};

}  // namespace troupe
