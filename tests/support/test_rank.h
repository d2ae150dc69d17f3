// One rank of a test: its root on a scheduler of its own. What it says goes to the test.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "actors/rank_root.h"

namespace troupe::testing {

using HearRank = std::function<void(const proto::FromRank&)>;

// Over an inline stream; the test gives the transport and what the rank computes with. Says of the
// machine that it is like any other.
inline RankSeams SeamsOfTest(Scheduler& scheduler, HearRank hear) {
  RankSeams seams{.scheduler = scheduler, .files = SystemFiles()};
  seams.new_stream = [&scheduler]() -> Result<std::unique_ptr<Stream>> {
    return std::unique_ptr<Stream>(std::make_unique<InlineStream>(scheduler));
  };
  seams.measure = [](const proto::JobSpec&, proto::Hello&) { return Status{}; };
  seams.say_telemetry = hear;
  seams.say = std::move(hear);
  seams.leave = [] {};
  return seams;
}

class TestRank {
 public:
  explicit TestRank(Clock& clock = SystemClock())
      : scheduler_({.clock = &clock, .trace_handlers = false}) {}

  void Start(RankSeams seams) { root_ = std::make_unique<RankRoot>(std::move(seams)); }

  Scheduler& scheduler() { return scheduler_; }
  RankRoot& root() { return *root_; }
  RankActors& actors() { return *root_->actors(); }

 private:
  Scheduler scheduler_;
  std::unique_ptr<RankRoot> root_{};
};

}  // namespace troupe::testing
