// ScheduleActor: drives a job's steps from rank 0's process. A step is a transaction: every rank
// votes, this actor alone adds the votes up and decides, only then does an optimizer run.
//   Takes:  Vote, StepDone (executors); CheckpointDone (checkpoint actors); BeginTraining,
//           OrderChosen, FoldersOpened, ShardsCommitted (job actor); CancelTraining (the root)
//   Sends:  StepStart, Commit, CheckpointStart -> every rank; StepCommitted, EvalMetrics,
//           TokensSampled, OpenFolders, CommitShards, TrainingEnded -> job actor
//   Thread: rank 0's actor thread.
//
//     idle --BeginTraining--> voting --all voted--> updating --all done--> (next) voting
//       '--no step is left--> what follows a step
//                               |                                   |--> evaluating --> …
//                               |                                   |--> opening -->
//                               |                                   |    checkpointing -->
//                               |                                   |    committing --> …
//                               |                                   '--> sampling --> … --> ended
//                               '--a vote not finite--> ended (failed)
//
//   I1. One round is open at a time; a vote of another round is an error.
//   I2. Losses are added by ascending microbatch, norm roots in table order: one shape in every
//       layout (DESIGN: sums that decide something).
//   I3. Commit(s) is sent only when every rank has voted in s.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/job_messages.h"
#include "actors/messages.h"
#include "actors/step_decision.h"
#include "proto/job.pb.h"
#include "proto/worker.pb.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/remote.h"

namespace troupe {

// Where a rank takes its orders: its executor, which hands checkpoints to its checkpoint actor.
using RankRef = Ref<proto::StepStart, proto::Commit, proto::CheckpointStart>;

struct ScheduleOptions {
  int64_t steps = 0;  // the last step of this run: stop_after, or train.steps
  int32_t num_microbatches = 0;
  int32_t evaluate_microbatches = 0;
  int64_t global_batch_size = 0;
  int32_t num_parameters = 0;
  double grad_clip = 0;
  int32_t evaluate_every = 0;
  int32_t evaluate_rounds = 0;
  int32_t checkpoint_every = 0;
  int64_t checkpoint_every_seconds = 0;  // since the last one, or the start; 0: never
  bool checkpoint_at_end = true;
  std::vector<int32_t> prompt{};  // sample after the last step
  int32_t sample_tokens = 0;
  double sample_temperature = 0;
  int32_t sample_seed = 0;
  int32_t seq_len = 0;
  double step_flops = 0;     // that the model takes in a step
  double product_flops = 0;  // a second, of all ranks' devices; 0: not known
  std::function<double(int64_t step)> learning_rate{};
  int64_t wait_deadline_ms = 120'000;  // for answers of the ranks and of rank 0's disk
};

class ScheduleActor
    : public Actor<ScheduleActor, BeginTraining, CancelTraining, OrderChosen, FoldersOpened,
                   ShardsCommitted, proto::Vote, proto::StepDone, proto::CheckpointDone> {
 public:
  static constexpr std::array kNormalEndings = {ErrorCode::kCancelled};

  ScheduleActor(ScheduleOptions options, std::vector<RankRef> ranks, JobRef job);

  Status On(BeginTraining begin);
  Status On(CancelTraining cancel);
  Status On(OrderChosen chosen);
  Status On(FoldersOpened opened);
  Status On(ShardsCommitted committed);
  Status On(proto::Vote vote);
  Status On(proto::StepDone done);
  Status On(proto::CheckpointDone done);

 private:
  enum class State : uint8_t {
    kIdle,
    kVoting,
    kUpdating,
    kEvaluating,
    kOpening,        // the folders of a checkpoint,
    kCheckpointing,  // which the ranks write to,
    kCommitting,     // and which then becomes the newest
    kSampling,
    kEnded
  };

  // Every rank owes an answer from now on. `activity` and `owed` are literals.
  void AwaitRanks(std::string_view activity, std::string_view owed, int64_t step);
  // Rank 0's own disk owes an answer; both are literals.
  void AwaitDisk(std::string_view owed);
  // Whether `rank` was the last to answer; an error where it owed none.
  Result<bool> Answered(int32_t rank);
  std::string Missing() const;  // "missing: 1, 3 of 4"
  Status StartRound(State state, proto::StepMode mode);
  Status Decide();
  Status AfterStep();
  bool CheckpointIsDue() const;
  Status StartCheckpoint();
  Status AfterEvaluation();
  Status AfterSample();
  Status NextOrEnd();
  Status End(Status status);
  template <typename M>
  Status Broadcast(const M& message);
  bool IsLastStep() const { return step_ >= options_.steps || cancelling_; }

  const ScheduleOptions options_;
  const std::vector<RankRef> ranks_;
  const JobRef job_;

  State state_ = State::kIdle;
  int64_t step_ = 0;  // last committed
  int64_t round_ = 0;
  std::vector<proto::Vote> votes_{};
  std::vector<proto::CheckpointDone> shards_{};
  std::vector<bool> answered_{};  // by rank, what the open wait is for
  bool cancelling_ = false;
  bool checkpoint_on_cancel_ = true;
  bool evaluated_ = false;
  bool checkpointed_ = false;
  int32_t evaluate_round_ = 0;
  StepSums evaluation_{};
  std::vector<int32_t> sequence_{};
  StepSums decided_{};
  double decided_norm_ = 0;
  size_t order_ = 0;           // that the next training step runs
  int32_t running_order_ = 0;  // of the open or last one
  int64_t step_start_ns_ = 0;
  int64_t saved_ns_ = 0;  // the last checkpoint's, or the start's
  double bubble_ = 0;
  WaitHandle wait_{};
};

}  // namespace troupe
