// A schedule whose stages are no chain: a student of stages 0 and 3, and a teacher of stages 1 and
// 2 that is only read. Stage 3, the loss, has two inputs: the student's from stage 0, then the
// teacher's from stage 2.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "actors/schedule/schedule.h"

namespace troupe::testing {

// Both inputs of the loss come from rank 0, over one channel.
inline std::vector<PipelineRank> SameSender() {
  return {PipelineRank(0), PipelineRank(1), PipelineRank(0), PipelineRank(2)};
}
// One comes from rank 0, the other lies on the loss's own rank.
inline std::vector<PipelineRank> TeacherBesideLoss() {
  return {PipelineRank(0), PipelineRank(0), PipelineRank(1), PipelineRank(1)};
}

// Every rank runs all Forwards, microbatch by microbatch, and then its backwards.
inline Schedule TwoChains(std::vector<PipelineRank> placement, int num_microbatches) {
  int num_ranks = 0;
  for (const PipelineRank rank : placement) num_ranks = std::max(num_ranks, rank.value + 1);
  Schedule schedule{.name = "two chains",
                    .num_ranks = num_ranks,
                    .num_stages = 4,
                    .num_microbatches = num_microbatches,
                    .placement = std::move(placement),
                    .ranks = std::vector<std::vector<Action>>(static_cast<size_t>(num_ranks)),
                    .edges = {{.from = StageId(0), .to = StageId(3)},
                              {.from = StageId(1), .to = StageId(2), .carries_gradient = false},
                              {.from = StageId(2), .to = StageId(3), .carries_gradient = false}}};
  const auto append = [&schedule](int stage, ActionKind kind, int microbatch) {
    const PipelineRank rank = schedule.RankOf(StageId(stage));
    schedule.ranks[static_cast<size_t>(rank.value)].push_back(
        {.stage = StageId(stage), .kind = kind, .microbatch = MicrobatchId(microbatch)});
  };
  for (int m = 0; m < num_microbatches; ++m) {
    for (const int stage : {0, 1, 2, 3}) append(stage, ActionKind::kForward, m);
  }
  for (int m = 0; m < num_microbatches; ++m) {
    for (const int stage : {3, 0}) append(stage, ActionKind::kBackward, m);
  }
  return schedule;
}

}  // namespace troupe::testing
