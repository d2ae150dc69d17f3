// BackgroundRecorder: lets another recorder work on the disk's stream, which all jobs share, so
// that a disk that stands still does not hold up the coordinator's loop. Thread: the coordinator's
// event loop, but Open, which is called on the stream.
//
//   K1. The other recorder gets everything in order, and Ended last.
//   K2. While kTelemetryMax calls of this job wait, spans and memory reports are left out; while
//       kWaitingMax do, all that ranks say, and the result tells how much. Progress is never
//       recorded: it comes many times a second.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/job_recorder.h"
#include "runtime/actor/stream.h"

namespace troupe {

class BackgroundRecorder : public JobRecorder {
 public:
  static constexpr int kTelemetryMax = 4096;
  static constexpr int kWaitingMax = 65'536;

  // The stream outlives this.
  BackgroundRecorder(Stream& disk, std::unique_ptr<JobRecorder> recorder);

  Status Open(const proto::SubmitRequest& request) override;
  void Begin(const std::vector<std::string>& hosts, std::function<void(Status)> done) override;
  void Planned(const std::vector<proto::Parallelism>& orders) override;
  void RankSaid(int32_t rank, bool reference_run, const proto::FromRank& message) override;
  void RankLogged(int32_t rank, bool reference_run, const std::string& lines) override;
  void StateChanged(const proto::JobSummary& summary) override;
  void Ended(const proto::JobResult& result,
             std::function<void(const proto::JobResult&)> done) override;

 private:
  // `record` is called with the recorder, on the stream; `done` afterwards, on the loop, even where
  // this has ended meanwhile.
  template <typename Record>
  void Later(Record record, std::function<void()> done = {});

  Stream& disk_;
  const std::shared_ptr<JobRecorder> recorder_;  // work on its way holds it too
  const std::shared_ptr<int> waiting_ = std::make_shared<int>(0);
  int64_t num_lost_ = 0;
};

}  // namespace troupe
