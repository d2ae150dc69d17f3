// Where the coordinators are that a question goes to: one that is named, that of a run's folder,
// the one at the default address, or those of the runs that go on below runs/.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/cli/client.h"
#include "coordinator/cli/job_commands.h"

namespace troupe {

// While it lives, the file `coordinator` in a run's folder says where the run's own coordinator
// listens. That it cannot be written is said, and ends nothing.
class CoordinatorFile {
 public:
  CoordinatorFile(const std::string& run_directory, const std::string& address);
  ~CoordinatorFile();
  CoordinatorFile(const CoordinatorFile&) = delete;
  CoordinatorFile& operator=(const CoordinatorFile&) = delete;

 private:
  const std::string path_;
};

// Whether the coordinator at this address is the run's own, which ends with it.
bool IsOfRun(const std::string& address, const std::string& run_directory);

struct FoundCoordinator {
  std::string address{};
  std::unique_ptr<ControlClient> client{};
  proto::ListJobsReply jobs{};  // as it answered
};
// At least one, and all have answered. Their jobs are those of --run-dir, where that is given.
Result<std::vector<FoundCoordinator>> FindCoordinators(const JobsCommand& command);

// The one job that the command means: by number, by --run-dir, or the only one that there is.
struct FoundJob {
  FoundCoordinator coordinator{};
  proto::JobSummary summary{};
};
Result<FoundJob> FindJob(const JobsCommand& command);

}  // namespace troupe
