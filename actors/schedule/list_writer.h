// Writes one rank's action list for the generators: microbatches count up by themselves, per stage
// and kind, and a queue holds the weight gradients that are still owed. Pure values: any thread.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "actors/schedule/schedule.h"

namespace troupe {

//   I1. Every stage's Forwards, backwards and weight gradients ascend from its first microbatch.
//   I2. A weight gradient is written once, after its BackwardInput.
class ListWriter {
 public:
  // Appends to the rank's list; `schedule` must outlive the writer and have its shape set.
  ListWriter(Schedule& schedule, PipelineRank rank)
      : schedule_(schedule), actions_(schedule.ranks[rank.value]) {}

  void Forward(StageId stage);
  void Backward(StageId stage);
  void BackwardInput(StageId stage);  // its weight gradient is owed from here on
  // `forward`'s next Forward and `backward`'s next Backward as one overlapped pair.
  void Pair(StageId forward, StageId backward);

  void BackwardWeight(StageId stage);  // the stage's oldest that is owed
  void OldestBackwardWeight();         // the oldest that is owed, of whichever stage
  bool OwesWeight(StageId stage) const;
  void AllOwedWeights();  // oldest first

 private:
  struct Written {
    int forwards = 0;
    int backwards = 0;
    int weights = 0;
  };
  void Append(StageId stage, ActionKind kind, int& count, int32_t pair = kNotPaired);

  const Schedule& schedule_;
  std::vector<Action>& actions_;
  std::map<StageId, Written> written_;
  std::deque<StageId> owed_;  // stages whose weight gradients are owed, oldest first
  int32_t next_pair_ = 0;
};

}  // namespace troupe
