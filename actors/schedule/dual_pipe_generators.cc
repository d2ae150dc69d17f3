#include "actors/schedule/dual_pipe_generators.h"

#include <algorithm>
#include <utility>

#include "actors/schedule/list_writer.h"

namespace troupe {
namespace {

// One rank of the skeleton. Its `outer` stage is the one that starts first; distance counts ranks
// from the end where it enters the pipeline to this one, of `depth` in all.
struct RankRole {
  StageId outer{};
  StageId inner{};
  int distance = 0;
  int depth = 0;
  int num_paired = 0;  // rounds of two pairs in the steady phase
};

// The whole backward, or its halves once weight gradients fill the cool-down.
void WriteBackward(ListWriter& list, StageId stage, bool split) {
  if (split) {
    list.BackwardInput(stage);
  } else {
    list.Backward(stage);
  }
}

void WriteWarmUp(ListWriter& list, const RankRole& role) {
  const int to_end = role.depth - role.distance - 1;
  for (int i = 0; i < 2 * to_end; ++i) {
    list.Forward(role.outer);
  }
  for (int i = 0; i < role.distance + 1; ++i) {
    list.Forward(role.outer);
    list.Forward(role.inner);
  }
  for (int i = 0; i < to_end; ++i) {
    list.BackwardInput(role.inner);
    list.OldestBackwardWeight();
    list.Forward(role.inner);
  }
}

void WriteSteady(ListWriter& list, const RankRole& role) {
  const int to_end = role.depth - role.distance - 1;
  for (int i = 0; i < role.num_paired; ++i) {
    if (i == 0 && to_end == 0) {
      // Where the pipeline turns round the neighbour waits for this output: apart from the Backward
      // it leaves early even from a runtime that sends a pair's outputs at its end.
      list.Forward(role.outer);
      list.Backward(role.inner);
    } else {
      list.Pair(role.outer, role.inner);
    }
    list.Pair(role.inner, role.outer);
  }
  for (int i = 0; i < to_end; ++i) {
    list.Backward(role.inner);
    list.Pair(role.inner, role.outer);
  }
}

void WriteCoolDown(ListWriter& list, const RankRole& role) {
  const int num_rounds = role.distance + 1;
  bool split = false;
  for (int i = 0; i < num_rounds; ++i) {
    const bool half_way = i == num_rounds / 2;
    split = split || (half_way && role.distance % 2 == 1);
    WriteBackward(list, role.inner, split);
    split = split || half_way;
    WriteBackward(list, role.outer, split);
  }
  for (int i = 0; i < role.depth - role.distance - 1; ++i) {
    list.OldestBackwardWeight();
    list.BackwardInput(role.outer);
  }
  list.AllOwedWeights();
}

void WriteRank(Schedule& schedule, PipelineRank rank, const RankRole& role) {
  ListWriter list(schedule, rank);
  WriteWarmUp(list, role);
  WriteSteady(list, role);
  WriteCoolDown(list, role);
}

}  // namespace

void FillDualPipe(const ScheduleSpec& spec, Schedule& schedule) {
  const int p = spec.num_ranks;
  for (int rank = 0; rank < p; ++rank) {
    const int distance = std::min(rank, p - 1 - rank);
    // Direction 0 enters at rank 0, direction 1 at rank p-1; each half is led by its own end.
    StageId outer(rank);
    StageId inner(2 * p - 1 - rank);
    if (rank >= p / 2) {
      std::swap(outer, inner);
    }
    WriteRank(schedule, PipelineRank(rank),
              {.outer = outer,
               .inner = inner,
               .distance = distance,
               .depth = p / 2,
               .num_paired = spec.num_microbatches / 2 - p + distance + 1});
  }
}

std::string RefuseDualPipe(const ScheduleSpec& spec) {
  const int p = spec.num_ranks;
  const int m = spec.num_microbatches;
  if (p % 2 != 0) {
    return fmt::format(
        "two directions meet in the middle of an even number of ranks, not {}; take {} ranks, or "
        "use dualpipe-v",
        p, p + 1);
  }
  if (m % 2 != 0 || m < 2 * p) {
    return fmt::format(
        "{} ranks need an even number of microbatches, at least 2p = {}, not {}; take {}, or use "
        "zb-v",
        p, 2 * p, m, std::max(2 * p, m + m % 2));
  }
  return "";
}

void FillDualPipeV(const ScheduleSpec& spec, Schedule& schedule) {
  const int p = spec.num_ranks;
  for (int rank = 0; rank < p; ++rank) {
    WriteRank(schedule, PipelineRank(rank),
              {.outer = StageId(rank),
               .inner = StageId(2 * p - 1 - rank),
               .distance = rank,
               .depth = p,
               .num_paired = spec.num_microbatches - 2 * p + rank + 1});
  }
}

std::string RefuseDualPipeV(const ScheduleSpec& spec) {
  const int fewest = 2 * spec.num_ranks;
  if (spec.num_microbatches >= fewest) {
    return "";
  }
  return fmt::format("{} ranks need at least 2p = {} microbatches, not {}; take more, or use zb-v",
                     spec.num_ranks, fewest, spec.num_microbatches);
}

}  // namespace troupe
