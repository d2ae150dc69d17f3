// ExecutorActor: holds one rank's action list and credits, and alone starts its actions.
//   Takes:  StepStart, Commit, CheckpointStart (schedule actor); Activation, ActivationGradient,
//           SharedGradient (executors of other ranks); ActionDone, StageVote, GradientReady,
//           GradientMerged, UpdateDone (its stages); TokensReady (data loader)
//   Sends:  RunAction, CollectVote, TakeGradient, MergeGradient, ApplyUpdate -> stages;
//           FetchTokens -> loader; CheckpointStart -> checkpoint actor; Activation,
//           ActivationGradient, SharedGradient -> other ranks; Vote, StepDone -> schedule
//   Thread: the rank's actor thread.
//
//     idle --StepStart--> running --list done--> exchanging --shared gradients merged--> voting
//      ^                     (forward only: straight to voting)                          |
//      |<--forward only: Vote sent-------------------------------------------------------|
//      '----------------- updating <--Commit-- voted <--train: Vote sent-----------------'
//
//   I1. Which action is next is NextAction's word (actors/schedule), never decided here.
//   I2. An input that arrives before its round starts is kept; the posted slots bound how many.
//   I3. An output leaves when it is ready and a credit is there; without one it is parked, and the
//       compute goes on until its next output on that channel would need one buffer more than
//       output_buffers.
//   I4. A slot is held from arrival until the action that reads it is done.
//   I5. How copies of weights agree on a gradient is ExchangeProgress's word.
//   I6. The outputs of a fused pair leave together, at its end.
//   I7. The next action is launched before the outputs of the last one are sent.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "actors/exchange_progress.h"
#include "actors/messages.h"
#include "actors/output_channels.h"
#include "actors/plan/memory_model.h"
#include "actors/plan/trace_window.h"
#include "actors/plan/train_schedule.h"
#include "actors/round_times.h"
#include "actors/schedule/next_action.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/remote.h"
#include "runtime/trace/span.h"

namespace troupe {

using StageRef = ActorRef<RunAction, CollectVote, TakeGradient, MergeGradient, ApplyUpdate>;
using LoaderRef = ActorRef<FetchTokens>;
using ScheduleRef = Ref<proto::Vote, proto::StepDone>;

// What other ranks may send to an executor.
inline void RegisterExecutor(
    RankRouter& router,
    ActorRef<proto::StepStart, proto::Commit, proto::CheckpointStart, WithBulk<Activation>,
             WithBulk<ActivationGradient>, WithBulk<SharedGradient>>
        executor) {
  router.Register<proto::StepStart, proto::Commit, proto::CheckpointStart, WithBulk<Activation>,
                  WithBulk<ActivationGradient>, WithBulk<SharedGradient>>(kExecutorIndex, executor);
}

// What a rank does: an action, or else the phase.
struct RankActivity {
  int64_t step = 0;
  std::string_view phase{};  // a literal
  std::optional<Action> action{};
};
std::string InWords(const RankActivity& activity);  // "Forward of microbatch 3 on stage 2"

struct ExecutorOptions {
  Rank rank{};
  Schedule train{};                     // of one training step
  ExecutionPolicy policy{};             // of training; forward-only rounds are strict
  std::vector<TrainSchedule> others{};  // what a step may run instead (StepStart.order 1, 2, …)
  Schedule evaluate{};                  // forward only, as many microbatches as a validation round
  Schedule sample{};                    // forward only, one microbatch
  TensorDescriptor boundary{};          // shape and bytes of an activation between stages
  int output_buffers = kOutputBuffers;  // of each channel to another rank
  std::vector<GradientExchange> exchanges{};
  // What a shared gradient looks like, for each of the rank's stages in an exchange.
  std::map<std::pair<StageId, SharedWeights>, TensorDescriptor> shared{};
  TraceWindow trace{};  // the steps that leave spans of sends, receives and phases
  int64_t wait_deadline_ms = 60'000;
  std::function<void(const RankActivity&)> on_progress{};
};

class ExecutorActor
    : public Actor<ExecutorActor, proto::StepStart, proto::Commit, proto::CheckpointStart,
                   WithBulk<Activation>, WithBulk<ActivationGradient>, WithBulk<SharedGradient>,
                   ActionDone, StageVote, GradientReady, GradientMerged, UpdateDone, TokensReady,
                   OutputSent, CreditReturned> {
 public:
  static constexpr std::array kNormalEndings = {ErrorCode::kCancelled};

  struct Peers {
    std::map<StageId, StageRef> stages{};  // of this rank
    LoaderRef loader{};
    ActorRef<proto::CheckpointStart> checkpoint{};
    ScheduleRef schedule{};
    std::map<Rank, NeighbourRef> neighbours{};
  };

  ExecutorActor(ExecutorOptions options, Peers peers);

  Status On(proto::StepStart start);
  Status On(proto::Commit commit);
  Status On(proto::CheckpointStart start);
  Status On(WithBulk<Activation> activation);
  Status On(WithBulk<ActivationGradient> gradient);
  Status On(WithBulk<SharedGradient> gradient);
  Status On(ActionDone done);
  Status On(StageVote vote);
  Status On(GradientReady ready);
  Status On(GradientMerged merged);
  Status On(UpdateDone done);
  Status On(TokensReady tokens);
  Status On(OutputSent sent);
  Status On(CreditReturned credit);

 private:
  enum class State : uint8_t { kIdle, kRunning, kExchanging, kVoting, kVoted, kUpdating };
  using InputKey = std::tuple<int64_t, int32_t, int32_t, InputKind>;  // round, stage, microbatch

  Result<const RankList*> ListOf(const proto::StepStart& start) const;
  Status Arrive(InputKind kind, int64_t round, int32_t stage, int32_t microbatch,
                const TensorDescriptor& tensor, Bulk bulk);
  Status Advance();
  Status Launch(const Action& action);
  void SendSoon(const Transfer& transfer, Buffer output);
  Status FinishList();
  Status Exchange();
  Status HandOver(const ExchangeProgress::Step& step);
  Status CollectVotes();
  Status SendVote();
  void Tell(int64_t step, std::string_view phase) const;
  void WaitFor(const Blocked& blocked);
  void WaitForRoom(const Transfer& output);
  // `activity` and `owed` are literals, `from` lives until the wait is over; `from_rank` -1: no
  // rank owes it.
  void BeginWait(std::string_view activity, std::string_view owed, std::string_view from,
                 Rank from_rank, std::optional<MicrobatchId> microbatch = {});
  void EndWait();
  void TraceReceive(const Envelope& envelope, InputKind kind, int64_t arrived_ns) const;
  // A phase of the round, from `start_ns` until now.
  void TracePhase(std::string_view name, int64_t start_ns) const;
  bool NeedsTokens() const;

  const ExecutorOptions options_;
  const Peers peers_;
  const std::string name_;  // "rank 2", for waits

  State state_ = State::kIdle;
  proto::StepStart start_{};
  std::vector<RankList> train_{};  // by order
  const RankList evaluate_;
  const RankList sample_;
  const Schedule* schedule_ = nullptr;  // of the round
  std::optional<RankProgress> progress_{};
  std::map<InputKey, Bulk> slots_{};    // I2, I4
  std::map<InputKey, Buffer> local_{};  // hand-over between two stages of this rank
  std::vector<TokenBlock> tokens_{};    // by microbatch
  OutputChannels outputs_;              // I3
  std::vector<std::pair<Transfer, Buffer>> held_back_{};  // I6
  // X2: what came for a stage, and what a stage gave.
  using SharedKey = std::tuple<int64_t, StageId, SharedWeights>;  // round
  std::map<SharedKey, Bulk> arrived_{};
  std::map<std::pair<StageId, SharedWeights>, std::span<const std::byte>> given_{};
  std::optional<ExchangeProgress> exchange_{};
  size_t stage_answers_ = 0;
  RoundTimes times_{};
  proto::Vote vote_{};
  WaitHandle wait_{};
  std::optional<Blocked> waits_for_{};      // while wait_ is of WaitFor
  std::vector<std::string> stage_names_{};  // "stage 2 (rank 1)", by stage, for waits
  std::string exchange_peer_{};             // "rank 1", for the exchange's wait
  int64_t wait_since_ns_ = 0;               // 0: not waiting
  int64_t round_start_ns_ = 0;
  int64_t phase_start_ns_ = 0;  // of the vote, then of the optimizer
  bool waits_for_data_ = false;
};

}  // namespace troupe
