// Where a job goes on from: finds the committed checkpoint that checkpoint.resume asks for and
// refuses a job that differs in more than a resumed one may. Called by the command line before it
// plans or submits. Pure apart from the FileSystem.
#pragma once

#include <string>
#include <vector>

#include "coordinator/job/job_file.h"
#include "proto/job.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

struct ResumePoint {
  std::string folder{};              // of the checkpoint; empty: the job starts afresh
  std::vector<std::string> notes{};  // what the user should hear, a sentence each
};

// Where the job begins.
//   never: afresh.  auto: from the newest whole one of `run_directory`, afresh where it has none.
//   PATH: from that checkpoint, or the newest one of that run directory; kNotFound where there is
//   none.
// Every byte of the checkpoint is compared with its digests (runtime/format/checkpoint_reader.h): a
// damaged one is kCorrupt, and only auto passes it over for the one before, with a note.
// The same run: batch.gradient_groups and parallelism.grad_reduce that nobody gave become the
// checkpoint's, so that sums keep their shape; where the layout cannot have it, or another
// grad_reduce is given, a note says that they change. kInvalidSpec names every key that differs
// though it must not, each with its place, data or initial weights of other content (under any
// path), and a train.steps or stop_after that the checkpoint is past, or has reached where nothing
// else is left to do. A new run (checkpoint.resume_as: new_run, of a checkpoint outside of
// `run_directory`): only the model must be the same. In its own directory a run is always gone on
// with; resume_as says so then. Every error found, each at its place.
struct ResumeReading {
  ResumePoint point{};
  std::vector<Finding> errors{};
};
ResumeReading ReadResume(FileSystem& files, const std::string& run_directory, LoadedJob& job);

// The same, the errors joined to one.
Result<ResumePoint> ResolveResume(FileSystem& files, const std::string& run_directory,
                                  LoadedJob& job);

// Of a job that has other errors: whether the checkpoint that it names by its path is there, and
// whole.
std::vector<Finding> CheckNamedCheckpoint(FileSystem& files, const LoadedJob& job);

}  // namespace troupe
