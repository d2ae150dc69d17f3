#include "actors/schedule/schedule_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "actors/schedule/simulator.h"

namespace troupe {
namespace {

constexpr int kParts = 4;               // of a weight gradient that fills gaps
constexpr double kFreeRunRanks = 1.25;  // below that many ranks' activations free-run convoys
constexpr size_t kFinalists = 8;
constexpr int kNoiseSamples = 4;
constexpr double kNoiseSigma = 0.1;
constexpr int64_t kNoiseActionsMax = 1'000'000;  // of all finalists together
constexpr double kRounding = 1e-9;

struct Family {
  std::string_view name;
  int chunks = 1;
};

std::vector<Family> FamiliesOf(const ChoiceOptions& options) {
  std::vector<Family> families = {{"1f1b"}, {"gpipe"}, {"zb-h1"}, {"zb-h2"}};
  if (options.num_ranks == 1) return {{"1f1b"}};  // one rank never waits
  if (options.chunks_max >= 2) {
    for (const std::string_view name : {"zb-v", "v-half", "v-min", "dualpipe-v"}) {
      families.push_back({name, 2});
    }
  }
  for (int chunks = 2; chunks <= options.chunks_max; ++chunks) {
    families.push_back({"interleaved-1f1b", chunks});
    families.push_back({"interleaved-zb", chunks});
  }
  if (options.replicas) families.push_back({"dualpipe"});
  return families;
}

bool HasWeightGradients(const Schedule& lists) {
  return std::ranges::any_of(lists.ranks, [](const std::vector<Action>& actions) {
    return std::ranges::any_of(
        actions, [](const Action& action) { return action.kind == ActionKind::kBackwardWeight; });
  });
}

double MostOf(const std::vector<double>& peaks) {
  return peaks.empty() ? 0 : *std::ranges::max_element(peaks);
}

// How much an order asks of its reader: among equals the simplest leads.
int Complexity(const ScheduleOrder& order) {
  int complexity = order.spec.chunks_per_rank - 1;
  if (HasWeightGradients(order.executable.schedule)) ++complexity;
  if (order.settings.weight_parts.value_or(1) > 1) ++complexity;
  if (order.executable.policy.mode == ExecutorMode::kGuided) complexity += 2;
  if (order.executable.policy.activation_slack > 0) ++complexity;
  if (order.executable.policy.mode == ExecutorMode::kFreeRun) complexity += 4;
  return complexity;
}

class Portfolio {
 public:
  explicit Portfolio(const ChoiceOptions& options) : options_(options) {}

  Result<ScheduleChoice> Rank() {
    for (const Family& family : FamiliesOf(options_)) AddFamily(family);
    auto& ranked = choice_.ranked;
    if (ranked.empty()) {
      if (refusal_ && choice_.num_simulated == 0) return *std::move(refusal_);
      return MakeError(ErrorCode::kInfeasible,
                       "{} {:g}: no schedule of {} ranks holds so few microbatches; the leanest "
                       "needs {:g}",
                       options_.style == SettingStyle::kFlag ? "--memory-limit"
                                                             : "parallelism.activation_limit =",
                       options_.activation_limit, options_.num_ranks, least_peak_);
    }
    Sort();
    PutBestFirst(MeetNoise());
    return std::move(choice_);
  }

 private:
  void AddFamily(const Family& family) {
    const ScheduleSpec spec{.name = std::string(family.name),
                            .num_ranks = options_.num_ranks,
                            .num_microbatches = options_.num_microbatches,
                            .chunks_per_rank = family.chunks};
    auto lists = Generate(spec);
    if (!lists.ok()) return;  // not of this shape
    auto costs = options_.costs(*lists);
    if (!costs.ok()) {
      if (!refusal_) refusal_ = std::move(costs).error();
      return;
    }
    const auto base = Add(spec, {}, *lists, *costs);
    if (options_.strict || !HasWeightGradients(*lists)) return;
    Add(spec, {.executor = "guided"}, *lists, *costs);
    Add(spec, {.executor = "guided", .weight_parts = kParts}, *lists, *costs);
    const double slack = options_.activation_limit - base.value_or(options_.activation_limit);
    if (slack > kRounding) {
      Add(spec, {.executor = "guided", .activation_slack = slack, .weight_parts = kParts}, *lists,
          *costs);
    }
    // Free-run asks only for placement and stages, so one family of each is enough.
    const bool runs_free =
        family.name == "zb-h1" || family.name == "interleaved-zb" || family.name == "zb-v";
    if (runs_free && options_.activation_limit >= kFreeRunRanks * options_.num_ranks) {
      Add(spec,
          {.executor = "free-run",
           .activation_limit = options_.activation_limit,
           .weight_parts = kParts},
          *lists, *costs);
    }
  }

  // The order's peak; nothing where it cannot run.
  std::optional<double> Add(const ScheduleSpec& spec, ExecutionSettings settings,
                            const Schedule& lists, const CostModel& costs) {
    if (options_.pairs != PairMode::kEager) settings.pairs = PairModeName(options_.pairs);
    auto executable = MakeExecutable(lists, settings);
    if (!executable.ok() || !executable->report.ascending) return {};
    auto run =
        Simulate(executable->schedule, costs, {.policy = executable->policy, .keep_bars = false});
    if (!run.ok()) return {};
    ++choice_.num_simulated;
    // What weight gradients that jump the queue free early, they free at other times too late to
    // count on: then the list's own peak holds.
    double peak = MostOf(run->peak_activations);
    if (executable->policy.mode == ExecutorMode::kGuided) {
      peak = MostOf(executable->report.peak_activations) + executable->policy.activation_slack;
    }
    least_peak_ = least_peak_ == 0 ? peak : std::min(least_peak_, peak);
    if (peak > options_.activation_limit + kRounding) return peak;
    num_actions_.push_back(run->num_actions);
    costs_.push_back(costs);
    choice_.ranked.push_back({.spec = spec,
                              .settings = std::move(settings),
                              .executable = *std::move(executable),
                              .makespan_ns = static_cast<double>(run->idle.makespan_ns),
                              .peak = peak});
    return peak;
  }

  // Orders, their costs and their sizes side by side.
  void Sort() {
    std::vector<size_t> by_time(choice_.ranked.size());
    for (size_t i = 0; i < by_time.size(); ++i) by_time[i] = i;
    std::ranges::stable_sort(by_time, {},
                             [this](size_t i) { return choice_.ranked[i].makespan_ns; });
    std::vector<ScheduleOrder> ranked;
    std::vector<CostModel> costs;
    std::vector<int64_t> num_actions;
    for (const size_t i : by_time) {
      ranked.push_back(std::move(choice_.ranked[i]));
      costs.push_back(std::move(costs_[i]));
      num_actions.push_back(num_actions_[i]);
    }
    choice_.ranked = std::move(ranked);
    costs_ = std::move(costs);
    num_actions_ = std::move(num_actions);
  }

  // Mean makespans of the finalists, in the order of choice_.ranked.
  std::vector<double> MeetNoise() const {
    const size_t finalists = std::min(kFinalists, choice_.ranked.size());
    std::vector<double> means_ns;
    int64_t actions = 0;
    for (size_t i = 0; i < finalists; ++i) {
      means_ns.push_back(choice_.ranked[i].makespan_ns);
      actions += kNoiseSamples * num_actions_[i];
    }
    if (actions > kNoiseActionsMax) return means_ns;
    for (size_t i = 0; i < finalists; ++i) {
      const ScheduleOrder& order = choice_.ranked[i];
      const Simulator simulator(order.executable.schedule,
                                {.policy = order.executable.policy, .keep_bars = false});
      double sum_ns = 0;
      for (int sample = 0; sample < kNoiseSamples; ++sample) {
        const ActionTimes times(order.executable.schedule, costs_[i], {.sigma = kNoiseSigma},
                                static_cast<uint64_t>(sample));
        const auto run = simulator.Run(times);
        CHECK(run.ok(), "{} ran without noise: {}", Describe(order), run.error().message);
        sum_ns += static_cast<double>(run->idle.makespan_ns);
      }
      means_ns[i] = sum_ns / kNoiseSamples;
    }
    return means_ns;
  }

  void PutBestFirst(const std::vector<double>& means_ns) {
    const double good_enough = *std::ranges::min_element(means_ns) * (1 + kWorthwhile);
    std::optional<size_t> best;
    const auto key = [&](size_t i) {
      return std::pair(Complexity(choice_.ranked[i]), means_ns[i]);
    };
    for (size_t i = 0; i < means_ns.size(); ++i) {
      if (means_ns[i] <= good_enough && (!best || key(i) < key(*best))) best = i;
    }
    const auto first = choice_.ranked.begin() + static_cast<std::ptrdiff_t>(*best);
    std::rotate(choice_.ranked.begin(), first, first + 1);
  }

  const ChoiceOptions& options_;
  ScheduleChoice choice_{};
  std::vector<CostModel> costs_{};      // of choice_.ranked, until the noise is met
  std::vector<int64_t> num_actions_{};  // likewise
  double least_peak_ = 0;
  std::optional<Error> refusal_{};
};

}  // namespace

std::string Describe(const ScheduleOrder& order) {
  std::string text = order.spec.name;
  if (order.spec.chunks_per_rank > 2) {
    text += fmt::format(" of {} chunks a rank", order.spec.chunks_per_rank);
  }
  const ExecutionPolicy& policy = order.executable.policy;
  if (policy.mode == ExecutorMode::kFreeRun) text += " placement, free-run";
  if (policy.mode == ExecutorMode::kGuided) text += ", guided";
  if (policy.activation_slack > 0) {
    text += fmt::format(" with slack {:g}", policy.activation_slack);
  }
  if (const int parts = order.settings.weight_parts.value_or(1); parts > 1) {
    text += fmt::format(", weight gradients in {} parts", parts);
  }
  return text;
}

Result<ScheduleChoice> ChooseSchedule(const ChoiceOptions& options) {
  return Portfolio(options).Rank();
}

std::string ReasonFor(const ScheduleChoice& choice, const ChoiceOptions& options,
                      double ns_per_unit, std::string_view unit) {
  const ScheduleOrder& taken = choice.ranked.front();
  std::string reason =
      fmt::format("{}: {:.4g}{} a step of {} microbatches, holding {:g} of the {:g} allowed",
                  Describe(taken), taken.makespan_ns / ns_per_unit, unit, options.num_microbatches,
                  taken.peak, options.activation_limit);
  // Beside what people know, or else the runner-up.
  const auto plain = std::ranges::find_if(choice.ranked, [&](const ScheduleOrder& order) {
    return &order != &taken && order.spec.name == "1f1b";
  });
  const auto other =
      plain != choice.ranked.end() || choice.ranked.size() < 2 ? plain : choice.ranked.begin() + 1;
  if (other != choice.ranked.end()) {
    reason += fmt::format("; {} would take {:.4g}{}", Describe(*other),
                          other->makespan_ns / ns_per_unit, unit);
  }
  return reason +
         fmt::format(" ({} orders simulated, {} fit)", choice.num_simulated, choice.ranked.size());
}

double DefaultActivationLimit(int num_ranks) { return std::max(2.0, 1.5 * num_ranks); }

}  // namespace troupe
