// TraceWindow: which steps of a run are traced (log.trace). Ranks record the spans of these steps
// and how their memory went, and the run directory writes a file for each window. A value; any
// thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "proto/job.pb.h"

namespace troupe {

class TraceWindow {
 public:
  // What `log.trace: true` stands for.
  static constexpr int32_t kFirst = 1;
  static constexpr int32_t kSteps = 4;
  static constexpr int32_t kEvery = 0;

  TraceWindow() = default;  // covers no step
  // `first_step`: the first that this run makes.
  TraceWindow(const proto::TraceWindow& spec, int64_t first_step)
      : run_first_(first_step),
        first_(spec.every() > 0 ? spec.first() : std::max<int64_t>(spec.first(), first_step)),
        steps_(spec.steps()),
        every_(spec.every()) {}

  bool Covers(int64_t step) const {
    if (step < std::max(first_, run_first_) || steps_ <= 0) return false;
    return (every_ > 0 ? (step - first_) % every_ : step - first_) < steps_;
  }
  // Of the window that covers `step`.
  int64_t FirstOf(int64_t step) const { return std::max(StartOf(step), run_first_); }
  int64_t LastOf(int64_t step) const { return StartOf(step) + steps_ - 1; }

 private:
  int64_t StartOf(int64_t step) const {
    return every_ > 0 ? step - (step - first_) % every_ : first_;
  }

  int64_t run_first_ = 1;
  int64_t first_ = 1;
  int64_t steps_ = 0;
  int64_t every_ = 0;
};

}  // namespace troupe
