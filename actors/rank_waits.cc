#include "actors/rank_waits.h"

#include <utility>

#include "actors/rank_reports.h"

namespace troupe {

RankWaits::RankWaits(const RankSeams& seams, const RankNews& news) : seams_(seams), news_(news) {
  seams_.scheduler.waits().SetOnDeadline([this](const WaitRecord&, const std::string& sentence) {
    news_.Happened("warning", sentence);
  });
}

RankWaits::~RankWaits() {
  seams_.scheduler.waits().SetOnDeadline({});
  StopWatching();
}

void RankWaits::StopWatching() {
  seams_.scheduler.Cancel(timer_);
  stream_ = nullptr;
}

void RankWaits::Watch(const Stream& stream, std::string rank_name, int64_t deadline_ms) {
  stream_ = &stream;
  name_ = std::move(rank_name);
  deadline_ms_ = deadline_ms;
  Look();
}

void RankWaits::Look() {
  const int64_t since_ns = stream_->busy_since_ns();
  const int64_t ran_ms = (seams_.scheduler.clock().NowNs() - since_ns) / 1'000'000;
  if (since_ns > 0 && ran_ms >= deadline_ms_ && std::exchange(told_of_ns_, since_ns) != since_ns) {
    news_.Happened("warning", DeadlineSentence(OfStream()));
  }
  timer_ = seams_.scheduler.After(kLookMs, [this] { Look(); });
}

WaitSubject RankWaits::OfStream() const {
  const std::string activity = InWords(news_.activity());
  owed_ = activity.empty() ? "the end of its work" : "the end of " + activity;
  return {.waiter = name_,
          .owed = owed_,
          .from = "its compute stream",
          .step = news_.activity().step,
          .deadline_ms = deadline_ms_};
}

void RankWaits::Answer() const {
  const Clock& clock = seams_.scheduler.clock();
  proto::FromRank news;
  proto::Waits& waits = *news.mutable_waits();
  waits = ReportWaits(seams_.scheduler.waits(), clock);
  if (const int64_t since_ns = stream_ == nullptr ? 0 : stream_->busy_since_ns(); since_ns > 0) {
    const WaitSubject subject = OfStream();
    auto* edge = waits.add_edges();
    edge->set_waiter(std::string(subject.waiter));
    edge->set_owed(std::string(subject.owed));
    edge->set_from(std::string(subject.from));
    edge->set_step(subject.step);
    edge->set_microbatch(subject.microbatch);
    edge->set_waited_ms((clock.NowNs() - since_ns) / 1'000'000);
  }
  news_.Say(news);
}

}  // namespace troupe
