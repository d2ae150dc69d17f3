// JobActor: what follows from a job's steps outside of them, in rank 0's process: the folders of
// its checkpoints, another order or other layers where the votes call for them, and the job's news.
//   Takes:  BeginJob (the root); StepCommitted, EvalMetrics, TokensSampled, OpenFolders,
//           CommitShards, TrainingEnded (schedule actor)
//   Sends:  BeginTraining, OrderChosen, FoldersOpened, ShardsCommitted -> schedule actor; news and
//           the job's end -> the root
//   Thread: rank 0's actor thread; what waits for a disk on the compute stream, which is idle
//   between steps.
//
//     unmet --BeginJob--> beginning (earlier checkpoints move) --> following --TrainingEnded-->
//       ended (after a failure the open checkpoint is removed first)
//
//   I1. The checkpoints of an earlier run move out of the way before the first step, no sooner than
//       every rank is ready.
//   I2. The end is told once, when nothing of it is left on the stream.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/job_checkpoints.h"
#include "actors/job_messages.h"
#include "actors/replanner.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/stream.h"

namespace troupe {

// The first message: every rank is ready.
struct BeginJob {
  static constexpr std::string_view kMessageName = "troupe.BeginJob";
  TrainingRef schedule{};
  TrainingProgress progress{};  // resumed from
};
struct JobEnd {
  Status end{};
  int64_t last_step = 0;
  bool cancelled = false;
  std::string checkpoint{};         // the newest that this run committed; or empty
  std::vector<int> stage_layers{};  // not empty: the run goes on from it with so many a stage
};

struct JobOptions {
  bool rebalance = false;                 // layers may move off a rank that stays slow
  std::string prompt{};                   // that sampling went on from
  std::optional<int32_t> ignore_label{};  // the token whose labels do not count
  int64_t disk_deadline_ms = 0;           // when a wait for files is told of; 0: never
  // Both are called on the actor thread.
  std::function<void(const proto::FromRank&)> say{};
  std::function<void(JobEnd)> on_end{};
};

class JobActor : public Actor<JobActor, BeginJob, StepCommitted, proto::EvalMetrics, TokensSampled,
                              OpenFolders, CommitShards, TrainingEnded> {
 public:
  // Without checkpoints nothing is kept (a reference run). The stream outlives the actor's last
  // piece of work, the plan of the replanner the actor.
  JobActor(JobOptions options, std::optional<JobCheckpoints> checkpoints,
           std::optional<Replanner> replanner, Stream& stream);

  Status On(BeginJob begin);
  Status On(StepCommitted step);
  Status On(proto::EvalMetrics metrics);
  Status On(TokensSampled sampled);
  Status On(OpenFolders open);
  Status On(CommitShards commit);
  Status On(TrainingEnded ended);

 private:
  void Happened(std::string_view level, const std::string& text) const;
  // work() on the stream, then done() on the actor thread, unless the actor has ended. Whoever asks
  // why nothing happens is told what is waited for; both names are literals.
  template <typename Work, typename Done>
  void OnDisk(std::string_view activity, std::string_view owed, Work work, Done done);
  // A warning about a step or evaluation without a loss.
  void NothingCounted(const std::string& what, std::string_view so) const;
  ShardsCommitted Committed(proto::CheckpointCommitted committed, int64_t steps_left);
  void TellEnd(const TrainingEnded& ended) const;

  const JobOptions options_;
  // Used on the stream's thread, by work that may outlive the actor.
  const std::shared_ptr<JobCheckpoints> checkpoints_;
  std::optional<Replanner> replanner_;
  Stream& stream_;
  const StreamScope scope_{stream_};
  TrainingRef schedule_{};
  TrainingProgress resumed_from_{};
  std::string newest_{};             // committed by this run
  std::vector<int> moved_layers_{};  // the run goes on elsewhere, with so many a stage
};

}  // namespace troupe
