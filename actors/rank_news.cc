#include "actors/rank_news.h"

#include <utility>

#include "actors/rank_reports.h"

namespace troupe {

RankNews::~RankNews() {
  for (const TimerId timer : {progress_timer_, report_timer_, alive_timer_}) {
    seams_.scheduler.Cancel(timer);
  }
}

void RankNews::Happened(std::string_view level, const std::string& text) const {
  proto::FromRank news;
  news.mutable_happening()->set_level(std::string(level));
  news.mutable_happening()->set_text(text);
  Say(news);
}

void RankNews::Progressed(const RankActivity& activity) {
  activity_ = activity;
  if (std::exchange(progress_armed_, true)) return;
  progress_timer_ = seams_.scheduler.After(kProgressMs, [this] {
    progress_armed_ = false;
    proto::FromRank news;
    news.mutable_progress()->set_step(activity_.step);
    news.mutable_progress()->set_action(InWords(activity_));
    seams_.say_telemetry(news);
  });
}

void RankNews::StartAlive() {
  proto::FromRank news;
  news.mutable_alive();
  seams_.say_telemetry(news);
  alive_timer_ = seams_.scheduler.After(kAliveMs, [this] { StartAlive(); });
}

void RankNews::StartReports(const Subject& subject) {
  subject_ = subject;
  ReportAgain();
}

void RankNews::ReportAgain() {
  report_timer_ = seams_.scheduler.After(kReportMs, [this] {
    ReportOnce();
    ReportAgain();
  });
}

void RankNews::ReportOnce() {
  if (subject_.plan == nullptr) return;
  const MemoryPrediction predicted = subject_.plan->MemoryOf(subject_.rank, ThisVectorIsa());
  proto::FromRank news;
  *news.mutable_memory() = ReportMemory(*subject_.ledger, predicted, activity_.step);
  seams_.say_telemetry(news);
  for (const TracedMemory::Step& step : subject_.traced->Take()) {
    *news.mutable_step_memory() = ReportStepMemory(step.step, step.course, predicted);
    seams_.say_telemetry(news);
  }
  if (!subject_.spans) return;
  *news.mutable_spans() = ReportSpans();
  if (news.spans().spans_size() > 0) seams_.say_telemetry(news);
}

}  // namespace troupe
