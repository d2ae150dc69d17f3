#include "coordinator/cli/run_end.h"

#include "coordinator/job_life.h"
#include "coordinator/report/console.h"
#include "coordinator/report/metrics_json.h"
#include "runtime/base/file_system.h"
#include "runtime/base/talk.h"
#include "runtime/format/checkpoint_manifest.h"

namespace troupe {
namespace {

proto::JobResult LostResult(const std::string& run_directory, const Error& why, bool preempted) {
  const bool stopped = why.code == ErrorCode::kCancelled;
  proto::JobResult result;
  result.set_state(!stopped    ? proto::JOB_STATE_FAILED
                   : preempted ? proto::JOB_STATE_PREEMPTED
                               : proto::JOB_STATE_CANCELLED);
  result.set_exit_code(stopped ? StoppedExitCode(preempted) : ExitCode(why.code));
  result.set_reason(why.message);
  result.set_run_directory(run_directory);
  const auto newest = FindNewestCheckpoint(SystemFiles(), JoinPath(run_directory, "checkpoints"));
  if (newest.ok() && newest->has_value()) {
    result.set_checkpoint((*newest)->folder);
    result.set_checkpoint_step((*newest)->manifest.step);
  }
  return result;
}

}  // namespace

int TellLostEnd(const RunEnd& end, const Error& why, bool preempted) {
  FileSystem& files = SystemFiles();
  const bool seen = end.records || files.Exists(end.run_directory);
  const proto::JobResult result = LostResult(end.run_directory, why, preempted);
  if (end.records) {
    const Status recorded = WriteFileAtomically(files, JoinPath(end.run_directory, "result.json"),
                                                ResultJson(result) + "\n");
    if (!recorded.ok()) Talk("{}\n", recorded.error().message);
  }
  if (seen) {
    Talk("{}\n",
         GoOnText(result.checkpoint_step(), !result.checkpoint().empty(), end.resume_command));
  } else {
    Talk("where a step is committed, go on with: {}\n", end.resume_command);
  }
  return result.exit_code();
}

int StoppedExitCode(bool preempted) {
  return preempted ? JobLife::kPreemptedExitCode : ExitCode(ErrorCode::kCancelled);
}

}  // namespace troupe
