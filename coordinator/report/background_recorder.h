// BackgroundRecorder: lets another recorder work on a thread of its own, in order, once Open has
// returned: a disk that stands still then does not hold up the coordinator's loop, where silence is
// a lost host.
// Thread: the coordinator's event loop; the other recorder is the thread's once Open has returned.
//
//   K1. Everything is recorded before Ended's `done` runs, and before the destructor returns.
//   K2. While kTelemetryMax calls wait, spans and memory reports are left out. Progress is never
//       recorded: it comes many times a second.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/job_life.h"
#include "runtime/actor/stream.h"

namespace troupe {

class BackgroundRecorder : public JobRecorder {
 public:
  static constexpr int kTelemetryMax = 4096;

  // The scheduler outlives this.
  BackgroundRecorder(Scheduler& scheduler, std::unique_ptr<JobRecorder> recorder);

  Status Open(const proto::SubmitRequest& request) override;
  void Placed(const std::vector<std::string>& hosts) override;
  void Planned(const std::vector<proto::Parallelism>& orders) override;
  void RankSaid(int32_t rank, bool reference_run, const proto::FromRank& message) override;
  void RankLogged(int32_t rank, bool reference_run, const std::string& lines) override;
  void StateChanged(const proto::JobSummary& summary) override;
  void Ended(const proto::JobResult& result, std::function<void()> done) override;

 private:
  // `record` is called with the recorder, on the thread; `done` afterwards, on the loop.
  template <typename Record>
  void Later(Record record, std::function<void()> done = {});

  const std::unique_ptr<JobRecorder> recorder_;
  int waiting_ = 0;
  ThreadStream stream_;  // ends first: its work uses the recorder
};

}  // namespace troupe
