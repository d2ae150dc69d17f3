// Loads a job file: YAML over proto/job.proto, with `extends`, overrides, Hugging Face's
// config.json and defaults, into the effective job that everything else reads. Used by the command
// line.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/job/provenance.h"
#include "proto/job.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

struct Override {
  std::string path{};  // "train.steps"
  std::string value{};
  std::string flag{};  // as it was typed, for errors; empty: "--set path=value"
};
// "a.b=v"; "a.b=" takes the key back to its default.
Result<Override> ParseOverride(std::string_view text);

struct LoadedJob {
  std::string path{};     // of the job file, as given
  proto::JobSpec spec{};  // effective: every key that applies is set, paths are absolute
  Provenance provenance{};
  // As the user wrote it, but with absolute paths: it runs from wherever it lies.
  std::string text{};
  // YAML with `# from:` comments. It needs no file that has been read into it: no parent, no
  // config.json, no schedule.
  std::string effective_text{};
  std::vector<Finding> warnings{};  // settings that are legal and odd
};

struct JobReading {
  LoadedJob job{};
  std::vector<Finding> errors{};  // none: the job may start
};

// Finds every error in one pass, as far as one does not follow from another.
JobReading ReadJob(FileSystem& files, const std::string& path,
                   const std::vector<Override>& overrides);

// The errors joined by newlines, each with its place: kInvalidSpec, whatever their own codes are,
// or kInfeasible where nothing but the plan stands against the job.
Error Joined(const std::vector<Finding>& errors);

// An error about a key of the job, which its sentence begins with, with the key's place in front:
// "job.yaml:7:16: train.steps = 0: …". The file alone where nobody wrote the key.
Finding FindingOf(const LoadedJob& job, const Error& error);

// The effective job as YAML, each key with where it came from.
std::string EffectiveYaml(const proto::JobSpec& spec, const Provenance& provenance);

}  // namespace troupe
