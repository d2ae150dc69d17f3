#include "actors/job_checkpoints.h"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>

#include <utility>

#include "actors/checkpoint_store.h"
#include "actors/stage_set.h"
#include "runtime/base/digest.h"
#include "runtime/format/checkpoint_owner.h"

namespace troupe {

Result<std::string> JobCheckpoints::StartFrom(int64_t step) {
  RETURN_IF_ERROR(TakeOwnership(files_, Folder(), start_.owner()));
  RETURN_IF_ERROR(PutFormerExportBack());
  ASSIGN_OR_RETURN(const std::string aside, SetAsideCheckpointsAfter(files_, Folder(), step));
  if (aside.empty()) return std::string();
  return fmt::format(
      "this run starts from step {}: the later checkpoints of its folder are now in {}, which "
      "stays until you remove it",
      step, aside);
}

bool JobCheckpoints::IsCommitted(int64_t step) const {
  return !start_.resume_from().empty() &&
         start_.resume_from() == JoinPath(Folder(), CheckpointFolderName(step));
}

Result<CheckpointFolders> JobCheckpoints::Open(int64_t step) {
  CheckpointFolders folders;
  if (!IsCommitted(step)) {
    open_step_ = step;
    ASSIGN_OR_RETURN(folders.checkpoint, BeginCheckpoint(files_, Folder(), step, start_.owner()));
  }
  if (!start_.spec().checkpoint().save_hf()) return folders;
  open_step_ = step;
  folders.exported = PartialHfFolder();
  RETURN_IF_ERROR(PutFormerExportBack());
  RETURN_IF_ERROR(RemovePartialExports());
  RETURN_IF_ERROR(files_.CreateDirectories(folders.exported));
  return folders;
}

Result<CheckpointManifest> JobCheckpoints::ManifestOf(
    const TrainingProgress& progress, const std::vector<proto::CheckpointDone>& shards) const {
  const proto::JobSpec& spec = start_.spec();
  CheckpointManifest manifest{.step = progress.step,
                              .next_sample = progress.step * plan_.batch.global_batch_size,
                              .seed = static_cast<uint64_t>(spec.train().seed()),
                              .gradient_groups = plan_.batch.gradient_groups,
                              .skipped_steps = progress.skipped_steps,
                              .data = content_.data,
                              .init_from = content_.init_from,
                              .data_changed = content_.data_changed,
                              .groups_changed = content_.groups_changed};
  if (progress.updates != progress.step) manifest.optimizer_steps = progress.updates;
  if (progress.tokens != progress.step * plan_.batch.tokens_per_step()) {
    manifest.tokens = progress.tokens;
  }
  if (!google::protobuf::util::MessageToJsonString(spec, &manifest.job_json).ok()) {
    return MakeError(ErrorCode::kFailed, "the job cannot be written as JSON");
  }
  for (const auto& shard : shards) RETURN_IF_ERROR(AddToManifest(plan_.table, shard, manifest));
  RETURN_IF_ERROR(CheckWhole(plan_.table, manifest));
  return manifest;
}

Result<proto::CheckpointCommitted> JobCheckpoints::Commit(
    const TrainingProgress& progress, const std::vector<proto::CheckpointDone>& shards) {
  RETURN_IF_ERROR(CheckOwner(files_, Folder(), start_.owner()));
  const proto::Checkpoint& options = start_.spec().checkpoint();
  if (IsCommitted(progress.step)) {
    newest_ = start_.resume_from();
  } else {
    ASSIGN_OR_RETURN(const CheckpointManifest manifest, ManifestOf(progress, shards));
    ASSIGN_OR_RETURN(newest_, CommitCheckpoint(files_, Folder(), manifest, start_.owner()));
    RETURN_IF_ERROR(CheckOwner(files_, Folder(), start_.owner()));
    RETURN_IF_ERROR(PruneCheckpoints(files_, Folder(), options.keep(), start_.reference_start()));
  }
  proto::CheckpointCommitted committed;
  committed.set_step(progress.step);
  committed.set_directory(newest_);
  if (options.save_hf()) {
    RETURN_IF_ERROR(Export());
    committed.set_hf_directory(HfFolder());
  }
  open_step_.reset();
  return committed;
}

Status JobCheckpoints::Export() {
  RETURN_IF_ERROR(WriteHfFolder(files_, PartialHfFolder(), plan_.mesh.extent(Axis::kPp),
                                DTypeOfJob(start_.spec()), plan_.config, plan_.table,
                                plan_.ExportedBy()));
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

std::string JobCheckpoints::PartialHfFolder() const {
  if (start_.owner().empty()) return JoinPath(start_.run_directory(), ".hf.partial");
  return JoinPath(start_.run_directory(),
                  fmt::format(".hf.{}.partial", DigestText(DigestOf(BytesOf(start_.owner())))));
}

// Also those of earlier starts that did not get to the end of theirs.
Status JobCheckpoints::RemovePartialExports() {
  RETURN_IF_ERROR(CheckOwner(files_, Folder(), start_.owner()));
  ASSIGN_OR_RETURN(const auto names, files_.List(start_.run_directory()));
  for (const std::string& name : names) {
    if (!name.starts_with(".hf.") || !name.ends_with(".partial")) continue;
    RETURN_IF_ERROR(files_.RemoveAll(JoinPath(start_.run_directory(), name)));
  }
  return {};
}

// Best effort: the job ends with the error of the checkpoint.
void JobCheckpoints::Abandon() {
  if (!open_step_) return;
  (void)files_.RemoveAll(
      JoinPath(Folder(), PartialCheckpointFolderName(*open_step_, start_.owner())));
  (void)files_.RemoveAll(PartialHfFolder());
  open_step_.reset();
}

}  // namespace troupe
