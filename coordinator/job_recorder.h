// JobRecorder: where a job writes what its ranks say: the run directory (report/run_directory),
// from a thread of its own (report/background_recorder). Null in tests of a job's life alone.
// Thread: the coordinator's event loop, but Open.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "proto/control.pb.h"
#include "runtime/base/result.h"

namespace troupe {

class JobRecorder {
 public:
  virtual ~JobRecorder() = default;
  // On a thread that may wait for a disk. Refuses a folder that is in use or used; writes what a
  // job is. Leaves the folder claimed and nothing open: the job may stand in the queue for long.
  virtual Status Open(const proto::SubmitRequest& request) = 0;
  // The job leaves the queue, its ranks on these hosts. Takes the folder and opens its files; only
  // then may ranks start. `done` on the loop.
  virtual void Begin(const std::vector<std::string>& hosts, std::function<void(Status)> done) = 0;
  // What the ranks will run, before they say Ready; again where they start anew.
  virtual void Planned(const std::vector<proto::Parallelism>& orders) = 0;
  virtual void RankSaid(int32_t rank, bool reference_run, const proto::FromRank& message) = 0;
  virtual void RankLogged(int32_t rank, bool reference_run, const std::string& lines) = 0;
  virtual void StateChanged(const proto::JobSummary& summary) = 0;
  // `done` runs on the loop when everything is recorded, and may end the recorder. What it gets is
  // the result with what is missing of the records, and FAILED where it would have been SUCCEEDED.
  virtual void Ended(const proto::JobResult& result,
                     std::function<void(const proto::JobResult&)> done) = 0;
};

// Makes what writes a job's run directory; null where nothing is written. `on_trouble` is told, on
// the loop and at once, what cannot be recorded.
using NewRecorder = std::function<std::unique_ptr<JobRecorder>(
    const std::string& run_directory, std::function<void(const std::string&)> on_trouble)>;

}  // namespace troupe
