#include "coordinator/report/background_recorder.h"

#include <fmt/format.h>

#include <utility>

namespace troupe {

BackgroundRecorder::BackgroundRecorder(Stream& disk, std::unique_ptr<JobRecorder> recorder)
    : disk_(disk), recorder_(std::move(recorder)) {}

template <typename Record>
void BackgroundRecorder::Later(Record record, std::function<void()> done) {
  ++*waiting_;
  disk_.Launch([recorder = recorder_, record = std::move(record)]() mutable { record(*recorder); },
               [waiting = waiting_, done = std::move(done)](const WorkTime&) {
                 --*waiting;
                 if (done) done();
               });
}

Status BackgroundRecorder::Open(const proto::SubmitRequest& request) {
  return recorder_->Open(request);
}

void BackgroundRecorder::Begin(const std::vector<std::string>& hosts,
                               std::function<void(Status)> done) {
  const auto begun = std::make_shared<Status>();
  Later([hosts,
         begun](JobRecorder& to) { to.Begin(hosts, [&](Status s) { *begun = std::move(s); }); },
        [begun, done = std::move(done)] { done(std::move(*begun)); });
}

void BackgroundRecorder::Planned(const std::vector<proto::Parallelism>& orders) {
  Later([orders](JobRecorder& to) { to.Planned(orders); });
}

void BackgroundRecorder::RankSaid(int32_t rank, bool reference_run,
                                  const proto::FromRank& message) {
  if (message.has_progress()) return;
  if (*waiting_ >= kTelemetryMax && (message.has_spans() || message.has_memory())) return;  // K2
  if (*waiting_ >= kWaitingMax) {
    ++num_lost_;
    return;
  }
  Later([rank, reference_run, message](JobRecorder& to) {
    to.RankSaid(rank, reference_run, message);
  });
}

void BackgroundRecorder::RankLogged(int32_t rank, bool reference_run, const std::string& lines) {
  if (*waiting_ >= kWaitingMax) {
    ++num_lost_;
    return;
  }
  Later(
      [rank, reference_run, lines](JobRecorder& to) { to.RankLogged(rank, reference_run, lines); });
}

void BackgroundRecorder::StateChanged(const proto::JobSummary& summary) {
  Later([summary](JobRecorder& to) { to.StateChanged(summary); });
}

void BackgroundRecorder::Ended(const proto::JobResult& result,
                               std::function<void(const proto::JobResult&)> done) {
  const auto recorded = std::make_shared<proto::JobResult>(result);
  if (num_lost_ > 0) {
    recorded->add_missing_records(
        fmt::format("{} messages of ranks came while the disk stood still", num_lost_));
  }
  Later(
      [recorded](JobRecorder& to) {
        to.Ended(*recorded, [&](const proto::JobResult& r) { *recorded = proto::JobResult(r); });
      },
      [recorded, done = std::move(done)] { done(*recorded); });
}

}  // namespace troupe
