// JobCheckpoints: the folders of a job's checkpoints and of its exported model, kept by rank 0
// while every rank writes its shard: opened before, committed by one rename after. Used by the job
// actor. Thread: the compute stream's, which is idle between steps; a disk that stands still must
// not keep a rank from being heard.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "actors/job_messages.h"
#include "actors/plan/job_plan.h"
#include "actors/run_content.h"
#include "proto/worker.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/format/checkpoint_manifest.h"

namespace troupe {

class JobCheckpoints {
 public:
  // All outlive this but `content`.
  JobCheckpoints(FileSystem& files, const proto::StartRank& start, const JobPlan& plan,
                 RunContent content = {})
      : files_(files), start_(start), plan_(plan), content_(content) {}

  // Takes the folder over from whoever wrote there before: from now on an earlier start of the job
  // that is still alive commits and removes nothing there (kStale).
  // Moves the checkpoints that a run from `step` leaves behind out of its way (0: a fresh run).
  // Returns a sentence that says so, or an empty one where there are none. Nothing here removes
  // them: of a run that was started anew by mistake they are the best that there is.
  Result<std::string> StartFrom(int64_t step);
  // Where the shards of `step` go, created and uncommitted. No checkpoint where the run goes on
  // from that very one: then there is at most an export to write.
  Result<CheckpointFolders> Open(int64_t step);
  // Writes the manifest, commits, drops what checkpoint.keep no longer covers, and puts the new
  // export in the place of the one before. Refuses shards that are not the whole model.
  Result<proto::CheckpointCommitted> Commit(const TrainingProgress& progress,
                                            const std::vector<proto::CheckpointDone>& shards);

  // Removes what an open step has written, so that a checkpoint that failed leaves no bytes.
  void Abandon();

  const std::string& newest() const { return newest_; }  // committed by this run; or empty

 private:
  Result<CheckpointManifest> ManifestOf(const TrainingProgress& progress,
                                        const std::vector<proto::CheckpointDone>& shards) const;
  Status Export();
  Status RemovePartialExports();
  bool IsCommitted(int64_t step) const;
  Status PutFormerExportBack();
  std::string Folder() const { return JoinPath(start_.run_directory(), "checkpoints"); }
  std::string HfFolder() const { return JoinPath(start_.run_directory(), "hf"); }
  // Where the export before lies while its name changes hands.
  std::string FormerHfFolder() const { return JoinPath(start_.run_directory(), ".hf.former"); }
  std::string PartialHfFolder() const;

  FileSystem& files_;
  const proto::StartRank& start_;
  const JobPlan& plan_;
  const RunContent content_;
  std::optional<int64_t> open_step_{};
  std::string newest_{};
};

}  // namespace troupe
