// What no order of actions can beat on a placement: shortest makespan and span under an activation
// limit. Called to judge schedules and to choose among them. Pure.
//
// A rank cannot start before the first microbatch has come to it (head), and cannot run a backward
// before a microbatch has gone to the end of its direction and come back. Until then it runs only
// Forwards, and no more of them than its activations allow; the rest of that time is idle:
//   makespan >= max over ranks of  head + work + max(0, first backward - head - Forwards that fit)
//   span     >= max over ranks of  work + max(0, own first Forward to own first backward
//                                               - Forwards that fit)
// For equal stages of f, b, w a rank, one hop taking c, v chunks a rank and a limit of k:
//   loop           head r(f/v+c)              first backward pf+(pv-1)c+(p-1-r)(b/v+c)
//   v              head r(f/2+c)              first backward pf+2(p-1)c+r(b/2+c)
//   bidirectional  head min(r,p-1-r)(f+c)     first backward pf+(p-1)c+min(r,p-1-r)(b+c)
//   Forwards that fit: min(k,m)f
// Where overlapped pairs take less than their actions one after the other (CostModel::pair_factor
// below 1) every action may take as little as that part of its time, but for the Forwards that fit.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "actors/schedule/schedule.h"
#include "actors/schedule/simulator.h"

namespace troupe {

struct RankLowerBound {
  int64_t head_ns = 0;            // no Forward of the rank starts before
  int64_t first_backward_ns = 0;  // no backward of the rank starts before
  int64_t work_ns = 0;            // all its actions
  int64_t makespan_ns = 0;        // its last end, at best
  int64_t span_ns = 0;            // its own first start to last end, at best
};

struct LowerBound {
  std::vector<RankLowerBound> ranks{};
  int64_t makespan_ns = 0;
  int64_t span_ns = 0;
};

// `shape` gives placement, directions and microbatches; its lists are not read. Backwards may be
// split or whole, whichever is cheaper. `activations_max` is in microbatches of a rank's whole
// share.
LowerBound LowerBoundOf(const Schedule& shape, const CostModel& costs,
                        double activations_max = std::numeric_limits<double>::infinity());

}  // namespace troupe
