// RankWaits: what a rank waits for: its wait records, and the end of the work on its stream. Says
// each wait whose deadline passes, and answers whoever asks why nothing happens. Used by the
// worker's root.
// Thread: the rank's actor thread.
#pragma once

#include <cstdint>
#include <string>

#include "actors/rank_news.h"
#include "actors/rank_seams.h"
#include "runtime/actor/stream.h"

namespace troupe {

class RankWaits {
 public:
  // The seams, the news and a watched stream outlive it.
  RankWaits(const RankSeams& seams, const RankNews& news);
  ~RankWaits();
  RankWaits(const RankWaits&) = delete;
  RankWaits& operator=(const RankWaits&) = delete;

  // From now on a piece of the stream's work that takes longer than `deadline_ms` is told of.
  void Watch(const Stream& stream, std::string rank_name, int64_t deadline_ms);
  void StopWatching();
  // To whoever asked.
  void Answer() const;

 private:
  static constexpr int kLookMs = 1000;

  void Look();
  // The end of the piece of work under way.
  WaitSubject OfStream() const;

  const RankSeams& seams_;
  const RankNews& news_;
  const Stream* stream_ = nullptr;
  std::string name_{};  // "rank 2"
  int64_t deadline_ms_ = 0;
  int64_t told_of_ns_ = 0;  // since when the piece ran that was told of last
  TimerId timer_{};
  mutable std::string owed_{};  // of OfStream
};

}  // namespace troupe
