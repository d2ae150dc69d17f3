#include "coordinator/report/background_recorder.h"

#include <utility>

namespace troupe {

BackgroundRecorder::BackgroundRecorder(Scheduler& scheduler, std::unique_ptr<JobRecorder> recorder)
    : recorder_(std::move(recorder)), stream_(scheduler, "recorder", /*spin_us=*/0) {}

template <typename Record>
void BackgroundRecorder::Later(Record record, std::function<void()> done) {
  ++waiting_;
  stream_.Launch(
      [&recorder = *recorder_, record = std::move(record)]() mutable { record(recorder); },
      [this, done = std::move(done)](const WorkTime&) {
        --waiting_;
        if (done) done();  // may end this
      });
}

Status BackgroundRecorder::Open(const proto::SubmitRequest& request) {
  RETURN_IF_ERROR(stream_.started());
  return recorder_->Open(request);
}

void BackgroundRecorder::Placed(const std::vector<std::string>& hosts) {
  Later([hosts](JobRecorder& to) { to.Placed(hosts); });
}

void BackgroundRecorder::Planned(const std::vector<proto::Parallelism>& orders) {
  Later([orders](JobRecorder& to) { to.Planned(orders); });
}

void BackgroundRecorder::RankSaid(int32_t rank, bool reference_run,
                                  const proto::FromRank& message) {
  if (message.has_progress()) return;
  if (waiting_ >= kTelemetryMax && (message.has_spans() || message.has_memory())) return;  // K2
  Later([rank, reference_run, message](JobRecorder& to) {
    to.RankSaid(rank, reference_run, message);
  });
}

void BackgroundRecorder::RankLogged(int32_t rank, bool reference_run, const std::string& lines) {
  Later(
      [rank, reference_run, lines](JobRecorder& to) { to.RankLogged(rank, reference_run, lines); });
}

void BackgroundRecorder::StateChanged(const proto::JobSummary& summary) {
  Later([summary](JobRecorder& to) { to.StateChanged(summary); });
}

void BackgroundRecorder::Ended(const proto::JobResult& result, std::function<void()> done) {
  Later([result](JobRecorder& to) { to.Ended(result, [] {}); }, std::move(done));
}

}  // namespace troupe
