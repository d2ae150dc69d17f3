#include "actors/schedule/timeline.h"

#include <algorithm>
#include <limits>

namespace troupe {
namespace {

struct Extent {
  int64_t first_start_ns = std::numeric_limits<int64_t>::max();
  int64_t last_end_ns = std::numeric_limits<int64_t>::min();
  int64_t work_ns = 0;

  bool empty() const { return first_start_ns > last_end_ns; }
  int64_t length_ns() const { return empty() ? 0 : last_end_ns - first_start_ns; }
  void Add(const Bar& bar) {
    Extend(bar.start_ns, bar.end_ns);
    work_ns += bar.end_ns - bar.start_ns;
  }
  void Extend(int64_t start_ns, int64_t end_ns) {
    first_start_ns = std::min(first_start_ns, start_ns);
    last_end_ns = std::max(last_end_ns, end_ns);
  }
};

struct Extents {
  Extent whole;
  std::vector<Extent> ranks;
};

Extents Measure(const Timeline& timeline) {
  Extents extents;
  extents.ranks.resize(timeline.num_ranks);
  for (const Bar& bar : timeline.bars) {
    if (IsCompute(bar.action.kind)) {
      extents.whole.Add(bar);
      extents.ranks[bar.rank.value].Add(bar);
    } else if (bar.end_ns > bar.start_ns) {
      extents.whole.Extend(bar.start_ns, bar.end_ns);
      extents.ranks[bar.rank.value].Extend(std::numeric_limits<int64_t>::max(), bar.end_ns);
    }
  }
  return extents;
}

}  // namespace

double BubbleRate(int64_t work_ns, int64_t length_ns, int num_ranks) {
  const double available = static_cast<double>(length_ns) * num_ranks;
  return available > 0 ? 1.0 - static_cast<double>(work_ns) / available : 0.0;
}

Idle IdleOf(const Timeline& timeline) {
  const Extents extents = Measure(timeline);
  Idle idle;
  idle.makespan_ns = extents.whole.length_ns();
  idle.work_ns = extents.whole.work_ns;
  for (const Extent& rank : extents.ranks) {
    idle.span_ns = std::max(idle.span_ns, rank.length_ns());
  }
  idle.bubble_makespan = BubbleRate(idle.work_ns, idle.makespan_ns, timeline.num_ranks);
  idle.bubble_span = BubbleRate(idle.work_ns, idle.span_ns, timeline.num_ranks);
  return idle;
}

std::vector<double> BubbleByRank(const Timeline& timeline) {
  const Extents extents = Measure(timeline);
  std::vector<double> bubbles;
  bubbles.reserve(extents.ranks.size());
  for (const Extent& rank : extents.ranks) {
    bubbles.push_back(BubbleRate(rank.work_ns, extents.whole.length_ns(), 1));
  }
  return bubbles;
}

}  // namespace troupe
