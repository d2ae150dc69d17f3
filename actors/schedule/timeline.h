// What ran when: the common form of a simulated and of a measured step, drawn by drawing.h.
// Times are nanoseconds since the step's common origin.
#pragma once

#include <cstdint>
#include <vector>

#include "actors/schedule/action.h"

namespace troupe {

struct Bar {
  PipelineRank rank{};
  Action action{};
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  // CPU time within the bar; the rest of it was spent waiting for a core. Planned bars have all of
  // it.
  int64_t cpu_ns = 0;
};

struct Timeline {
  int num_ranks = 0;
  std::vector<Bar> bars{};  // any order
};

// Idle time of a timeline. Rates are (T·ranks − work) / (T·ranks): *makespan* takes T from the
// first start to the last end over all ranks, *span* the longest single rank's own first start to
// last end. Of collectives those that take time count: a rank's last one towards its end, the first
// of all towards the makespan's start.
struct Idle {
  int64_t makespan_ns = 0;
  int64_t span_ns = 0;
  int64_t work_ns = 0;  // all compute bars of all ranks
  double bubble_makespan = 0;
  double bubble_span = 0;
};
// (length · ranks − work) / (length · ranks); 0 for an empty length.
double BubbleRate(int64_t work_ns, int64_t length_ns, int num_ranks);
Idle IdleOf(const Timeline& timeline);
// Bubble of one rank within the makespan, 0..1.
std::vector<double> BubbleByRank(const Timeline& timeline);

}  // namespace troupe
