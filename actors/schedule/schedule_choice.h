// The choice behind `auto`: every order that fits the memory limit is simulated with the costs at
// hand, and the fastest is taken. Called at the start of a job with measured costs (actors/plan),
// and by `troupe schedule auto`. Pure.
//
// The portfolio: gpipe, 1F1B, zero-bubble H1 and H2 on one chunk a rank; interleaved 1F1B and
// interleaved zero bubble on two and more; ZB-V, V-Half, V-Min, DualPipeV on a V; DualPipe where
// two copies of the weights are allowed. Orders with weight gradients of their own also run guided,
// in quarters, with slack up to the limit, and freely, where others than strict ones may be taken.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/schedule/action_costs.h"
#include "actors/schedule/execution_settings.h"
#include "actors/schedule/generators.h"

namespace troupe {

inline constexpr std::string_view kAutoSchedule = "auto";

struct ChoiceOptions {
  int num_ranks = 1;
  int num_microbatches = 1;
  double activation_limit = 0;  // most that a rank may hold, in microbatches of its whole share
  int chunks_max = 4;           // most stages of a rank and direction
  bool replicas = false;        // two copies of the weights are allowed
  bool strict = false;          // only orders that follow their lists
  PairMode pairs = PairMode::kEager;
  SettingStyle style = SettingStyle::kJobKey;  // how a refusal names the limit
  // The costs of the schedule's stages; kInfeasible where the model cannot be cut so finely.
  std::function<Result<CostModel>(const Schedule&)> costs{};
};

// One order of the portfolio.
struct ScheduleOrder {
  ScheduleSpec spec{};
  ExecutionSettings settings{};
  ExecutableSchedule executable{};
  double makespan_ns = 0;  // simulated
  double peak = 0;         // most activations that a rank may hold, whatever the times
};

// "zb-v, guided, weight gradients in 4 parts"
std::string Describe(const ScheduleOrder& order);

struct ScheduleChoice {
  std::vector<ScheduleOrder> ranked{};  // those that fit; the first is taken
  int num_simulated = 0;
};

// Fastest first. The best few are ranked under a mild noise, the same for all, so that an order
// that only holds by exact times does not win; among them the simplest leads of those that are
// slower than the best by no more than kWorthwhile. kInfeasible where nothing fits the limit.
Result<ScheduleChoice> ChooseSchedule(const ChoiceOptions& options);
inline constexpr double kWorthwhile = 0.01;

// Why the first was taken, in one line. 1 ns of costs is 1 ns, or as many as make a `unit`.
std::string ReasonFor(const ScheduleChoice& choice, const ChoiceOptions& options,
                      double ns_per_unit = 1e6, std::string_view unit = " ms");

// What `activation_limit` is where nobody gives it: one and a half times a rank's share of 1F1B's
// activations, the least that leaves a V without bubbles (but never below 2).
double DefaultActivationLimit(int num_ranks);

// Ranks times microbatches that a choice simulates in a second or two.
inline constexpr int64_t kChoiceMax = 8192;

}  // namespace troupe
