#include "actors/schedule/v_generators.h"

#include <algorithm>

#include "actors/schedule/list_writer.h"

namespace troupe {
namespace {

// One rank's list of ZB-V with at least 2p-1 microbatches. `down` is the rank's stage on the way
// out, `up` the one on the way back.
class ZeroBubbleVList {
 public:
  ZeroBubbleVList(Schedule& schedule, PipelineRank rank)
      : list_(schedule, rank),
        num_ranks_(schedule.num_ranks),
        num_microbatches_(schedule.num_microbatches),
        rank_(rank.value),
        down_(rank_),
        up_(2 * num_ranks_ - 1 - rank_) {}

  void Write() {
    WarmUp();
    while (num_up_ < num_down_ || num_down_ < num_microbatches_) {
      if (num_down_ < num_microbatches_) {
        ForwardDown();
      }
      Split(down_);
      ForwardUp();
      Split(up_);
    }
    CoolDown();
  }

 private:
  void ForwardDown() {
    list_.Forward(down_);
    ++num_down_;
  }
  void ForwardUp() {
    list_.Forward(up_);
    ++num_up_;
  }
  void Split(StageId stage) {
    list_.BackwardInput(stage);
    list_.BackwardWeight(stage);
  }

  void WarmUp() {
    for (int i = 0; i < 2 * (num_ranks_ - rank_) - 1; ++i) {
      ForwardDown();
    }
    for (int i = 0; i < rank_; ++i) {
      ForwardUp();
      ForwardDown();
    }
    for (int i = 0; i < num_ranks_ - rank_; ++i) {
      ForwardUp();
      Split(up_);
    }
  }

  void CoolDown() {
    for (int i = 0; i < rank_; ++i) {
      list_.BackwardInput(down_);
      list_.BackwardInput(up_);
    }
    for (int i = 0; i < num_ranks_ - rank_; ++i) {
      Split(down_);
    }
    while (list_.OwesWeight(up_)) {
      list_.BackwardWeight(up_);
    }
    list_.AllOwedWeights();
  }

  ListWriter list_;
  int num_ranks_;
  int num_microbatches_;
  int rank_;
  StageId down_;
  StageId up_;
  int num_down_ = 0;  // Forwards written
  int num_up_ = 0;
};

}  // namespace

void FillZeroBubbleV(const ScheduleSpec& spec, Schedule& schedule) {
  const int fewest = 2 * spec.num_ranks - 1;
  schedule.num_microbatches = std::max(fewest, spec.num_microbatches);
  for (int rank = 0; rank < spec.num_ranks; ++rank) {
    ZeroBubbleVList(schedule, PipelineRank(rank)).Write();
    std::erase_if(schedule.ranks[rank], [&spec](const Action& action) {
      return action.microbatch.value >= spec.num_microbatches;
    });
  }
  schedule.num_microbatches = spec.num_microbatches;
}

}  // namespace troupe
