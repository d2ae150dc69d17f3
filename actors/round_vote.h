// RoundVote: what a rank's executor gathers in one round for its vote: losses, what a token was
// drawn, when and how long its actions ran, the norm of its gradients. Owned by the executor; not
// thread-safe.
#pragma once

#include <cstdint>

#include "actors/messages.h"
#include "actors/round_times.h"
#include "proto/training.pb.h"

namespace troupe {

class RoundVote {
 public:
  void Begin(const proto::StepStart& start, Rank rank);
  // Of a compute action; `number` is its microbatch's among those of the step's global batch.
  void Add(const ActionDone& done, int32_t number);
  void Add(StageVote vote);
  // Of a training round.
  void AddTimes() { times_.WriteTo(vote_); }

  proto::Vote& vote() { return vote_; }

 private:
  proto::Vote vote_{};
  RoundTimes times_{};
};

}  // namespace troupe
