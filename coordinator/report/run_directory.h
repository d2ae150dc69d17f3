// RunDirectory: writes what a job's ranks say into its run directory (README: "what a run leaves").
// A full disk or a lost folder costs records, said once, never the job.
// Thread: the coordinator's event loop.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "coordinator/job_life.h"
#include "runtime/base/file_system.h"

namespace troupe {

class RunDirectory : public JobRecorder {
 public:
  RunDirectory(FileSystem& files, Clock& clock, std::string path);

  Status Open(const proto::SubmitRequest& request) override;
  void RankSaid(int32_t rank, bool reference_run, const proto::FromRank& message) override;
  void RankLogged(int32_t rank, bool reference_run, const std::string& lines) override;
  void StateChanged(const proto::JobSummary& summary) override;
  void Ended(const proto::JobResult& result) override;

 private:
  // Opens on first use; appends.
  void Append(const std::string& name, const std::string& text);
  void Event(const std::string& kind, const std::string& fields);

  FileSystem& files_;
  Clock& clock_;
  const std::string path_;
  int num_workers_ = 1;
  std::map<std::string, std::unique_ptr<WritableFile>> open_{};
  bool complained_ = false;
};

}  // namespace troupe
