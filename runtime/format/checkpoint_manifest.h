// Checkpoints on disk: checkpoints/step-00000050/ with manifest.json beside the files that it
// names, and checkpoints/latest, a text file that holds the newest folder's name. Used by the
// checkpoint actors (writing) and by the job door (resuming). Pure apart from the FileSystem.
//
// 1. A checkpoint is written in ".step-00000050.partial" and exists from the one rename that
//    commits it: at any crash there is all of it or nothing.
// 2. Tensors are global: any layout resumes from a checkpoint of any other.
// 3. Content is known: a digest (runtime/base/digest.h) of every piece of a tensor, of every file,
//    and of the manifest itself. Manifests of earlier builds have none and are read all the same.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/file_system.h"
#include "runtime/base/result.h"
#include "runtime/format/checkpoint_tensor.h"
#include "runtime/format/content_identity.h"

namespace troupe {

inline constexpr int32_t kCheckpointFormatVersion = 1;

// A whole file, header and all.
struct CheckpointFile {
  int64_t num_bytes = 0;
  uint64_t digest = 0;
  bool operator==(const CheckpointFile&) const = default;
};

struct CheckpointManifest {
  int64_t step = 0;         // steps done
  int64_t next_sample = 0;  // global sample number of the next step's first
  uint64_t seed = 0;
  int32_t gradient_groups = 1;
  std::string job_json;                           // effective JobSpec; opaque here
  CheckpointTensors tensors;                      // by parameter name
  CheckpointTensors optimizer_tensors;            // "<parameter>.exp_avg", …
  std::map<std::string, CheckpointFile> files{};  // by name; empty: of an earlier build
  // Updates that the optimizer's state has seen, where they are not `step`: more if the run took it
  // over, fewer if it skipped steps.
  std::optional<int64_t> optimizer_steps{};
  int64_t skipped_steps = 0;              // steps without an update: none of their labels counted
  std::optional<int64_t> tokens{};        // labels that counted, where not every one did
  std::optional<ContentIdentity> data{};  // that the run trains on
  std::optional<ContentIdentity> init_from{};  // weights that it began with
  // The run went on with other data than it began with (data.allow_change).
  bool data_changed = false;
  // It went on with other gradient groups: one worker cannot repeat its sums from the first step.
  bool groups_changed = false;
  int64_t updates() const { return optimizer_steps.value_or(step); }
  // The optimizer's state began in another run.
  bool took_over_updates() const { return updates() > step - skipped_steps; }
  // Of all tensors, without the files' headers.
  int64_t total_bytes() const;
  bool operator==(const CheckpointManifest&) const = default;
};

std::string ManifestJson(const CheckpointManifest& manifest);
// Refuses, with one sentence, another format version, a missing key, a file name that leaves the
// folder, pieces that are not their tensor, a total that does not agree with the shapes, and what
// its own digest does not fit.
// `path` is for the messages.
Result<CheckpointManifest> ParseManifestJson(std::string_view json, const std::string& path);
Result<CheckpointManifest> ReadManifest(FileSystem& files, const std::string& folder);

std::string CheckpointFolderName(int64_t step);  // "step-00000050"
// ".step-00000050.partial", with an owner ".step-00000050.1f00….partial": two that write the same
// step never write into one folder.
std::string PartialCheckpointFolderName(int64_t step, std::string_view owner = "");
// The step of a committed folder's name; nothing for any other name.
std::optional<int64_t> ParseCheckpointFolderName(std::string_view name);

struct FoundCheckpoint {
  std::string folder;  // path
  CheckpointManifest manifest;
};

// Paths of the committed folders of `checkpoints_dir`, the newest first; none where it does not
// exist. Partial folders never count; `latest` is for people and is not read.
Result<std::vector<std::string>> CommittedCheckpoints(FileSystem& files,
                                                      const std::string& checkpoints_dir);
// The manifest of a folder that is named after its step; refuses one of another step.
Result<FoundCheckpoint> ReadCommittedCheckpoint(FileSystem& files, const std::string& folder);
// The first of those whose manifest can be read. What is passed over is added to `damaged`, where
// that is given: a sentence each.
Result<std::optional<FoundCheckpoint>> FindNewestCheckpoint(
    FileSystem& files, const std::string& checkpoints_dir,
    std::vector<std::string>* damaged = nullptr);

// Makes an empty partial folder for `step` in `checkpoints_dir` and returns its path.
Result<std::string> BeginCheckpoint(FileSystem& files, const std::string& checkpoints_dir,
                                    int64_t step, std::string_view owner = "");

// Commits: writes the manifest into the partial folder of its step, syncs it, renames it to its
// name, syncs the parent, replaces `latest`. The tensor files must be durable before
// (SafetensorsWriter::Finish). A folder of the same step is removed just before the rename: a crash
// between the two falls back to the checkpoint before it. Returns the committed path.
Result<std::string> CommitCheckpoint(FileSystem& files, const std::string& checkpoints_dir,
                                     const CheckpointManifest& manifest,
                                     std::string_view owner = "");

// Removes partial folders, and committed ones beyond the newest `keep` (0: keep all), but never
// `spared` (a path).
Status PruneCheckpoints(FileSystem& files, const std::string& checkpoints_dir, int keep,
                        const std::string& spared = "");

// Moves the committed folders of steps above `step`, which a run that starts from `step` leaves
// behind, into "abandoned-1" (the first free number) of `checkpoints_dir` and returns its path; or
// an empty string where there is none. Neither pruning nor FindNewestCheckpoint looks in there; a
// person may resume from it by its path.
Result<std::string> SetAsideCheckpointsAfter(FileSystem& files, const std::string& checkpoints_dir,
                                             int64_t step);

}  // namespace troupe
