// ScheduleActor: drives what a job's ranks do, from rank 0's process: has one deed of the program
// (program.h) after another done by all ranks. A step is a transaction: every rank votes, the
// program alone adds the votes up and decides, only then does an optimizer run.
//   Takes:  Vote, StepDone (executors); CheckpointDone (checkpoint actors); BeginTraining,
//           OrderChosen, FoldersOpened, ShardsCommitted (job actor); CancelTraining (the root)
//   Sends:  StepStart, Commit, CheckpointStart -> every rank; StepCommitted, EvalMetrics,
//           TokensSampled, OpenFolders, CommitShards, TrainingEnded -> job actor
//   Thread: rank 0's actor thread.
//
//     idle --BeginTraining--> next deed
//       round: voting --all voted, nothing to commit--> next deed
//                 '--all voted--> updating --all done--> next deed
//       save:  opening --ranks told, aside--> next deed
//                 '--ranks told, alone--> saving --committed--> next deed
//       no deed left, or a verdict that is an error: ended
//   a checkpoint aside: writing --all shards--> committing --> over
//
//   I1. One round is open at a time; a vote of another round is an error.
//   I2. Commit(s) is sent only when every rank has voted in s.
//   I3. One checkpoint is open at a time. What the ranks write of it is the state between two
//       updates, so rounds go on beside it. The next save, and the end, wait for it; one that
//       exports a model, that layers may move after, or that is the last goes alone.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/job_messages.h"
#include "actors/messages.h"
#include "actors/program.h"
#include "proto/worker.pb.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/remote.h"

namespace troupe {

// Where a rank takes its orders: its executor, which hands checkpoints to its checkpoint actor.
using RankRef = Ref<proto::StepStart, proto::Commit, proto::CheckpointStart>;

struct ScheduleOptions {
  int64_t wait_deadline_ms = 120'000;  // for answers of the ranks and of rank 0's disk
  bool saves_alone = false;            // no round goes on beside a checkpoint
};

class ScheduleActor
    : public Actor<ScheduleActor, BeginTraining, CancelTraining, OrderChosen, FoldersOpened,
                   ShardsCommitted, proto::Vote, proto::StepDone, proto::CheckpointDone> {
 public:
  static constexpr std::array kNormalEndings = {ErrorCode::kCancelled};

  ScheduleActor(ScheduleOptions options, std::unique_ptr<Program> program,
                std::vector<RankRef> ranks, JobRef job);

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
    kOpening,  // the folders of a checkpoint
    kSaving,   // until the open checkpoint is committed
    kEnded
  };
  // A checkpoint that ranks write, and its commit when all have.
  struct Checkpoint {
    Save save{};
    bool committing = false;
    std::vector<proto::CheckpointDone> shards{};
    std::vector<bool> answered{};  // by rank
    WaitHandle wait{};
  };

  // Every rank owes an answer from now on. `activity` and `owed` are literals.
  void AwaitRanks(std::string_view activity, std::string_view owed, int64_t step);
  // Rank 0's own disk owes an answer; `owed` is a literal.
  WaitHandle AwaitDisk(std::string_view owed, int64_t step);
  void AwaitShards();
  // Whether `rank` was the last to answer; an error where it owed none.
  Result<bool> Answered(int32_t rank);
  Status Next();
  Status Start(Round round);
  Status Start(Save save);
  Status Decide();
  Status Tell(ProgramNews news);
  Status End(Status status);
  template <typename M>
  Status Broadcast(const M& message);

  const ScheduleOptions options_;
  const std::unique_ptr<Program> program_;
  const std::vector<RankRef> ranks_;
  const JobRef job_;

  State state_ = State::kIdle;
  int64_t round_ = 0;
  int64_t round_start_ns_ = 0;
  std::optional<Save> opening_{};  // whose folders are asked for, or wait for `checkpoint_`
  std::optional<Checkpoint> checkpoint_{};  // the open one
  Status end_{};                            // the verdict that ended the program, until all is over
  bool over_ = false;                       // the program has no more deeds
  std::vector<proto::Vote> votes_{};
  std::vector<bool> answered_{};  // by rank, what the round's open wait is for
  bool cancelled_ = false;
  WaitHandle wait_{};
};

}  // namespace troupe
