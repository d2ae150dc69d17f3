// Loads a job file: YAML over proto/job.proto, with `extends`, overrides, Hugging Face's
// config.json and defaults, into the effective job that everything else reads. Used by the command
// line.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "coordinator/job/yaml_walker.h"
#include "proto/job.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

struct Override {
  std::string path{};  // "train.steps"
  std::string value{};
};
// "a.b=v"
Result<Override> ParseOverride(std::string_view text);

struct LoadedJob {
  proto::JobSpec spec{};  // effective: every key that applies is set, paths are absolute
  Provenance provenance{};
  std::string text{};            // as the user wrote it
  std::string effective_text{};  // YAML with `# from:` comments
};

// Every error in one pass: joined by newlines, code kInvalidSpec (kInfeasible where the plan cannot
// be laid out).
Result<LoadedJob> LoadJob(FileSystem& files, const std::string& path,
                          const std::vector<Override>& overrides);

// The effective job as YAML, each key with where it came from.
std::string EffectiveYaml(const proto::JobSpec& spec, const Provenance& provenance);

}  // namespace troupe
