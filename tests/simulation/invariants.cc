#include "tests/simulation/invariants.h"

#include <algorithm>

namespace troupe::testing {
namespace {

constexpr int64_t kTurnNs = 5'000'000;  // a passed deadline is said in its process' next turn

}  // namespace

void Invariants::StageLoaded(uint64_t job, uint64_t epoch, int32_t stage, int64_t step) {
  Start& start = starts_[{job, epoch}];
  if (!start.step_of_stage.emplace(stage, step).second) {
    return Violate("stage {} of job {}.{} was loaded twice", stage, job, epoch);
  }
  for (const auto& [other, at] : start.step_of_stage) {
    if (at == step || start.step_told >= 0) continue;
    Violate("job {}.{}: stage {} was loaded with step {}, stage {} with step {}", job, epoch, stage,
            step, other, at);
  }
}

void Invariants::StageUpdates(uint64_t job, uint64_t epoch, int32_t stage,
                              const ApplyUpdate& update) {
  Start& start = starts_[{job, epoch}];
  int64_t& step = start.step_of_stage[stage];
  if (update.step != step + 1 || !update.apply) {
    return Violate("job {}.{}: stage {} at step {} is told to commit step {}", job, epoch, stage,
                   step, update.step);
  }
  step = update.step;
  const auto [factor, first] = start.factor_of_step.emplace(step, update.gradient_factor);
  if (factor->second != update.gradient_factor) {
    Violate("job {}.{}: step {} is committed twice, with {} and {}", job, epoch, step,
            factor->second, update.gradient_factor);
  }
}

void Invariants::StepTold(uint64_t job, uint64_t epoch, int64_t step, double loss,
                          double expected_loss) {
  Start& start = starts_[{job, epoch}];
  if (start.step_told >= 0 && step != start.step_told + 1) {
    return Violate("job {}.{}: step {} is told after step {}", job, epoch, step, start.step_told);
  }
  start.step_told = step;
  for (const auto& [stage, at] : start.step_of_stage) {
    if (at >= step) continue;
    Violate("job {}.{}: step {} is told, and stage {} stands at {}", job, epoch, step, stage, at);
  }
  if (loss != expected_loss) {
    Violate("job {}.{}: step {} has loss {}, not {}", job, epoch, step, loss, expected_loss);
  }
}

void Invariants::WarningSaid(int64_t process, const std::string& text) {
  warnings_[process].insert(text);
}

void Invariants::LookAtWaits(int64_t process, const WaitBoard& waits, int64_t now_ns) {
  for (const WaitRecord& wait : waits.Snapshot()) {
    if (now_ns - kTurnNs < wait.deadline_ns) continue;
    const auto names_waiter = [&](const std::string& text) {
      return text.starts_with(wait.waiter);
    };
    if (wait.overdue && std::ranges::any_of(warnings_[process], names_waiter)) continue;
    Violate("the deadline of \"{} waits for {} from {}\" passed {} ms ago, and nothing was said",
            wait.waiter, wait.owed, wait.from, (now_ns - wait.deadline_ns) / 1'000'000);
  }
}

}  // namespace troupe::testing
