// ExecutorActor: holds one rank's action list and credits, and alone starts its actions.
//   Takes:  StepStart, Commit, CheckpointStart (schedule actor); Activation, ActivationGradient
//           (executors of the pipeline), ActionChosen (of the first rank that shares its
//           sequences); ActionDone, ActionWaits, GradientReduced, StageVote, UpdateDone (its
//           stages); MicrobatchesReady (data loader)
//   Sends:  RunAction, ReduceGradient, CollectVote, ApplyUpdate -> stages; FetchMicrobatches ->
//           loader; CheckpointStart -> checkpoint actor; Activation, ActivationGradient,
//           ActionChosen -> other ranks; Vote, StepDone -> schedule
//   Thread: the rank's actor thread.
//
//     idle --StepStart--> running --list done--> reducing --shared gradients summed--> voting
//      ^                     (forward only: straight to voting)                        |
//      |<--forward only: Vote sent-----------------------------------------------------|
//      '----------------- updating <--Commit-- voted <--train: Vote sent---------------'
//
//   I1. Which action is next is NextAction's word (actors/schedule), never decided here.
//   I2. An input that arrives before its round starts is kept; the posted slots bound how many.
//   I3. An output leaves when it is ready and a credit is there; without one it is parked, and the
//       compute goes on until its next output on that channel would need one buffer more than
//       output_buffers.
//   I4. A slot is held from arrival until the action that reads it is done.
//   I5. A gradient reduction starts when ReductionProgress says so, beside the actions: with the
//       stage's last gradient, or its REDUCE_GRAD where the list has one, not after the list.
//   I6. The outputs of a fused pair leave together, at its end.
//   I7. The next action is launched before the outputs of the last one are sent, and before a
//       reduction that the last one made ready: its own sums are work of the same stream.
//   I8. Collectives of the list start in its order, between actions, and hold up none; the list is
//       done when they have ended, too.
//   I9. Ranks that share sequences start a round's passes in one order (ActionChoices).
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "actors/action_choices.h"
#include "actors/action_inputs.h"
#include "actors/executor_trace.h"
#include "actors/executor_wait.h"
#include "actors/messages.h"
#include "actors/output_channels.h"
#include "actors/plan/memory_model.h"
#include "actors/plan/trace_window.h"
#include "actors/plan/train_schedule.h"
#include "actors/rank_activity.h"
#include "actors/rank_traffic.h"
#include "actors/reduction_progress.h"
#include "actors/round_vote.h"
#include "actors/schedule/next_action.h"
#include "actors/traced_memory.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/remote.h"

namespace troupe {

using StageRef = ActorRef<RunAction, ReduceGradient, CollectVote, ApplyUpdate>;
using LoaderRef = ActorRef<FetchMicrobatches>;
using ScheduleRef = Ref<proto::Vote, proto::StepDone>;

// What other ranks may send to an executor.
inline void RegisterExecutor(
    RankRouter& router, ActorRef<proto::StepStart, proto::Commit, proto::CheckpointStart,
                                 WithBulk<Activation>, WithBulk<ActivationGradient>, ActionChosen>
                            executor) {
  router.Register<proto::StepStart, proto::Commit, proto::CheckpointStart, WithBulk<Activation>,
                  WithBulk<ActivationGradient>, ActionChosen>(kExecutorIndex, executor);
}

struct ExecutorOptions {
  Rank rank{};
  PipelineRank place{};                 // of the rank: the schedules' lists are by it
  std::vector<Rank> pipeline{};         // who stands where, by PipelineRank
  std::optional<Rank> follows{};        // the first of those that share its sequences (cp)
  Schedule train{};                     // of one training step
  ExecutionPolicy policy{};             // of training; forward-only rounds are strict
  std::vector<TrainSchedule> others{};  // what a step may run instead (StepStart.order 1, 2, …)
  Schedule evaluate{};                  // forward only, as many microbatches as a validation round
  Schedule sample{};                    // forward only, one microbatch
  TensorDescriptor boundary{};          // shape and bytes of an activation between stages
  int output_buffers = kOutputBuffers;  // of each channel to another rank
  std::vector<GradientReduction> reductions{};  // of the plan
  BatchArithmetic batch{};
  int data_parallel_rank = 0;
  TraceWindow trace{};             // the steps that leave spans of sends, receives and phases
  RankTraffic* traffic = nullptr;  // counts what is sent; outlives the actor. Null: nobody asks
  TracedMemory* memory = nullptr;  // likewise, of the traced steps
  int64_t wait_deadline_ms = 60'000;
  std::function<void(const RankActivity&)> on_progress{};
};

class ExecutorActor
    : public Actor<ExecutorActor, proto::StepStart, proto::Commit, proto::CheckpointStart,
                   WithBulk<Activation>, WithBulk<ActivationGradient>, ActionChosen, ActionDone,
                   ActionWaits, GradientReduced, StageVote, UpdateDone, MicrobatchesReady,
                   OutputSent, CreditReturned, OutputReady> {
 public:
  static constexpr std::array kNormalEndings = {ErrorCode::kCancelled};

  struct Peers {
    std::map<StageId, StageRef> stages{};  // of this rank
    LoaderRef loader{};
    ActorRef<proto::CheckpointStart> checkpoint{};
    ScheduleRef schedule{};
    std::map<PipelineRank, NeighbourRef> neighbours{};
    std::vector<FollowerRef> followers{};  // where this rank decides for others
  };

  ExecutorActor(ExecutorOptions options, Peers peers);

  Status On(proto::StepStart start);
  Status On(proto::Commit commit);
  Status On(proto::CheckpointStart start);
  Status On(WithBulk<Activation> activation);
  Status On(WithBulk<ActivationGradient> gradient);
  Status On(ActionChosen chosen);
  Status On(ActionDone done);
  Status On(ActionWaits action);
  Status On(StageVote vote);
  Status On(GradientReduced reduced);
  Status On(UpdateDone done);
  Status On(MicrobatchesReady ready);
  Status On(OutputSent sent);
  Status On(CreditReturned credit);
  Status On(OutputReady output);

 private:
  enum class State : uint8_t { kIdle, kRunning, kReducing, kVoting, kVoted, kUpdating };

  Result<const RankList*> ListOf(const proto::StepStart& start) const;
  Status Arrive(const ActionInputs::Key& key, const TensorDescriptor& tensor, Bulk bulk);
  Status Advance();
  Status Launch(const Action& action);
  Status StartCollective(const Start& start);
  Status EndCollective(int32_t entry, const Action& action);
  Status EndSums();
  void SendSoon(const Transfer& transfer, Buffer output);
  Status FinishList();
  Status StartReductions();
  Status CollectVotes();
  Status SendVote();
  void Tell(int64_t step, std::string_view phase) const;

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
  ActionInputs inputs_{};                                 // I2, I4
  std::vector<SharedMicrobatch> microbatches_{};          // of the round
  OutputChannels outputs_;                                // I3
  std::vector<std::pair<Transfer, Buffer>> held_back_{};  // I6
  std::optional<ReductionProgress> reductions_{};         // of a training round
  size_t stage_answers_ = 0;
  RoundVote vote_{};
  const ExecutorTrace trace_;
  ExecutorWait wait_;
  ActionChoices choices_;  // I9
  int64_t round_start_ns_ = 0;
  int64_t phase_start_ns_ = 0;  // of the vote, then of the optimizer
};

}  // namespace troupe
