#include "coordinator/cli/ckpt_command.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include <nlohmann/json.hpp>

#include "coordinator/cli/answer.h"
#include "runtime/base/bytes_in_words.h"
#include "runtime/base/digest.h"
#include "runtime/base/talk.h"
#include "runtime/format/checkpoint_reader.h"

namespace troupe {
namespace {

using Json = nlohmann::ordered_json;

// The newest first.
Result<std::vector<std::string>> Folders(const std::string& given) {
  FileSystem& files = SystemFiles();
  // What it is called decides whether its step is checked: no "." or trailing slash.
  std::string path = std::filesystem::absolute(given).lexically_normal().string();
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  if (files.Exists(JoinPath(path, "manifest.json"))) return std::vector<std::string>{path};
  for (const std::string& parent : {JoinPath(path, "checkpoints"), path}) {
    ASSIGN_OR_RETURN(auto folders, CommittedCheckpoints(files, parent));
    if (!folders.empty()) return folders;
  }
  return MakeError(ErrorCode::kNotFound,
                   "{}: there is no committed checkpoint: give the folder of one "
                   "(…/checkpoints/step-…), or of a run that has one",
                   given);
}

// Returns the exit code of the printing.
int Print(const Json& rows, const std::string& text, OutputFormat format) {
  const auto dumped = [](const Json& json, int indent) {
    return json.dump(indent, ' ', false, Json::error_handler_t::replace) + "\n";
  };
  if (format == OutputFormat::kText) return PrintAnswer(text);
  if (format == OutputFormat::kJson) return PrintAnswer(dumped(rows, 2));
  if (!rows.is_array()) return PrintAnswer(dumped(rows, -1));
  std::string lines;
  for (const Json& row : rows) lines += dumped(row, -1);
  return PrintAnswer(lines);
}

std::string Words(int64_t num_bytes) { return BytesInWords(static_cast<double>(num_bytes)); }

size_t NumTensors(const CheckpointManifest& manifest) {
  return manifest.tensors.size() + manifest.optimizer_tensors.size();
}

Json IdentityJson(const ContentIdentity& content) {
  return {{"bytes", content.num_bytes}, {"xxh3", DigestText(content.digest)}};
}

Json PieceJson(const CheckpointPiece& piece) {
  Json json = {{"file", piece.file},
               {"first_element", piece.first_element},
               {"num_elements", piece.num_elements}};
  if (piece.digest) json["xxh3"] = DigestText(*piece.digest);
  return json;
}

Json TensorsJson(const CheckpointTensors& tensors) {
  Json rows = Json::array();
  for (const auto& [name, tensor] : tensors) {
    Json row = {{"name", name}, {"dtype", TensorDtypeName(tensor.dtype)}, {"shape", tensor.shape}};
    if (tensor.pieces.size() == 1) {  // the whole
      row["file"] = tensor.pieces.front().file;
      if (tensor.pieces.front().digest) row["xxh3"] = DigestText(*tensor.pieces.front().digest);
    } else {
      for (const CheckpointPiece& piece : tensor.pieces) row["pieces"].push_back(PieceJson(piece));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

Json ManifestAsJson(const FoundCheckpoint& found) {
  const CheckpointManifest& manifest = found.manifest;
  Json json = {{"path", found.folder},
               {"step", manifest.step},
               {"next_sample", manifest.next_sample},
               {"optimizer_updates", manifest.updates()},
               {"seed", manifest.seed},
               {"gradient_groups", manifest.gradient_groups},
               {"bytes", manifest.total_bytes()},
               {"has_digests", !manifest.files.empty()}};
  if (manifest.data) json["data"] = IdentityJson(*manifest.data);
  if (manifest.init_from) json["init_from"] = IdentityJson(*manifest.init_from);
  json["tensors"] = TensorsJson(manifest.tensors);
  json["optimizer_tensors"] = TensorsJson(manifest.optimizer_tensors);
  json["job"] = Json::parse(manifest.job_json, nullptr, /*allow_exceptions=*/false);
  return json;
}

std::string ManifestText(const FoundCheckpoint& found) {
  const CheckpointManifest& manifest = found.manifest;
  std::string text = fmt::format(
      "{}\n  step        {}, next sample {}, {} updates of the optimizer\n"
      "  seed        {}, {} gradient group{}\n  size        {} in {} tensors\n",
      found.folder, manifest.step, manifest.next_sample, manifest.updates(), manifest.seed,
      manifest.gradient_groups, manifest.gradient_groups == 1 ? "" : "s",
      Words(manifest.total_bytes()), NumTensors(manifest));
  const auto add = [&text](const char* name, const std::optional<ContentIdentity>& content) {
    if (!content) return;
    text += fmt::format("  {:<11} {} bytes, xxh3 {}\n", name, content->num_bytes,
                        DigestText(content->digest));
  };
  add("data", manifest.data);
  add("init_from", manifest.init_from);
  if (manifest.files.empty()) text += "  digests     none: an earlier build wrote it\n";
  for (const auto& [name, file] : manifest.files) {
    text += fmt::format("  {}  {:>10}  {}\n", DigestText(file.digest), Words(file.num_bytes), name);
  }
  for (const auto& [name, tensor] : manifest.tensors) {
    const size_t pieces = tensor.pieces.size();
    text += fmt::format("  {:<44} {:<4} [{}]{}\n", name, TensorDtypeName(tensor.dtype),
                        fmt::join(tensor.shape, ", "),
                        pieces == 1 ? "" : fmt::format(" in {} pieces", pieces));
  }
  return text;
}

}  // namespace

int VerifyCheckpoints(const CkptCommand& command) {
  const auto folders = Folders(command.path);
  if (!folders.ok()) return Fail(folders.error());
  Json rows = Json::array();
  std::string text;
  int exit_code = 0;
  for (const std::string& folder : *folders) {
    auto report = CheckCheckpoint(SystemFiles(), folder);
    std::vector<std::string> damage;
    if (report.ok()) {
      damage = report->damage;
    } else {
      damage.push_back(report.error().message);
    }
    const char* state = !damage.empty() ? "damaged" : report->has_digests ? "whole" : "unverified";
    if (!damage.empty()) exit_code = 1;
    rows.push_back({{"path", folder}, {"state", state}, {"damage", damage}});
    text += fmt::format("{}: {}", folder, state);
    if (damage.empty()) {
      text += fmt::format(", {} tensors, {}", NumTensors(report->manifest),
                          Words(report->manifest.total_bytes()));
      if (!report->has_digests) text += ", without digests: an earlier build wrote it";
    }
    text += "\n";
    for (const std::string& sentence : damage) text += fmt::format("  {}\n", sentence);
  }
  return std::max(exit_code, Print(rows, text, command.output));
}

int ListCheckpoints(const CkptCommand& command) {
  const auto folders = Folders(command.path);
  if (!folders.ok()) return Fail(folders.error());
  Json rows = Json::array();
  std::string text =
      fmt::format("{:>10} {:>8} {:>11} {:<8} {}\n", "STEP", "TENSORS", "SIZE", "DIGESTS", "PATH");
  int exit_code = 0;
  for (const std::string& folder : *folders) {
    const auto found = ReadCommittedCheckpoint(SystemFiles(), folder);
    if (!found.ok()) {
      exit_code = 1;
      rows.push_back({{"path", folder}, {"damage", found.error().message}});
      text += fmt::format("{:>10} {}\n", "damaged", found.error().message);
      continue;
    }
    const CheckpointManifest& manifest = found->manifest;
    const bool has_digests = !manifest.files.empty();
    rows.push_back({{"path", folder},
                    {"step", manifest.step},
                    {"tensors", NumTensors(manifest)},
                    {"bytes", manifest.total_bytes()},
                    {"has_digests", has_digests}});
    text += fmt::format("{:>10} {:>8} {:>11} {:<8} {}\n", manifest.step, NumTensors(manifest),
                        Words(manifest.total_bytes()), has_digests ? "yes" : "no", folder);
  }
  return std::max(exit_code, Print(rows, text, command.output));
}

int ShowCheckpoint(const CkptCommand& command) {
  const auto folders = Folders(command.path);
  if (!folders.ok()) return Fail(folders.error());
  const auto found = ReadCommittedCheckpoint(SystemFiles(), folders->front());
  if (!found.ok()) {
    Talk("{}\n", found.error().message);
    return 1;
  }
  return Print(ManifestAsJson(*found), ManifestText(*found), command.output);
}

}  // namespace troupe
