// ExecutorActor: holds one rank's action list and credits, and alone starts its actions.
//   Takes:  StepStart, Commit, CheckpointStart (schedule actor); Activation,
//   ActivationGradient,
//           TiedGradient (executors of neighbouring ranks); ActionDone, StageVote, TiedReady,
//           TiedMerged, UpdateDone (its stages); TokensReady (data loader)
//   Sends:  RunAction, CollectVote, TakeTied, MergeTied, ApplyUpdate -> stages; FetchTokens ->
//   loader;
//           CheckpointStart -> checkpoint actor; Activation, ActivationGradient, TiedGradient ->
//           neighbours; Vote, StepDone -> schedule
//   Thread: the rank's actor thread.
//
//     idle --StepStart--> running --list done--> exchanging --tied gradients merged--> voting
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
//   I5. The tied weight's last use sends its gradient, the first adds it to its own and sends the
//   sum
//       back: one order of addition, and neither side holds what the other waits for.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "actors/messages.h"
#include "actors/plan/memory_model.h"
#include "actors/schedule/next_action.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/remote.h"
#include "runtime/trace/span.h"

namespace troupe {

using StageRef = ActorRef<RunAction, CollectVote, TakeTied, MergeTied, ApplyUpdate>;
using LoaderRef = ActorRef<FetchTokens>;
using NeighbourRef =
    RemoteRef<WithBulk<Activation>, WithBulk<ActivationGradient>, WithBulk<TiedGradient>>;

using ScheduleRef = Ref<proto::Vote, proto::StepDone>;

// What other ranks may send to an executor.
inline void RegisterExecutor(
    RankRouter& router,
    ActorRef<proto::StepStart, proto::Commit, proto::CheckpointStart, WithBulk<Activation>,
             WithBulk<ActivationGradient>, WithBulk<TiedGradient>>
        executor) {
  router.Register<proto::StepStart, proto::Commit, proto::CheckpointStart, WithBulk<Activation>,
                  WithBulk<ActivationGradient>, WithBulk<TiedGradient>>(kExecutorIndex, executor);
}

struct ExecutorOptions {
  Rank rank{};
  Schedule train{};                 // of one training step
  Schedule evaluate{};              // forward only, as many microbatches as a validation round
  Schedule sample{};                // forward only, one microbatch
  std::optional<Rank> tied_peer{};  // rank of the tied weight's other use, where it is another rank
  bool first_tied_use = false;      // the embedding's use is here, the head's on tied_peer
  TensorDescriptor boundary{};      // shape and bytes of an activation between stages
  TensorDescriptor tied{};
  int output_buffers = kOutputBuffers;  // of each channel to another rank
  int64_t wait_deadline_ms = 60'000;
  // Told what the rank does now: (step, action in words).
  std::function<void(int64_t step, const std::string& action)> on_progress{};
};

class ExecutorActor
    : public Actor<ExecutorActor, proto::StepStart, proto::Commit, proto::CheckpointStart,
                   WithBulk<Activation>, WithBulk<ActivationGradient>, WithBulk<TiedGradient>,
                   ActionDone, StageVote, TiedReady, TiedMerged, UpdateDone, TokensReady,
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
  Status On(WithBulk<TiedGradient> gradient);
  Status On(ActionDone done);
  Status On(StageVote vote);
  Status On(TiedReady ready);
  Status On(TiedMerged merged);
  Status On(UpdateDone done);
  Status On(TokensReady tokens);
  Status On(OutputSent sent);
  Status On(CreditReturned credit);

 private:
  enum class State : uint8_t { kIdle, kRunning, kExchanging, kVoting, kVoted, kUpdating };
  using InputKey = std::tuple<int64_t, int32_t, int32_t, InputKind>;  // round, stage, microbatch
  struct Parked {
    Transfer transfer{};
    int64_t round = 0;
    std::shared_ptr<Buffer> output{};
  };

  void BeginList();
  Status Arrive(InputKind kind, int64_t round, int32_t stage, int32_t microbatch,
                const TensorDescriptor& tensor, Bulk bulk);
  Status Advance();
  Status Launch(const Action& action);
  Status Deliver(const Transfer& transfer, Buffer output);
  Status FlushParked(Rank peer, uint16_t channel);
  Status SendParked(Parked& parked);
  Status FinishList();
  Status MergeTiedIfHere();
  Status CollectVotes();
  Status SendVote();
  void WaitFor(const Blocked& blocked);
  void EndWait();
  SpanRecord SendSpan(const Transfer& transfer, const Postmark& postmark) const;
  void TraceReceive(const Envelope& envelope, InputKind kind) const;
  bool NeedsTokens() const;
  StageId AnyStage() const { return peers_.stages.begin()->first; }

  const ExecutorOptions options_;
  const Peers peers_;
  const std::string name_;  // "rank 2", for waits

  State state_ = State::kIdle;
  proto::StepStart start_{};
  const Schedule* schedule_ = nullptr;
  std::optional<RankProgress> progress_{};
  std::map<InputKey, Bulk> slots_{};    // I2, I4
  std::map<InputKey, Buffer> local_{};  // hand-over between two stages of this rank
  std::map<int32_t, TokenBlock> tokens_{};
  std::map<std::pair<Rank, InputKind>, std::deque<Parked>> parked_{};  // I3
  std::map<std::pair<Rank, InputKind>, int> outputs_{};  // buffers in use, of any round
  std::vector<SendLimit> send_limits_{};
  std::map<int64_t, Bulk> tied_{};  // by round: the other use's gradient
  size_t stage_answers_ = 0;
  proto::Vote vote_{};
  WaitHandle wait_{};
  std::string waits_from_{};
  int64_t wait_since_ns_ = 0;  // 0: not waiting
  bool waits_for_data_ = false;
};

}  // namespace troupe
