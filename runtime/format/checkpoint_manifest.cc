#include "runtime/format/checkpoint_manifest.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "runtime/base/digest.h"
#include "runtime/format/json_reader.h"
#include "runtime/format/metrics_file.h"

namespace troupe {
namespace {

using nlohmann::json;

constexpr std::string_view kManifestName = "manifest.json";
constexpr std::string_view kLatestName = "latest";
constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kAbandonedPrefix = "abandoned-";
constexpr int64_t kManifestMaxBytes = 100'000'000;
constexpr JsonBounds kManifestBounds{.max_depth = 6, .max_values = 8'000'000};

// Bytes of all tensors of both maps; nothing where that exceeds 63 bits.
std::optional<int64_t> SumBytes(const CheckpointManifest& manifest) {
  int64_t total = 0;
  for (const CheckpointTensors* tensors : {&manifest.tensors, &manifest.optimizer_tensors}) {
    for (const auto& [name, tensor] : *tensors) {
      const auto num_elements = NumElements(tensor);
      if (!num_elements) return std::nullopt;
      const int64_t num_bytes = *num_elements * TensorDtypeBytes(tensor.dtype);
      if (__builtin_add_overflow(total, num_bytes, &total)) return std::nullopt;
    }
  }
  return total;
}

// Size and digest, as files and identities of content have them.
std::string SizedText(int64_t num_bytes, uint64_t digest) {
  return JsonLine().Add("bytes", num_bytes).Add(kDigestKey, DigestText(digest)).Text();
}

std::string FilesText(const std::map<std::string, CheckpointFile>& files) {
  JsonLine all;
  for (const auto& [name, file] : files) {
    all.AddJson(name, SizedText(file.num_bytes, file.digest));
  }
  return all.Text();
}

Result<CheckpointFile> ReadSized(const json& value, const std::string& place) {
  if (!value.is_object()) return MakeError(ErrorCode::kCorrupt, "{}: not an object", place);
  const JsonFields fields(value, place);
  CheckpointFile file;
  RETURN_IF_ERROR(fields.Require("bytes", &file.num_bytes));
  if (file.num_bytes < 0) return fields.Wrong("bytes", "0 or more");
  ASSIGN_OR_RETURN(const auto digest, ReadDigest(fields));
  if (!digest) return fields.Missing(kDigestKey);
  file.digest = *digest;
  return file;
}

Status ReadIdentity(const JsonFields& fields, std::string_view key, const std::string& path,
                    std::optional<ContentIdentity>* out) {
  const json* value = fields.Member(key);
  if (value == nullptr) return {};
  ASSIGN_OR_RETURN(const CheckpointFile sized, ReadSized(*value, fmt::format("{}: {}", path, key)));
  *out = ContentIdentity{sized.num_bytes, sized.digest};
  return {};
}

Status ReadFiles(const JsonFields& fields, const std::string& path,
                 std::map<std::string, CheckpointFile>* files) {
  if (fields.Member("files") == nullptr) return {};
  ASSIGN_OR_RETURN(const json* object, fields.RequireObject("files"));
  for (const auto& [name, value] : object->items()) {
    if (!IsTensorFileName(name)) {
      return fields.Wrong("files", "names of .safetensors files beside the manifest");
    }
    ASSIGN_OR_RETURN((*files)[name],
                     ReadSized(value, fmt::format("{}: files {}", path, Quoted(name))));
  }
  return {};
}

// All but its own digest.
JsonLine ManifestBody(const CheckpointManifest& manifest) {
  JsonLine line;
  line.Add("format_version", kCheckpointFormatVersion)
      .Add("step", manifest.step)
      .Add("next_sample", manifest.next_sample)
      // A string: readers of JSON keep 53 bits of a number.
      .Add("seed", fmt::format("{}", manifest.seed))
      .Add("gradient_groups", manifest.gradient_groups)
      .Add("total_bytes", manifest.total_bytes())
      .Add("job", manifest.job_json)
      .AddJson("tensors", TensorsText(manifest.tensors))
      .AddJson("optimizer_tensors", TensorsText(manifest.optimizer_tensors));
  if (!manifest.files.empty()) line.AddJson("files", FilesText(manifest.files));
  if (manifest.optimizer_steps) line.Add("optimizer_steps", *manifest.optimizer_steps);
  if (manifest.data) {
    line.AddJson("data", SizedText(manifest.data->num_bytes, manifest.data->digest));
  }
  if (manifest.init_from) {
    line.AddJson("init_from", SizedText(manifest.init_from->num_bytes, manifest.init_from->digest));
  }
  if (manifest.data_changed) line.Add("data_changed", true);
  if (manifest.groups_changed) line.Add("groups_changed", true);
  if (manifest.skipped_steps > 0) line.Add("skipped_steps", manifest.skipped_steps);
  if (manifest.tokens) line.Add("tokens", *manifest.tokens);
  return line;
}

// Of what the manifest says, in our own words: spaces and the order of keys do not count.
uint64_t DigestOfManifest(const CheckpointManifest& manifest) {
  return DigestOf(BytesOf(ManifestBody(manifest).Text()));
}

// An earlier build's has no digest anywhere; then nothing can be checked.
Status CheckManifestDigest(const JsonFields& fields, const CheckpointManifest& manifest,
                           const std::string& path) {
  ASSIGN_OR_RETURN(const auto digest, ReadDigest(fields));
  if (!digest && manifest.files.empty()) return {};
  if (digest && *digest == DigestOfManifest(manifest)) return {};
  return MakeError(ErrorCode::kCorrupt,
                   "{}: it is damaged: what it says does not fit its own digest", path);
}

// Keys that manifests of earlier builds do not have.
Status ReadNewerKeys(const JsonFields& fields, const std::string& path,
                     CheckpointManifest& manifest) {
  RETURN_IF_ERROR(ReadFiles(fields, path, &manifest.files));
  if (fields.Member("optimizer_steps") != nullptr) {
    RETURN_IF_ERROR(fields.Read("optimizer_steps", &manifest.optimizer_steps.emplace()));
    if (*manifest.optimizer_steps < 0) return fields.Wrong("optimizer_steps", "0 or more");
  }
  RETURN_IF_ERROR(ReadIdentity(fields, "data", path, &manifest.data));
  RETURN_IF_ERROR(ReadIdentity(fields, "init_from", path, &manifest.init_from));
  RETURN_IF_ERROR(fields.Read("skipped_steps", &manifest.skipped_steps));
  if (manifest.skipped_steps < 0 || manifest.skipped_steps > manifest.step) {
    return fields.Wrong("skipped_steps", "0 to step");
  }
  if (fields.Member("tokens") != nullptr) {
    RETURN_IF_ERROR(fields.Read("tokens", &manifest.tokens.emplace()));
    if (*manifest.tokens < 0) return fields.Wrong("tokens", "0 or more");
  }
  RETURN_IF_ERROR(fields.Read("groups_changed", &manifest.groups_changed));
  return fields.Read("data_changed", &manifest.data_changed);
}

// Steps of the committed folders in `checkpoints_dir`, the highest first.
Result<std::vector<int64_t>> CommittedSteps(FileSystem& files, const std::string& checkpoints_dir) {
  std::vector<int64_t> steps;
  if (!files.Exists(checkpoints_dir)) return steps;
  ASSIGN_OR_RETURN(const auto names, files.List(checkpoints_dir));
  for (const std::string& name : names) {
    if (const auto step = ParseCheckpointFolderName(name)) steps.push_back(*step);
  }
  std::ranges::sort(steps, std::greater());
  return steps;
}

}  // namespace

int64_t CheckpointManifest::total_bytes() const {
  const auto total = SumBytes(*this);
  CHECK(total, "a checkpoint beyond 63 bits");
  return *total;
}

std::string ManifestJson(const CheckpointManifest& manifest) {
  JsonLine body = ManifestBody(manifest);
  body.Add(kDigestKey, DigestText(DigestOfManifest(manifest)));
  return body.Text() + "\n";
}

Result<CheckpointManifest> ParseManifestJson(std::string_view text, const std::string& path) {
  ASSIGN_OR_RETURN(const json document, ParseJson(text, path, kManifestBounds));
  if (!document.is_object()) return MakeError(ErrorCode::kCorrupt, "{}: not an object", path);
  const JsonFields fields(document, path);
  int32_t version = 0;
  RETURN_IF_ERROR(fields.Require("format_version", &version));
  if (version != kCheckpointFormatVersion) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: format version {}; this build reads {}, use the build that wrote it",
                     path, version, kCheckpointFormatVersion);
  }
  CheckpointManifest manifest;
  RETURN_IF_ERROR(fields.Require("step", &manifest.step));
  RETURN_IF_ERROR(fields.Require("next_sample", &manifest.next_sample));
  if (manifest.step < 0) return fields.Wrong("step", "0 or more");
  if (manifest.next_sample < 0) return fields.Wrong("next_sample", "0 or more");
  std::string seed;
  RETURN_IF_ERROR(fields.Require("seed", &seed));
  const char* const seed_end = seed.data() + seed.size();
  const auto [end, error] = std::from_chars(seed.data(), seed_end, manifest.seed);
  if (error != std::errc() || end != seed_end) {
    return fields.Wrong("seed", "a decimal number of at most 64 bits, as a string");
  }
  RETURN_IF_ERROR(fields.Require("gradient_groups", &manifest.gradient_groups));
  if (manifest.gradient_groups < 1) return fields.Wrong("gradient_groups", "1 or more");
  RETURN_IF_ERROR(fields.Require("job", &manifest.job_json));
  ASSIGN_OR_RETURN(manifest.tensors, ReadTensors(fields, "tensors", path));
  ASSIGN_OR_RETURN(manifest.optimizer_tensors, ReadTensors(fields, "optimizer_tensors", path));
  int64_t total_bytes = 0;
  RETURN_IF_ERROR(fields.Require("total_bytes", &total_bytes));
  if (SumBytes(manifest) != total_bytes) {
    return fields.Wrong("total_bytes", "what the shapes add up to");
  }
  RETURN_IF_ERROR(ReadNewerKeys(fields, path, manifest));
  RETURN_IF_ERROR(CheckManifestDigest(fields, manifest, path));
  return manifest;
}

Result<CheckpointManifest> ReadManifest(FileSystem& files, const std::string& folder) {
  const std::string path = JoinPath(folder, kManifestName);
  ASSIGN_OR_RETURN(const std::string text, files.ReadFile(path, kManifestMaxBytes));
  return ParseManifestJson(text, path);
}

std::string CheckpointFolderName(int64_t step) { return fmt::format("{}{:08}", kPrefix, step); }

std::string PartialCheckpointFolderName(int64_t step, std::string_view owner) {
  const std::string mark = owner.empty() ? "" : "." + DigestText(DigestOf(BytesOf(owner)));
  return fmt::format(".{}{}.partial", CheckpointFolderName(step), mark);
}

std::optional<int64_t> ParseCheckpointFolderName(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const std::string_view digits = name.substr(kPrefix.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  // Only the very name that a checkpoint of this step gets: no sign, no other padding.
  if (error != std::errc() || step < 0 || CheckpointFolderName(step) != name) return std::nullopt;
  return step;
}

Result<std::vector<std::string>> CommittedCheckpoints(FileSystem& files,
                                                      const std::string& checkpoints_dir) {
  ASSIGN_OR_RETURN(const auto steps, CommittedSteps(files, checkpoints_dir));
  std::vector<std::string> folders;
  for (const int64_t step : steps) {
    folders.push_back(JoinPath(checkpoints_dir, CheckpointFolderName(step)));
  }
  return folders;
}

Result<FoundCheckpoint> ReadCommittedCheckpoint(FileSystem& files, const std::string& folder) {
  ASSIGN_OR_RETURN(CheckpointManifest manifest, ReadManifest(files, folder));
  const auto step = ParseCheckpointFolderName(folder.substr(folder.rfind('/') + 1));
  if (step && *step != manifest.step) {
    return MakeError(ErrorCode::kCorrupt, "{}: its manifest is of step {}", folder, manifest.step);
  }
  return FoundCheckpoint{folder, std::move(manifest)};
}

Result<std::optional<FoundCheckpoint>> FindNewestCheckpoint(FileSystem& files,
                                                            const std::string& checkpoints_dir,
                                                            std::vector<std::string>* damaged) {
  ASSIGN_OR_RETURN(const auto folders, CommittedCheckpoints(files, checkpoints_dir));
  for (const std::string& folder : folders) {
    auto found = ReadCommittedCheckpoint(files, folder);
    if (found.ok()) return std::optional(*std::move(found));
    if (damaged != nullptr) damaged->push_back(found.error().message);
  }
  return std::optional<FoundCheckpoint>();
}

Result<std::string> BeginCheckpoint(FileSystem& files, const std::string& checkpoints_dir,
                                    int64_t step, std::string_view owner) {
  const std::string folder = JoinPath(checkpoints_dir, PartialCheckpointFolderName(step, owner));
  RETURN_IF_ERROR(files.RemoveAll(folder));
  RETURN_IF_ERROR(files.CreateDirectories(folder));
  return folder;
}

Result<std::string> CommitCheckpoint(FileSystem& files, const std::string& checkpoints_dir,
                                     const CheckpointManifest& manifest, std::string_view owner) {
  const std::string name = CheckpointFolderName(manifest.step);
  const std::string partial =
      JoinPath(checkpoints_dir, PartialCheckpointFolderName(manifest.step, owner));
  const std::string folder = JoinPath(checkpoints_dir, name);
  // Syncs the partial folder too, and with it the names of the tensor files.
  RETURN_IF_ERROR(
      WriteFileAtomically(files, JoinPath(partial, kManifestName), ManifestJson(manifest)));
  // A rename does not replace a folder that is not empty.
  RETURN_IF_ERROR(files.RemoveAll(folder));
  RETURN_IF_ERROR(files.Rename(partial, folder));
  RETURN_IF_ERROR(files.SyncDirectory(checkpoints_dir));
  RETURN_IF_ERROR(WriteFileAtomically(files, JoinPath(checkpoints_dir, kLatestName), name + "\n"));
  return folder;
}

Status PruneCheckpoints(FileSystem& files, const std::string& checkpoints_dir, int keep,
                        const std::string& spared) {
  if (!files.Exists(checkpoints_dir)) return {};
  ASSIGN_OR_RETURN(const auto names, files.List(checkpoints_dir));
  for (const std::string& name : names) {
    if (!name.starts_with(".step-") || !name.ends_with(".partial")) continue;
    RETURN_IF_ERROR(files.RemoveAll(JoinPath(checkpoints_dir, name)));
  }
  ASSIGN_OR_RETURN(const auto steps, CommittedSteps(files, checkpoints_dir));
  for (size_t i = static_cast<size_t>(keep); keep > 0 && i < steps.size(); ++i) {
    const std::string folder = JoinPath(checkpoints_dir, CheckpointFolderName(steps[i]));
    if (folder != spared) RETURN_IF_ERROR(files.RemoveAll(folder));
  }
  return {};
}

Result<std::string> SetAsideCheckpointsAfter(FileSystem& files, const std::string& checkpoints_dir,
                                             int64_t step) {
  ASSIGN_OR_RETURN(auto steps, CommittedSteps(files, checkpoints_dir));
  const auto kept = std::ranges::find_if(steps, [step](int64_t s) { return s <= step; });
  if (kept == steps.begin()) return std::string();
  std::string aside;
  for (int number = 1; aside.empty() || files.Exists(aside); ++number) {
    aside = JoinPath(checkpoints_dir, fmt::format("{}{}", kAbandonedPrefix, number));
  }
  RETURN_IF_ERROR(files.CreateDirectories(aside));
  for (auto abandoned = steps.begin(); abandoned != kept; ++abandoned) {
    const std::string name = CheckpointFolderName(*abandoned);
    RETURN_IF_ERROR(files.Rename(JoinPath(checkpoints_dir, name), JoinPath(aside, name)));
  }
  RETURN_IF_ERROR(files.SyncDirectory(aside));
  RETURN_IF_ERROR(files.SyncDirectory(checkpoints_dir));
  const std::string latest = JoinPath(checkpoints_dir, kLatestName);
  RETURN_IF_ERROR(kept == steps.end()
                      ? files.RemoveAll(latest)
                      : WriteFileAtomically(files, latest, CheckpointFolderName(*kept) + "\n"));
  return aside;
}

}  // namespace troupe
