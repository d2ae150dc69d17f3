// RankNews: what a rank says of its own accord: that it is alive, what it does, what its memory
// holds, what was traced, and sentences. Used by the worker's root.
// Thread: the rank's actor thread.
//
//   N1. Progress is told at most once every kProgressMs, and the latest is never older than that.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "actors/executor_actor.h"
#include "actors/rank_seams.h"
#include "actors/traced_memory.h"
#include "proto/worker.pb.h"
#include "runtime/actor/scheduler.h"
#include "runtime/memory/buffer.h"

namespace troupe {

class RankNews {
 public:
  // What is reported on from time to time. What it points to outlives the news.
  struct Subject {
    Rank rank{};
    const MemoryLedger* ledger = nullptr;
    const JobPlan* plan = nullptr;
    TracedMemory* traced = nullptr;
    bool spans = true;
  };

  explicit RankNews(const RankSeams& seams) : seams_(seams) {}  // which outlive it
  ~RankNews();
  RankNews(const RankNews&) = delete;
  RankNews& operator=(const RankNews&) = delete;

  void Say(const proto::FromRank& news) const { seams_.say(news); }
  void Happened(std::string_view level, const std::string& text) const;
  void Progressed(const RankActivity& activity);
  const RankActivity& activity() const { return activity_; }

  void StartAlive();                          // from now on
  void StartReports(const Subject& subject);  // likewise
  void ReportOnce();                          // nothing before StartReports

 private:
  static constexpr int kProgressMs = 20;
  static constexpr int kReportMs = 200;
  static constexpr int kAliveMs = 1000;

  void ReportAgain();

  const RankSeams& seams_;
  Subject subject_{};
  RankActivity activity_{};
  TimerId progress_timer_{};
  bool progress_armed_ = false;
  TimerId report_timer_{};
  TimerId alive_timer_{};
};

}  // namespace troupe
