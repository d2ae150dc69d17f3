// What the schedule actor, which drives a job's steps, and the job actor, which does what follows
// from them, say to each other and hear from the worker's root. All stay in rank 0's process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "actors/training_progress.h"
#include "proto/training.pb.h"
#include "proto/worker.pb.h"
#include "runtime/actor/actor_ref.h"
#include "runtime/base/result.h"

namespace troupe {

// ---- the root or the job actor -> schedule actor ------------------------------------------------

struct BeginTraining {
  static constexpr std::string_view kMessageName = "troupe.BeginTraining";
  TrainingProgress progress{};  // resumed from
};
struct CancelTraining {
  static constexpr std::string_view kMessageName = "troupe.CancelTraining";
  bool checkpoint = true;
};
// Which of the plan's orders the steps run that start from now on.
struct OrderChosen {
  static constexpr std::string_view kMessageName = "troupe.OrderChosen";
  size_t order = 0;
};
// Where the shards of one checkpoint go, both uncommitted.
struct CheckpointFolders {
  std::string checkpoint{};  // empty: the step is committed already, or nothing is kept
  std::string exported{};    // empty: no Hugging Face folder is written
};
// Answers OpenFolders.
struct FoldersOpened {
  static constexpr std::string_view kMessageName = "troupe.FoldersOpened";
  Result<CheckpointFolders> folders;
};
// Answers CommitShards.
struct ShardsCommitted {
  static constexpr std::string_view kMessageName = "troupe.ShardsCommitted";
  Status status{};
  bool moves = false;  // the run ends here, to go on from it with other layers on its ranks
};

using TrainingRef =
    ActorRef<BeginTraining, CancelTraining, OrderChosen, FoldersOpened, ShardsCommitted>;

// ---- schedule actor -> job actor ----------------------------------------------------------------

// Beside these it sends proto::EvalMetrics.
struct StepCommitted {
  static constexpr std::string_view kMessageName = "troupe.StepCommitted";
  proto::StepMetrics metrics{};
  std::vector<proto::Vote> votes{};  // by rank
};
struct TokensSampled {
  static constexpr std::string_view kMessageName = "troupe.TokensSampled";
  std::vector<int32_t> continuation{};
};
// Create the folders that the shards of `step` go to.
struct OpenFolders {
  static constexpr std::string_view kMessageName = "troupe.OpenFolders";
  int64_t step = 0;
};
// Write the manifest and commit the checkpoint, whose shards are all on disk.
struct CommitShards {
  static constexpr std::string_view kMessageName = "troupe.CommitShards";
  TrainingProgress progress{};
  int64_t steps_left = 0;
  std::vector<proto::CheckpointDone> shards{};
};
struct TrainingEnded {
  static constexpr std::string_view kMessageName = "troupe.TrainingEnded";
  Status end{};
  int64_t last_step = 0;
  bool cancelled = false;
};

using JobRef = ActorRef<StepCommitted, proto::EvalMetrics, TokensSampled, OpenFolders, CommitShards,
                        TrainingEnded>;

}  // namespace troupe
