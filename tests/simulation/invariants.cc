#include "tests/simulation/invariants.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

namespace troupe::testing {
namespace {

constexpr int64_t kTurnNs = 5'000'000;  // a passed deadline is said in its process' next turn
constexpr int64_t kSecondNs = 1'000'000'000;

// Whether the parts between the stars follow one another in the text.
bool Matches(std::string_view text, std::string_view pattern) {
  for (;;) {
    const size_t star = pattern.find('*');
    const std::string_view part = pattern.substr(0, star);
    const size_t at = text.find(part);
    if (at == std::string_view::npos) return false;
    if (star == std::string_view::npos) return true;
    text.remove_prefix(at + part.size());
    pattern.remove_prefix(star + 1);
  }
}

}  // namespace

void Invariants::StageLoaded(uint64_t job, uint64_t epoch, int32_t stage, int64_t step) {
  Start& start = starts_[{job, epoch}];
  if (!start.step_of_stage.emplace(stage, step).second) {
    return Violate("stage {} of job {}.{} was loaded twice", stage, job, epoch);
  }
  start.loaded_step = step;
  for (const auto& [other, at] : start.step_of_stage) {
    if (at == step || start.step_told) continue;
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
  const std::optional<int64_t> before = start.step_told ? start.step_told : start.loaded_step;
  if (step != before.value_or(0) + 1) {
    return Violate("job {}.{}: step {} is told after step {}", job, epoch, step,
                   before.value_or(0));
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

void Invariants::LookAtAgentOf(const SeenProcess& process) {
  if (process.agent_lives) return;
  Violate("process {} lives, its agent on host {} does not", process.pid, process.host);
}

void Invariants::LookAtJobOf(const SeenProcess& process, int64_t now_ns) {
  if (!process.rank) return;
  if (process.job_lives) {
    orphan_since_ns_.erase(process.pid);
    return;
  }
  const int64_t since_ns = orphan_since_ns_.try_emplace(process.pid, now_ns).first->second;
  if (now_ns - since_ns <= kOrphanNs) return;
  Violate("process {} (rank {} of job {}) lives, its job does not", process.pid, *process.rank,
          process.job);
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

void Invariants::JobEnded(const SeenEnd& end, const PossibleEnds& possible) {
  if (end.lost) {
    if (!possible.loss) Violate("the coordinator of job {} was lost", end.job);
    return;
  }
  if (end.succeeded) {
    if (!possible.success) Violate("job {} has succeeded all the same", end.job);
    if (end.last_step == end.num_steps) return;
    return Violate("job {} has succeeded at step {} of {}", end.job, end.last_step, end.num_steps);
  }
  const auto explains = [&end](const std::string& cause) { return Matches(end.reason, cause); };
  if (std::ranges::any_of(possible.causes, explains)) return;
  Violate("the cause is told as \"{}\", not as {}", end.reason,
          possible.causes.empty() ? "a success"
                                  : fmt::format("{}", fmt::join(possible.causes, " or ")));
}

void Invariants::JobIsOpen(uint64_t job, int64_t since_ns, int64_t now_ns) {
  if (now_ns - since_ns < kJobLimitNs) return;
  Violate("job {} has not ended after {} s", job, (now_ns - since_ns) / kSecondNs);
}

}  // namespace troupe::testing
