#include "actors/replanner.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace troupe {
namespace {

constexpr double kNewest = 0.3;  // weight of the newest step among the smoothed
constexpr double kNsPerMs = 1e6;
constexpr std::array kParts = {&StageCost::forward_ns, &StageCost::backward_input_ns,
                               &StageCost::backward_weight_ns};

// What a vote says of a stage. Who runs whole backwards learns nothing of their halves, and the
// other way round: those keep the proportion that they had at the start.
StageCost Told(const proto::StageTimes& times, const StageCost& before, double whole_share) {
  StageCost told{.forward_ns = times.forward_ns(),
                 .backward_input_ns = times.backward_input_ns(),
                 .backward_weight_ns = times.backward_weight_ns()};
  const auto halves_before =
      static_cast<double>(before.backward_input_ns + before.backward_weight_ns);
  if (times.backward_input_ns() == 0 && times.backward_ns() > 0 && halves_before > 0) {
    const double halves_ns = static_cast<double>(times.backward_ns()) / whole_share;
    const double input = static_cast<double>(before.backward_input_ns) / halves_before;
    told.backward_input_ns = std::llround(input * halves_ns);
    told.backward_weight_ns = std::llround((1 - input) * halves_ns);
  }
  return told;
}

// By two, the upper one.
double MedianOf(std::vector<double> values) {
  std::ranges::sort(values);
  return values.empty() ? 1 : values[values.size() / 2];
}

void Smooth(StageCost& smoothed, const StageCost& told) {
  for (const auto part : kParts) {
    const auto newest = static_cast<double>(told.*part);
    if (newest <= 0) continue;
    smoothed.*part = static_cast<int64_t>(
        std::llround((1 - kNewest) * static_cast<double>(smoothed.*part) + kNewest * newest));
  }
}

double WorkOf(const CostModel& costs) {
  double work = 0;
  for (const StageCost& stage : costs.stages) work += static_cast<double>(stage.WorkNs());
  return work;
}

}  // namespace

Replanner::Replanner(const JobPlan& plan, std::vector<ModelCosts> costs)
    : plan_(plan), start_costs_(CostsAlongPipeline(plan.mesh, costs)) {
  CHECK(!start_costs_.empty());
  reference_ = smoothed_ = StageCostsOf(
      plan_.train, plan_.table.model(),
      {plan_.stages.data(), static_cast<size_t>(plan_.train.StagesPerDirection())}, start_costs_);
  for (const StageCost& stage : reference_.stages) {
    const int64_t halves_ns = stage.backward_input_ns + stage.backward_weight_ns;
    whole_share_.push_back(halves_ns > 0 ? static_cast<double>(stage.WholeBackwardNs()) /
                                               static_cast<double>(halves_ns)
                                         : 1);
  }
}

const Schedule& Replanner::ScheduleAt(size_t order) const {
  return order == 0 ? plan_.train : plan_.others[order - 1].schedule;
}

const ExecutionPolicy& Replanner::PolicyAt(size_t order) const {
  return order == 0 ? plan_.policy : plan_.others[order - 1].policy;
}

double Replanner::MakespanNs(size_t order, const CostModel& costs) const {
  const auto run =
      Simulate(ScheduleAt(order), costs, {.policy = PolicyAt(order), .keep_bars = false});
  return run.ok() ? static_cast<double>(run->idle.makespan_ns) : 0;
}

void Replanner::AddStep(std::span<const proto::Vote> votes) {
  const bool first = !std::exchange(any_step_, true);
  for (const proto::Vote& vote : votes) {
    for (const proto::StageTimes& times : vote.stage_times()) {
      if (times.stage() < 0 || times.stage() >= plan_.train.num_stages) continue;
      const auto stage = static_cast<size_t>(times.stage());
      StageCost& smoothed = smoothed_.stages[stage];
      const StageCost told = Told(times, smoothed, whole_share_[stage]);
      // What was measured before the start is no step to smooth with.
      if (first && told.WorkNs() > 0) {
        smoothed = told;
      } else {
        Smooth(smoothed, told);
      }
      smoothed.backward_ns =
          std::llround(whole_share_[stage] * static_cast<double>(smoothed.backward_input_ns +
                                                                 smoothed.backward_weight_ns));
    }
  }
  steps_drifted_ = Drift() > kDrift ? steps_drifted_ + 1 : 0;
  const std::vector<double> slowness = Slowness();
  const double slowest = *std::ranges::max_element(slowness);
  std::vector<double> others = slowness;
  others.erase(std::ranges::max_element(others));
  steps_slow_ = slowest > kSlow * MedianOf(std::move(others)) ? steps_slow_ + 1 : 0;
}

std::vector<double> Replanner::Slowness() const {
  const Schedule& schedule = plan_.train;
  const auto chain = static_cast<size_t>(schedule.StagesPerDirection());
  const CostModel expected =
      StageCostsOf(schedule, plan_.table.model(), {plan_.stages.data(), chain}, start_costs_);
  std::vector<double> slowness;
  for (int rank = 0; rank < schedule.num_ranks; ++rank) {
    double now = 0;
    double then = 0;
    for (const StageId stage : schedule.StagesOf(PipelineRank(rank))) {
      now += static_cast<double>(smoothed_.stages[static_cast<size_t>(stage.value)].WorkNs());
      then += static_cast<double>(expected.stages[static_cast<size_t>(stage.value)].WorkNs());
    }
    slowness.push_back(now / std::max(1.0, then));
  }
  return slowness;
}

double Replanner::Drift() const {
  const double scale = WorkOf(smoothed_) / std::max(1.0, WorkOf(reference_));
  double drift = 0;
  const auto compare = [&](double now, double then) {
    if (then > 0) drift = std::max(drift, std::abs(now / (then * scale) - 1));
  };
  std::array<double, kParts.size()> now{};
  std::array<double, kParts.size()> then{};
  for (size_t stage = 0; stage < smoothed_.stages.size(); ++stage) {
    compare(static_cast<double>(smoothed_.stages[stage].WorkNs()),
            static_cast<double>(reference_.stages[stage].WorkNs()));
    for (size_t part = 0; part < kParts.size(); ++part) {
      now[part] += static_cast<double>(smoothed_.stages[stage].*kParts[part]);
      then[part] += static_cast<double>(reference_.stages[stage].*kParts[part]);
    }
  }
  for (size_t part = 0; part < kParts.size(); ++part) compare(now[part], then[part]);
  return drift;
}

std::optional<Replanner::NewOrder> Replanner::ReconsiderOrder() {
  if (plan_.others.empty() || steps_drifted_ < kPatience) return {};
  steps_drifted_ = 0;
  reference_ = smoothed_;
  const double running_ns = MakespanNs(order_, smoothed_);
  size_t best = order_;
  double best_ns = running_ns * (1 - kFasterOrder);
  for (size_t order = 0; order <= plan_.others.size(); ++order) {
    const double ns = MakespanNs(order, smoothed_);
    if (ns <= 0 || ns >= best_ns) continue;
    best = order;
    best_ns = ns;
  }
  if (best == order_) return {};
  const auto in_words = [this](size_t order) {
    const ExecutionPolicy& policy = PolicyAt(order);
    return fmt::format(
        "{} ({}{})", ScheduleAt(order).name, ExecutorModeName(policy.mode),
        policy.activation_slack > 0 ? fmt::format(", slack {:g}", policy.activation_slack) : "");
  };
  const std::string from = in_words(order_);
  order_ = best;
  return NewOrder{.order = best,
                  .reason = fmt::format(
                      "schedule auto: {} in place of {}, since times have drifted: {:.4g} ms a "
                      "step by what stages take now, instead of {:.4g}",
                      in_words(best), from, best_ns / kNsPerMs, running_ns / kNsPerMs)};
}

std::optional<Replanner::NewLayers> Replanner::ReconsiderLayers(int64_t steps_left) const {
  const Schedule& schedule = ScheduleAt(order_);
  if (steps_slow_ < kStepsSlow || schedule.num_directions > 1) return {};
  const std::vector<double> slowness = Slowness();
  std::vector<ModelCosts> costs;
  for (int rank = 0; rank < schedule.num_ranks; ++rank) {
    costs.push_back(
        Scaled(CostsOfRank(start_costs_, PipelineRank(rank)), slowness[static_cast<size_t>(rank)]));
  }
  const auto stages =
      PartitionStages(plan_.table.model(), WeightsOf(schedule, plan_.table.model(), costs),
                      schedule.num_stages / schedule.num_ranks);
  if (!stages.ok()) return {};
  const double now_ns =
      MakespanNs(order_, StageCostsOf(schedule, plan_.table.model(), plan_.stages, costs));
  const double then_ns =
      MakespanNs(order_, StageCostsOf(schedule, plan_.table.model(), *stages, costs));
  const double gain_ns = (now_ns - then_ns) * static_cast<double>(steps_left);
  if (then_ns <= 0 || then_ns > now_ns * (1 - kFasterLayers) || gain_ns < kMoveMs * kNsPerMs) {
    return {};
  }
  NewLayers layers;
  std::vector<int> before;
  for (size_t stage = 0; stage < stages->size(); ++stage) {
    layers.stage_layers.push_back((*stages)[stage].num_layers);
    before.push_back(plan_.stages[stage].num_layers);
  }
  const auto slowest = std::ranges::max_element(slowness);
  std::vector<double> others = slowness;
  others.erase(others.begin() + (slowest - slowness.begin()));
  layers.reason = fmt::format(
      "rank {} takes {:.2f} times what the others take for the same layers: [{}] layers a stage "
      "become [{}], for {:.4g} ms a step instead of {:.4g}",
      slowest - slowness.begin(), *slowest / MedianOf(std::move(others)), fmt::join(before, ", "),
      fmt::join(layers.stage_layers, ", "), then_ns / kNsPerMs, now_ns / kNsPerMs);
  return layers;
}

}  // namespace troupe
