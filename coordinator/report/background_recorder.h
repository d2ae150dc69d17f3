// BackgroundRecorder: lets another recorder work on the disk's stream, which all jobs share, so
// that a disk that stands still does not hold up the coordinator's loop. Thread: the coordinator's
// event loop, but Open, which is called on the stream.
//
//   K1. The other recorder gets everything in order, and Ended last.
//   K2. While kTelemetryBytesMax of this job wait, spans and memory reports are left out; while
//       kWaitingBytesMax do, all that ranks say: that is told when it begins, and the result tells
//       how much. Progress is never recorded: it comes many times a second.
//   K3. A rank's log takes kLogBytesMax of one run, and then a line that says so.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/job_recorder.h"
#include "runtime/actor/stream.h"

namespace troupe {

class BackgroundRecorder : public JobRecorder {
 public:
  static constexpr int64_t kTelemetryBytesMax = int64_t{8} << 20;
  static constexpr int64_t kWaitingBytesMax = int64_t{64} << 20;
  static constexpr int64_t kLogBytesMax = int64_t{256} << 20;

  // The stream outlives this. `on_trouble` is told what cannot be recorded, from within the call.
  BackgroundRecorder(Stream& disk, std::unique_ptr<JobRecorder> recorder,
                     std::function<void(const std::string&)> on_trouble = {});

  Status Open(const proto::SubmitRequest& request) override;
  void Begin(const std::vector<std::string>& hosts, std::function<void(Status)> done) override;
  void Planned(const std::vector<proto::Parallelism>& orders) override;
  void RankSaid(int32_t rank, bool reference_run, const proto::FromRank& message) override;
  void RankLogged(int32_t rank, bool reference_run, const std::string& lines) override;
  void StateChanged(const proto::JobSummary& summary) override;
  void Ended(const proto::JobResult& result,
             std::function<void(const proto::JobResult&)> done) override;

 private:
  // `record`, which holds so many bytes, is called with the recorder, on the stream; `done`
  // afterwards, on the loop, even where this has ended meanwhile.
  template <typename Record>
  void Later(int64_t num_bytes, Record record, std::function<void()> done = {});
  // True: K2, and counted.
  bool Loses(int64_t num_bytes);

  Stream& disk_;
  const std::shared_ptr<JobRecorder> recorder_;  // work on its way holds it too
  const std::function<void(const std::string&)> on_trouble_;
  const std::shared_ptr<int64_t> waiting_bytes_ = std::make_shared<int64_t>(0);
  std::map<std::pair<bool, int32_t>, int64_t> log_bytes_{};  // of the reference run?, rank
  int64_t num_lost_ = 0;
};

}  // namespace troupe
