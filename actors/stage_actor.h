// StageActor: one pipeline stage of a rank. It only computes: the executor says what and when.
//   Takes:  MeetExecutor (the root), then from the executor:
//           RunAction, ReduceGradient, CollectVote, ApplyUpdate
//   Sends:  ActionDone, ActionWaits, GradientReduced, StageVote, UpdateDone -> executor
//   Thread: handlers on the rank's actor thread; all arithmetic on the compute stream.
//
//     unmet --MeetExecutor--> ready --RunAction, …--> ready (work launched; the answer follows)
//
//   I1. The model computes on the stream alone, in the order of the messages. What it begins with
//       other ranks (StageSiblings) it begins on the actor thread, from a task that waits for that.
//   I2. Every message but MeetExecutor is answered exactly once, when its work has run; before
//       that, ActionWaits says each wait of an action in its middle, and its end.
//   I3. All work is a task of the stream, which may wait in its middle, and ends with the actor. It
//       knows the model; the actor only as what launches more such work (StageSiblings::launch).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "actors/messages.h"
#include "actors/model/stage_model.h"
#include "actors/plan/trace_window.h"
#include "actors/state_readers.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/stream.h"
#include "runtime/collective/group.h"
#include "runtime/trace/span.h"

namespace troupe {

// A gradient reduction as the stage that starts it sees it.
struct StageReduction {
  SharedWeights weights = SharedWeights::kTied;
  std::vector<StageModel*> copies{};  // of this rank, ascending; the stage's own is the last
  Group* group = nullptr;             // of the ranks with copies; null where this one has all
};

struct StageOptions {
  Rank rank{};
  StageId stage{};
  bool last = false;             // ends in the loss
  int32_t first_microbatch = 0;  // of those that pass through the stage; the model counts from 0
  int context_rank = 0;          // among those that share its microbatches' sequences
  // Optimizer settings that do not change from step to step.
  AdamWOptions adamw{};
  std::map<int32_t, StageReduction> reductions{};  // that this stage starts, by place in the plan
  SiblingGroups siblings{};                        // of the ranks that hold the stage
  // Of weights that are gathered for each pass; null where they are here.
  RowSource* rows = nullptr;
  std::function<StageModel*(StageId)> stage_of_rank{};  // with them: each gathers ahead for others
  StateReaders* readers = nullptr;                      // whom an update waits for; null: nobody
  int64_t disk_deadline_ms = 0;                         // that wait is told of; 0: never
  TraceWindow trace{};  // the steps whose every piece of work leaves a span
};

class StageActor
    : public Actor<StageActor, MeetExecutor, RunAction, ReduceGradient, CollectVote, ApplyUpdate> {
 public:
  // The model, the stream and what the options point to outlive the actor.
  StageActor(StageOptions options, StageModel& model, Stream& stream);

  Status On(MeetExecutor meet);
  Status On(RunAction run);
  Status On(ReduceGradient reduce);
  Status On(CollectVote collect);
  Status On(ApplyUpdate update);

 private:
  StageModel::NextPass NextAfter(const RunAction& run) const;
  // Of the token whose follower is drawn, among those of its sequence that this rank has; -1: it
  // has not.
  int64_t LastRowOf(const RunAction& run) const;
  // Null where an update need not wait; else what it waits for, and its wait has begun.
  std::shared_ptr<StreamEvent> AwaitReaders(int64_t step);
  // Launches task(model, answer) and sends the answer when it has ended.
  template <typename Answer, typename NewTask>
  Status Answering(Answer answer, NewTask new_task);
  // A training step's actions leave spans always: costs and pictures are made of them.
  void Trace(const ActionDone& done) const;
  void Trace(const UpdateDone& done) const;
  void WriteSpan(SpanCategory category, std::string_view name, int64_t step, int32_t microbatch,
                 const WorkTime& time) const;

  const StageOptions options_;
  StageModel& model_;
  Stream& stream_;
  const std::string name_;  // "stage 2 (rank 5)"
  // Of the update that waits until a checkpoint has been written: they come in turn.
  std::string owed_checkpoint_{};
  WaitHandle checkpoint_wait_{};
  const StreamScope scope_{stream_};
  ExecutorAnswers executor_{};
  int64_t step_ = 0;  // of the last action
};

}  // namespace troupe
