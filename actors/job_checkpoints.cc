#include "actors/job_checkpoints.h"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>

#include <memory>
#include <utility>

#include "actors/checkpoint_store.h"
#include "actors/stage_set.h"

namespace troupe {

Result<std::string> JobCheckpoints::StartFrom(int64_t step) {
  RETURN_IF_ERROR(PutFormerExportBack());
  ASSIGN_OR_RETURN(const std::string aside, SetAsideCheckpointsAfter(files_, Folder(), step));
  if (aside.empty()) return std::string();
  return fmt::format(
      "this run starts from step {}: the later checkpoints of its folder are now in {}, which "
      "stays until you remove it",
      step, aside);
}

Result<CheckpointFolders> JobCheckpoints::Open(int64_t step) {
  open_step_ = step;
  CheckpointFolders folders;
  ASSIGN_OR_RETURN(folders.checkpoint, BeginCheckpoint(files_, Folder(), step));
  if (!start_.spec().checkpoint().save_hf()) return folders;
  folders.exported = PartialHfFolder();
  RETURN_IF_ERROR(PutFormerExportBack());
  RETURN_IF_ERROR(files_.RemoveAll(folders.exported));
  RETURN_IF_ERROR(files_.CreateDirectories(folders.exported));
  return folders;
}

Result<proto::CheckpointCommitted> JobCheckpoints::Commit(
    int64_t step, const std::vector<proto::CheckpointDone>& shards) {
  const proto::JobSpec& spec = start_.spec();
  CheckpointManifest manifest{.step = step,
                              .next_sample = step * plan_.batch.global_batch_size,
                              .seed = static_cast<uint64_t>(spec.train().seed()),
                              .gradient_groups = plan_.batch.gradient_groups};
  if (!google::protobuf::util::MessageToJsonString(spec, &manifest.job_json).ok()) {
    return MakeError(ErrorCode::kFailed, "the job cannot be written as JSON");
  }
  for (const auto& shard : shards) RETURN_IF_ERROR(AddToManifest(plan_.table, shard, manifest));
  RETURN_IF_ERROR(CheckWhole(plan_.table, manifest));
  ASSIGN_OR_RETURN(newest_, CommitCheckpoint(files_, Folder(), manifest));
  RETURN_IF_ERROR(PruneCheckpoints(files_, Folder(), spec.checkpoint().keep()));
  proto::CheckpointCommitted committed;
  committed.set_step(step);
  committed.set_directory(newest_);
  if (spec.checkpoint().save_hf()) {
    RETURN_IF_ERROR(Export(shards));
    committed.set_hf_directory(HfFolder());
  }
  open_step_.reset();
  return committed;
}

Status JobCheckpoints::Export(const std::vector<proto::CheckpointDone>& shards) {
  RETURN_IF_ERROR(WriteHfFolder(files_, PartialHfFolder(), start_.world_size(),
                                DTypeOfJob(start_.spec()), plan_.config, plan_.table, shards));
  // A rename does not replace a folder that is not empty.
  if (files_.Exists(HfFolder())) {
    RETURN_IF_ERROR(files_.RemoveAll(FormerHfFolder()));
    RETURN_IF_ERROR(files_.Rename(HfFolder(), FormerHfFolder()));
  }
  if (Status renamed = files_.Rename(PartialHfFolder(), HfFolder()); !renamed.ok()) {
    (void)files_.Rename(FormerHfFolder(), HfFolder());
    return renamed;
  }
  RETURN_IF_ERROR(files_.SyncDirectory(start_.run_directory()));
  (void)files_.RemoveAll(FormerHfFolder());  // else the next export removes it
  return {};
}

// A process that ended between the two renames of Export left the former one alone.
Status JobCheckpoints::PutFormerExportBack() {
  if (files_.Exists(HfFolder()) || !files_.Exists(FormerHfFolder())) return {};
  return files_.Rename(FormerHfFolder(), HfFolder());
}

// Best effort: the job ends with the error of the checkpoint.
void JobCheckpoints::Abandon() {
  if (!open_step_) return;
  (void)files_.RemoveAll(JoinPath(Folder(), PartialCheckpointFolderName(*open_step_)));
  (void)files_.RemoveAll(PartialHfFolder());
  open_step_.reset();
}

void AddCheckpoints(JobReports& reports, JobCheckpoints& checkpoints, Stream& stream,
                    const ScheduleActor::SelfRef& schedule,
                    std::function<void(const proto::CheckpointCommitted&)> on_committed) {
  reports.open_checkpoint = [&checkpoints, &stream, &schedule](int64_t step) {
    auto opened = std::make_shared<FoldersOpened>(FoldersOpened{CheckpointFolders{}});
    stream.Launch(
        [&checkpoints, opened, step] { opened->folders = checkpoints.Open(step); },
        [&schedule, opened](const WorkTime&) { (void)schedule.Send(std::move(*opened)); });
  };
  reports.commit_checkpoint = [&checkpoints, &stream, &schedule,
                               on_committed = std::move(on_committed)](
                                  int64_t step, std::vector<proto::CheckpointDone> shards) {
    auto committed =
        std::make_shared<Result<proto::CheckpointCommitted>>(proto::CheckpointCommitted{});
    stream.Launch([&checkpoints, committed, step,
                   shards = std::move(shards)] { *committed = checkpoints.Commit(step, shards); },
                  [&schedule, committed, on_committed](const WorkTime&) {
                    if (!committed->ok()) {
                      (void)schedule.Send(ShardsCommitted{std::move(*committed).error()});
                      return;
                    }
                    on_committed(**committed);
                    (void)schedule.Send(ShardsCommitted{});
                  });
  };
}

}  // namespace troupe
