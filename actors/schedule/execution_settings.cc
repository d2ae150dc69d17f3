#include "actors/schedule/execution_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "actors/schedule/deadlock.h"
#include "actors/schedule/transforms.h"

namespace troupe {
namespace {

constexpr double kDynamicLimit = 1.5;  // a rank
constexpr int kDynamicParts = 4;       // a filler blocks at most a quarter of a weight gradient
constexpr double kActivationsMax = 1e6;

class Reading {
 public:
  Reading(const Schedule& lists, const ExecutionSettings& settings)
      : lists_(lists), settings_(settings) {}

  Result<ExecutorMode> Mode() const {
    if (!settings_.executor) {
      return lists_.name == "dynamic" ? ExecutorMode::kFreeRun : ExecutorMode::kStrict;
    }
    auto mode = ParseExecutorMode(*settings_.executor);
    if (!mode.ok())
      return Refuse("executor", *settings_.executor, "use strict, guided or free-run");
    return mode;
  }

  Result<ExecutionPolicy> Policy() const {
    ExecutionPolicy policy;
    ASSIGN_OR_RETURN(policy.mode, Mode());
    ASSIGN_OR_RETURN(policy.pairs, Pairs());
    ASSIGN_OR_RETURN(policy.activation_slack, Slack(policy.mode));
    ASSIGN_OR_RETURN(policy.activation_limit, Limit(policy.mode));
    return policy;
  }

  Result<int> WeightParts(ExecutorMode mode) const {
    const int parts =
        settings_.weight_parts.value_or(mode == ExecutorMode::kFreeRun ? kDynamicParts : 1);
    if (parts >= 1 && parts <= kWeightPartsMax) return parts;
    return Refuse("weight_parts", parts, fmt::format("use 1 to {}", kWeightPartsMax));
  }

  Result<bool> SplitsBackwards() const {
    const std::string output = settings_.backward_output.value_or("end");
    if (output == "end" || output == "input") return output == "input";
    return Refuse("backward_output", output,
                  "use end (with the whole backward) or input (after its input half)");
  }

  // "parallelism.executor = strict" or "--executor strict".
  template <typename T>
  std::string Spelled(std::string_view key, const T& value) const {
    if (settings_.style == SettingStyle::kJobKey) {
      return fmt::format("parallelism.{} = {}", key, value);
    }
    std::string flag(key == "activation_limit" ? "memory_limit" : key);
    for (char& c : flag) c = c == '_' ? '-' : c;
    return fmt::format("--{} {}", flag, value);
  }

  template <typename T>
  Error Refuse(std::string_view key, const T& value, std::string_view why) const {
    return MakeError(ErrorCode::kInvalidSpec, "{}: {}", Spelled(key, value), why);
  }

  Result<PairMode> Pairs() const {
    if (!settings_.pairs) return PairMode::kEager;
    auto pairs = ParsePairMode(*settings_.pairs);
    if (!pairs.ok()) return Refuse("pairs", *settings_.pairs, "use eager or fused");
    return pairs;
  }

  Result<double> Slack(ExecutorMode mode) const {
    const double slack = settings_.activation_slack.value_or(0);
    if (!(slack >= 0) || slack > kActivationsMax) {
      return Refuse("activation_slack", slack,
                    "use 0 (only weight gradients jump the queue) or more microbatches");
    }
    if (slack > 0 && mode != ExecutorMode::kGuided) {
      return RefuseInMode("activation_slack", slack, ExecutorMode::kGuided, mode);
    }
    return slack;
  }

  Result<double> Limit(ExecutorMode mode) const {
    if (mode != ExecutorMode::kFreeRun) {
      if (!settings_.activation_limit) return 0.0;
      return RefuseInMode("activation_limit", *settings_.activation_limit, ExecutorMode::kFreeRun,
                          mode);
    }
    if (!lists_.edges.empty()) {
      return Refuse("executor", ExecutorModeName(mode),
                    "it is for a chain of stages; use strict or guided");
    }
    // What free-run keeps room for, so that it never stands still, is one chunk of each direction.
    for (int rank = 0; lists_.num_directions > 1 && rank < lists_.num_ranks; ++rank) {
      if (static_cast<int>(lists_.StagesOf(PipelineRank(rank)).size()) <= lists_.num_directions)
        continue;
      return Refuse("executor", ExecutorModeName(mode),
                    "in two directions it needs a schedule of one chunk a rank and direction; use "
                    "strict or guided");
    }
    const double limit = settings_.activation_limit.value_or(kDynamicLimit * lists_.num_ranks);
    if (limit >= lists_.num_directions && limit <= kActivationsMax) return limit;
    return Refuse("activation_limit", limit,
                  lists_.num_directions == 1
                      ? "a rank must hold 1 microbatch or more"
                      : "a rank must hold a microbatch of each direction: use 2 or more");
  }

 private:
  Error RefuseInMode(std::string_view key, double value, ExecutorMode its,
                     ExecutorMode mode) const {
    return Refuse(key, value,
                  fmt::format("it is for {}, not {}", Spelled("executor", ExecutorModeName(its)),
                              ExecutorModeName(mode)));
  }

  const Schedule& lists_;
  const ExecutionSettings& settings_;
};

}  // namespace

namespace {

// Where the first collective stands; empty: there is none.
std::string FirstCollective(const Schedule& schedule) {
  for (PipelineRank rank{}; rank.value < schedule.num_ranks; rank = rank.Next()) {
    const std::vector<Action>& actions = schedule.ActionsOf(rank);
    const auto found = std::ranges::find_if(actions, IsCollective, &Action::kind);
    if (found == actions.end()) continue;
    return CellName(schedule, rank, static_cast<size_t>(found - actions.begin()));
  }
  return "";
}

}  // namespace

Result<ExecutorMode> ExecutorModeOf(const Schedule& lists, const ExecutionSettings& settings) {
  return Reading(lists, settings).Mode();
}

std::vector<Error> CheckSettings(const Schedule* lists, const ExecutionSettings& settings) {
  const Schedule unknown;
  const Reading reading(lists == nullptr ? unknown : *lists, settings);
  std::vector<Error> errors;
  const auto collect = [&errors](const auto& read) {
    if (!read.ok()) errors.push_back(read.error());
  };
  const auto mode = reading.Mode();
  collect(mode);
  collect(reading.Pairs());
  if (lists != nullptr && mode.ok()) {
    collect(reading.Slack(*mode));
    collect(reading.Limit(*mode));
  }
  collect(reading.WeightParts(ExecutorMode::kStrict));
  collect(reading.SplitsBackwards());
  return errors;
}

Result<ExecutableSchedule> MakeExecutable(Schedule lists, const ExecutionSettings& settings) {
  const Reading reading(lists, settings);
  ExecutableSchedule executable;
  ASSIGN_OR_RETURN(executable.policy, reading.Policy());
  ASSIGN_OR_RETURN(const int parts, reading.WeightParts(executable.policy.mode));
  ASSIGN_OR_RETURN(const bool split, reading.SplitsBackwards());
  executable.schedule = split ? WithSplitBackward(lists) : lists;
  if (parts > 1) executable.schedule = WithWeightParts(executable.schedule, parts);
  auto report = Validate(executable.schedule, {.pairs = executable.policy.pairs});
  if (!report.ok()) return Context(settings.lists_name, std::move(report).error());
  executable.report = *std::move(report);
  if (const std::string cell = FirstCollective(executable.schedule); !cell.empty()) {
    const ExecutionPolicy& policy = executable.policy;
    if (policy.mode == ExecutorMode::kFreeRun) {
      return reading.Refuse("executor", ExecutorModeName(policy.mode),
                            fmt::format("{}: it has a place in a list, and free-run follows none; "
                                        "use strict or guided",
                                        cell));
    }
    if (policy.activation_slack > 0) {
      return reading.Refuse(
          "activation_slack", policy.activation_slack,
          fmt::format("{}: a pass that jumps the queue leaves the place where the "
                      "list gathers its parameters; use 0",
                      cell));
    }
  }
  if (!executable.report.ascending && executable.policy.mode != ExecutorMode::kStrict) {
    return reading.Refuse(
        "executor", ExecutorModeName(executable.policy.mode),
        fmt::format(
            "schedule {} does not run every stage's microbatches in ascending order; use {}",
            lists.name, reading.Spelled("executor", "strict")));
  }
  return executable;
}

}  // namespace troupe
