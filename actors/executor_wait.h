// ExecutorWait: what a rank's executor waits for, as a record for whoever asks, and how long its
// round has waited, for its vote.
//
// Thread: the executor's, which owns it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/schedule/next_action.h"
#include "proto/training.pb.h"
#include "runtime/actor/actor_base.h"

namespace troupe {

// "stage 2 (rank 1)", by stage.
std::vector<std::string> StageNames(const Schedule& schedule, const std::vector<Rank>& pipeline);

class ExecutorWait {
 public:
  struct Options {
    std::string waiter{};          // "rank 2"
    std::vector<Rank> pipeline{};  // who stands where, by PipelineRank
    std::vector<std::string> stage_names{};
    Rank decides{};  // what this rank starts
    int64_t deadline_ms = 0;
  };
  explicit ExecutorWait(Options options);

  // An action waits for what is owed to it, or for room for its output. Said again, the wait goes
  // on: since when does not change. Nothing where it waits for the rank's own work: who keeps a sum
  // waiting is its group's to say.
  void ForInput(const ActorContext& context, const Blocked& blocked, int64_t step);
  void ForRoom(const ActorContext& context, const Transfer& output, int64_t step);
  // An action starts: what was waited until now counts in the vote.
  void End(const ActorContext& context, proto::Vote& vote);

  // A phase waits, which counts in no vote: for the rank's own stages, for the schedule. Views are
  // literals.
  void ForStages(const ActorContext& context, std::string_view phase, std::string_view owed,
                 int64_t step);
  void ForSchedule(const ActorContext& context, std::string_view phase, std::string_view owed,
                   int64_t step);
  // Between two rounds.
  void ForNextRound(const ActorContext& context, int64_t step) {
    ForSchedule(context, "", "the next step", step);
  }
  void EndPhase() { record_.Reset(); }

 private:
  Rank RankAt(PipelineRank place) const {
    return options_.pipeline.at(static_cast<size_t>(place.value));
  }
  void Begin(const ActorContext& context, WaitSubject subject);

  const Options options_;
  const std::string decides_name_;  // "rank 2"
  WaitHandle record_{};
  std::optional<Blocked> blocked_{};  // while the record is of ForInput
  int64_t since_ns_ = 0;              // 0: no action waits
  bool for_data_ = false;
};

}  // namespace troupe
