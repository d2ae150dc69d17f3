#include "actors/schedule/loop_generators.h"

#include <algorithm>

#include "actors/schedule/list_writer.h"

namespace troupe {
namespace {

// The order in which an interleaved schedule takes (microbatch, chunk): groups of `group`
// microbatches pass through all chunks. Only the chunk matters, for microbatches count up by
// themselves.
std::vector<int> ChunkOrder(const ScheduleSpec& spec) {
  std::vector<int> chunks;
  for (int first = 0; first < spec.num_microbatches; first += spec.group) {
    const int size = std::min(spec.group, spec.num_microbatches - first);
    for (int chunk = 0; chunk < spec.chunks_per_rank; ++chunk) {
      chunks.insert(chunks.end(), size, chunk);
    }
  }
  return chunks;
}

// Stages of the k-th Forward and the k-th backward of a rank.
class InterleavedOrder {
 public:
  InterleavedOrder(const ScheduleSpec& spec, int rank)
      : spec_(spec), rank_(rank), chunks_(ChunkOrder(spec)) {}
  size_t size() const { return chunks_.size(); }
  StageId Forward(size_t k) const { return StageId(chunks_[k] * spec_.num_ranks + rank_); }
  StageId Backward(size_t k) const {
    const int chunk = spec_.chunks_per_rank - 1 - chunks_[k];
    return StageId(chunk * spec_.num_ranks + rank_);
  }

 private:
  const ScheduleSpec& spec_;
  int rank_;
  std::vector<int> chunks_;
};

// `runs_ahead` = 1: as many Forwards ahead as in 1F1B; 2: twice as many, which fills the warm-up.
void FillZeroBubbleH(const ScheduleSpec& spec, Schedule& schedule, int runs_ahead) {
  const int m = spec.num_microbatches;
  const int most_ahead = (spec.num_ranks - 1) * runs_ahead;
  for (int rank = 0; rank < spec.num_ranks; ++rank) {
    const StageId stage(rank);
    const int warmup = (spec.num_ranks - 1 - rank) * runs_ahead;
    ListWriter list(schedule, PipelineRank(rank));
    for (int i = 0; i < warmup; ++i) {
      list.Forward(stage);
    }
    for (int i = 0; i < m; ++i) {
      if (warmup + i < m) {
        list.Forward(stage);
      }
      list.BackwardInput(stage);
      if (warmup + i >= most_ahead) {
        list.BackwardWeight(stage);
      }
    }
    list.AllOwedWeights();
  }
}

}  // namespace

void FillGpipe(const ScheduleSpec& spec, Schedule& schedule) {
  FillLoopedBreadthFirst(spec, schedule);  // with one chunk
}

void FillOneForwardOneBackward(const ScheduleSpec& spec, Schedule& schedule) {
  const int m = spec.num_microbatches;
  for (int rank = 0; rank < spec.num_ranks; ++rank) {
    const StageId stage(rank);
    const int warmup = std::min(m, spec.num_ranks - 1 - rank);
    ListWriter list(schedule, PipelineRank(rank));
    for (int i = 0; i < warmup; ++i) {
      list.Forward(stage);
    }
    for (int i = 0; i < m; ++i) {
      if (warmup + i < m) {
        list.Forward(stage);
      }
      list.Backward(stage);
    }
  }
}

void FillLoopedBreadthFirst(const ScheduleSpec& spec, Schedule& schedule) {
  for (int rank = 0; rank < spec.num_ranks; ++rank) {
    ListWriter list(schedule, PipelineRank(rank));
    for (int chunk = 0; chunk < spec.chunks_per_rank; ++chunk) {
      for (int i = 0; i < spec.num_microbatches; ++i) {
        list.Forward(StageId(chunk * spec.num_ranks + rank));
      }
    }
    for (int chunk = spec.chunks_per_rank - 1; chunk >= 0; --chunk) {
      for (int i = 0; i < spec.num_microbatches; ++i) {
        list.Backward(StageId(chunk * spec.num_ranks + rank));
      }
    }
  }
}

void FillInterleaved(const ScheduleSpec& spec, Schedule& schedule) {
  for (int rank = 0; rank < spec.num_ranks; ++rank) {
    const InterleavedOrder order(spec, rank);
    const int ahead = 2 * (spec.num_ranks - 1 - rank) + (spec.chunks_per_rank - 1) * spec.group;
    const size_t warmup = std::min(order.size(), static_cast<size_t>(ahead));
    ListWriter list(schedule, PipelineRank(rank));
    for (size_t k = 0; k < warmup; ++k) {
      list.Forward(order.Forward(k));
    }
    for (size_t k = 0; k < order.size(); ++k) {
      if (warmup + k < order.size()) {
        list.Forward(order.Forward(warmup + k));
      }
      list.Backward(order.Backward(k));
    }
  }
}

void FillInterleavedZeroBubble(const ScheduleSpec& spec, Schedule& schedule) {
  for (int rank = 0; rank < spec.num_ranks; ++rank) {
    const InterleavedOrder order(spec, rank);
    const int ahead = spec.num_ranks - 1 - rank + (spec.chunks_per_rank - 1) * spec.group;
    const size_t warmup = std::min(order.size(), static_cast<size_t>(ahead));
    ListWriter list(schedule, PipelineRank(rank));
    for (size_t k = 0; k < warmup; ++k) {
      list.Forward(order.Forward(k));
    }
    for (size_t k = 0; k < order.size(); ++k) {
      if (warmup + k < order.size()) {
        list.Forward(order.Forward(warmup + k));
      }
      list.BackwardInput(order.Backward(k));
      if (k >= static_cast<size_t>(rank)) {
        list.OldestBackwardWeight();
      }
    }
    list.AllOwedWeights();
  }
}

std::string RefuseInterleaved(const ScheduleSpec& spec) {
  const int p = spec.num_ranks;
  const int m = spec.num_microbatches;
  const int group = spec.group;
  if (m < p && group == m) {
    return "";  // one group, smaller than the pipeline
  }
  if (group < p || group > m) {
    return fmt::format(
        "groups of {} microbatches, but a group is at least the {} ranks and at most the {} "
        "microbatches; leave the group out, or set it between them",
        group, p, m);
  }
  if (const int rest = m % group; rest != 0 && rest < p) {
    return fmt::format(
        "{} microbatches in groups of {} leave {}, which must be 0 or at least the {} ranks; "
        "take {} microbatches, or set the group to {}",
        m, group, rest, p, m - rest + group, m);
  }
  return "";
}

void FillZeroBubbleH1(const ScheduleSpec& spec, Schedule& schedule) {
  FillZeroBubbleH(spec, schedule, 1);
}

void FillZeroBubbleH2(const ScheduleSpec& spec, Schedule& schedule) {
  FillZeroBubbleH(spec, schedule, 2);
}

std::string RefuseZeroBubbleH1(const ScheduleSpec& spec) {
  if (spec.num_microbatches >= spec.num_ranks) {
    return "";
  }
  return fmt::format(
      "{0} ranks need at least {0} microbatches, not {1}; take more, or use 1f1b or zb-v",
      spec.num_ranks, spec.num_microbatches);
}

std::string RefuseZeroBubbleH2(const ScheduleSpec& spec) {
  const int fewest = 2 * spec.num_ranks - 1;
  if (spec.num_microbatches >= fewest) {
    return "";
  }
  return fmt::format(
      "{} ranks need at least 2p-1 = {} microbatches, not {}; take more, or use zb-h1 or zb-v",
      spec.num_ranks, fewest, spec.num_microbatches);
}

}  // namespace troupe
