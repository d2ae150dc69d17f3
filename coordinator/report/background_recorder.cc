#include "coordinator/report/background_recorder.h"

#include <fmt/format.h>

#include <utility>

#include "runtime/base/bytes_in_words.h"

namespace troupe {

BackgroundRecorder::BackgroundRecorder(Stream& disk, std::unique_ptr<JobRecorder> recorder,
                                       std::function<void(const std::string&)> on_trouble)
    : disk_(disk), recorder_(std::move(recorder)), on_trouble_(std::move(on_trouble)) {}

template <typename Record>
void BackgroundRecorder::Later(int64_t num_bytes, Record record, std::function<void()> done) {
  *waiting_bytes_ += num_bytes;
  disk_.Launch([recorder = recorder_, record = std::move(record)]() mutable { record(*recorder); },
               [waiting = waiting_bytes_, num_bytes, done = std::move(done)](const WorkTime&) {
                 *waiting -= num_bytes;
                 if (done) done();
               });
}

bool BackgroundRecorder::Loses(int64_t num_bytes) {
  if (*waiting_bytes_ + num_bytes <= kWaitingBytesMax) return false;
  if (num_lost_++ == 0 && on_trouble_) {
    on_trouble_(fmt::format(
        "records: the disk is behind by {}: what ranks say is lost until it has caught up",
        BytesInWords(static_cast<double>(*waiting_bytes_))));
  }
  return true;
}

Status BackgroundRecorder::Open(const proto::SubmitRequest& request) {
  return recorder_->Open(request);
}

void BackgroundRecorder::Begin(const std::vector<std::string>& hosts,
                               std::function<void(Status)> done) {
  const auto begun = std::make_shared<Status>();
  Later(
      0,
      [hosts, begun](JobRecorder& to) {
        to.Begin(hosts, [&](Status s) { *begun = std::move(s); });
      },
      [begun, done = std::move(done)] { done(std::move(*begun)); });
}

void BackgroundRecorder::Planned(const std::vector<proto::Parallelism>& orders) {
  Later(0, [orders](JobRecorder& to) { to.Planned(orders); });
}

void BackgroundRecorder::RankSaid(int32_t rank, bool reference_run,
                                  const proto::FromRank& message) {
  if (message.has_progress()) return;
  const auto num_bytes = static_cast<int64_t>(message.SpaceUsedLong());
  const bool telemetry = message.has_spans() || message.has_memory() || message.has_step_memory();
  if (telemetry && *waiting_bytes_ + num_bytes > kTelemetryBytesMax) return;  // K2
  if (Loses(num_bytes)) return;
  Later(num_bytes, [rank, reference_run, message](JobRecorder& to) {
    to.RankSaid(rank, reference_run, message);
  });
}

void BackgroundRecorder::RankLogged(int32_t rank, bool reference_run, const std::string& lines) {
  int64_t& logged = log_bytes_[{reference_run, rank}];
  if (logged >= kLogBytesMax) return;  // K3
  const auto num_bytes = static_cast<int64_t>(lines.size());
  if (Loses(num_bytes)) return;
  std::string text = lines.substr(0, static_cast<size_t>(kLogBytesMax - logged));
  logged += num_bytes;
  if (logged >= kLogBytesMax) {
    text += fmt::format("\n[rank {} has printed {}: what follows is left out]\n", rank,
                        BytesInWords(static_cast<double>(kLogBytesMax)));
  }
  Later(num_bytes, [rank, reference_run, text = std::move(text)](JobRecorder& to) {
    to.RankLogged(rank, reference_run, text);
  });
}

void BackgroundRecorder::StateChanged(const proto::JobSummary& summary) {
  Later(0, [summary](JobRecorder& to) { to.StateChanged(summary); });
}

void BackgroundRecorder::Ended(const proto::JobResult& result,
                               std::function<void(const proto::JobResult&)> done) {
  const auto recorded = std::make_shared<proto::JobResult>(result);
  if (num_lost_ > 0) {
    recorded->add_missing_records(
        fmt::format("{} messages of ranks came while the disk stood still", num_lost_));
  }
  Later(
      0,
      [recorded](JobRecorder& to) {
        to.Ended(*recorded, [&](const proto::JobResult& r) { *recorded = proto::JobResult(r); });
      },
      [recorded, done = std::move(done)] { done(*recorded); });
}

}  // namespace troupe
