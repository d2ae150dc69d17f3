// From lists to a schedule that executors follow: the settings of an executor, as users give them
// in a job's keys or as flags, and what follows from them. Called for a training step (actors/plan)
// and by `troupe schedule`. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "actors/schedule/execution_policy.h"
#include "actors/schedule/schedule.h"
#include "actors/schedule/validator.h"

namespace troupe {

// How messages spell a setting: "parallelism.weight_parts = 0" or "--weight-parts 0".
enum class SettingStyle : uint8_t { kJobKey, kFlag };

inline constexpr int kWeightPartsMax = 64;

// What is not given follows from the lists: `dynamic` runs free, within one and a half times a
// rank's share of a 1F1B pipeline's activations and with weight gradients in four parts, the
// measured best in memory and time; all others run strict and whole.
struct ExecutionSettings {
  std::optional<std::string> executor{};         // strict, guided, free-run
  std::optional<double> activation_slack{};      // guided: microbatches above the list's own peak
  std::optional<double> activation_limit{};      // free-run: microbatches (flag: --memory-limit)
  std::optional<int> weight_parts{};             // 1 to kWeightPartsMax
  std::optional<std::string> pairs{};            // eager, fused
  std::optional<std::string> backward_output{};  // end, input
  SettingStyle style = SettingStyle::kJobKey;
  std::string lists_name{};  // where the lists are from; begins messages about them
};

struct ExecutableSchedule {
  Schedule schedule{};
  ExecutionPolicy policy{};
  ScheduleReport report{};  // of the lists
};

// The mode that the settings ask for, or that the lists have by themselves.
Result<ExecutorMode> ExecutorModeOf(const Schedule& lists, const ExecutionSettings& settings);

// Every setting that cannot be, kInvalidSpec by its name. Without `lists` (null: they cannot be
// read) only what does not depend on them.
std::vector<Error> CheckSettings(const Schedule* lists, const ExecutionSettings& settings);

// kInvalidSpec by the setting's name, or with row and cell where the lists cannot run.
Result<ExecutableSchedule> MakeExecutable(Schedule lists, const ExecutionSettings& settings);

}  // namespace troupe
