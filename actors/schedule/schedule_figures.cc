#include "actors/schedule/schedule_figures.h"

#include <algorithm>
#include <cmath>

#include "actors/schedule/transforms.h"

namespace troupe {
namespace {

// Mean and standard error of what is added, by Welford's recurrence.
class Sampled {
 public:
  void Add(double value) {
    ++count_;
    const double distance = value - mean_;
    mean_ += distance / count_;
    squares_ += distance * (value - mean_);
  }
  Estimate estimate() const {
    const double variance = count_ > 1 ? squares_ / (count_ - 1) : 0;
    return {.mean = mean_, .standard_error = std::sqrt(variance / count_)};
  }

 private:
  double count_ = 0;
  double mean_ = 0;
  double squares_ = 0;
};

bool HasPairs(const Schedule& schedule) {
  return std::ranges::any_of(schedule.ranks, [](const std::vector<Action>& actions) {
    return std::ranges::any_of(actions, [](const Action& a) { return a.pair != kNotPaired; });
  });
}

class Sampling {
 public:
  Sampling(const ExecutableSchedule& executable, const CostModel& costs,
           const FigureOptions& options)
      : schedule_(executable.schedule), options_(options), costs_(costs) {
    CHECK(options.num_samples >= 1, "{} samples", options.num_samples);
    // What overlapped pairs may save is no schedule's that has none.
    if (!HasPairs(schedule_)) costs_.pair_factor = 1;
    heads_ = LowerBoundOf(schedule_, costs_);
    figures_.peak_activations.assign(static_cast<size_t>(schedule_.num_ranks), 0);
  }

  Status Run(const ExecutionPolicy& policy) {
    SimulateOptions simulate{.policy = policy, .held_for_weight = options_.held_for_weight};
    const Simulator drawn(schedule_, simulate);
    simulate.keep_bars = false;
    const Simulator counted(schedule_, simulate);
    for (int sample = 0; sample < options_.num_samples; ++sample) {
      const ActionTimes times(schedule_, costs_, options_.noise, static_cast<uint64_t>(sample));
      ASSIGN_OR_RETURN(Simulation run, (sample == 0 ? drawn : counted).Run(times));
      Add(run, times);
      if (sample == 0) figures_.timeline = std::move(run.timeline);
      if (options_.on_sample) options_.on_sample(sample + 1);
    }
    return {};
  }

  ScheduleFigures Figures(ExecutorMode mode) {
    figures_.makespan_ns = makespan_ns_.estimate();
    figures_.span_ns = span_ns_.estimate();
    figures_.bubble_makespan = bubble_makespan_.estimate();
    figures_.bubble_span = bubble_span_.estimate();
    figures_.bubble_makespan_ns = bubble_makespan_ns_.estimate();
    figures_.bubble_span_ns = bubble_span_ns_.estimate();
    figures_.excess = excess_.estimate();
    figures_.lower_bound_activations =
        options_.activations_max.value_or(std::ranges::max(figures_.peak_activations));
    figures_.lower_bound = LowerBoundOf(schedule_, costs_, figures_.lower_bound_activations);
    figures_.executed =
        mode == ExecutorMode::kStrict ? schedule_ : Frozen(schedule_, figures_.timeline);
    return std::move(figures_);
  }

 private:
  void Add(const Simulation& run, const ActionTimes& times) {
    makespan_ns_.Add(static_cast<double>(run.idle.makespan_ns));
    span_ns_.Add(static_cast<double>(run.idle.span_ns));
    bubble_makespan_.Add(run.idle.bubble_makespan);
    bubble_span_.Add(run.idle.bubble_span);
    bubble_makespan_ns_.Add(static_cast<double>(run.bubble_makespan_ns));
    bubble_span_ns_.Add(static_cast<double>(run.bubble_span_ns));
    for (size_t rank = 0; rank < run.peak_activations.size(); ++rank) {
      figures_.peak_activations[rank] =
          std::max(figures_.peak_activations[rank], run.peak_activations[rank]);
    }
    const double bound_ns = SampledBoundNs(times);
    if (bound_ns > 0) excess_.Add(static_cast<double>(run.idle.makespan_ns) / bound_ns - 1);
  }

  double SampledBoundNs(const ActionTimes& times) const {
    double bound_ns = 0;
    for (size_t rank = 0; rank < schedule_.ranks.size(); ++rank) {
      double work_ns = 0;
      for (const Action& action : schedule_.ranks[rank]) {
        if (IsCompute(action.kind)) work_ns += static_cast<double>(times.Ns(action));
      }
      const auto head_ns = static_cast<double>(heads_.ranks[rank].head_ns);
      bound_ns = std::max(bound_ns, head_ns + work_ns * std::min(1.0, costs_.pair_factor));
    }
    return bound_ns;
  }

  const Schedule& schedule_;
  const FigureOptions& options_;
  CostModel costs_;
  LowerBound heads_{};
  ScheduleFigures figures_{};
  Sampled makespan_ns_{};
  Sampled span_ns_{};
  Sampled bubble_makespan_{};
  Sampled bubble_span_{};
  Sampled bubble_makespan_ns_{};
  Sampled bubble_span_ns_{};
  Sampled excess_{};
};

}  // namespace

Result<ScheduleFigures> FiguresOf(const ExecutableSchedule& executable, const CostModel& costs,
                                  const FigureOptions& options) {
  Sampling sampling(executable, costs, options);
  RETURN_IF_ERROR(sampling.Run(executable.policy));
  return sampling.Figures(executable.policy.mode);
}

}  // namespace troupe
