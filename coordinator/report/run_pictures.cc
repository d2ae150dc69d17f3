#include "coordinator/report/run_pictures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "actors/schedule/csv.h"
#include "actors/schedule/drawing.h"
#include "runtime/format/costs_file.h"

namespace troupe {

RunPictures::RunPictures(std::string job_name, const JobPlan& plan, VectorIsa isa)
    : job_name_(std::move(job_name)), steps_(plan), memory_(job_name_) {
  loss_.series.name = "train";
  validation_loss_.series.name = "validation";
  Replan(plan, isa);
}

void RunPictures::Replan(const JobPlan& plan, VectorIsa isa) {
  steps_ = MeasuredSteps(plan);
  planned_ = plan.simulation.timeline;
  memory_.Replan(plan, isa);
}

void LongCurve::Add(double x, double y) {
  auto& points = series.points;
  if (loose_) points.pop_back();
  points.push_back({x, y});
  loose_ = count_++ % stride_ != 0;
  if (loose_ || points.size() < kPointsMax) return;
  size_t kept = 0;
  for (size_t i = 0; i < points.size(); i += 2) points[kept++] = points[i];
  points.resize(kept);
  stride_ *= 2;
}

void RunPictures::AddLoss(int64_t step, double loss) { loss_.Add(static_cast<double>(step), loss); }

void RunPictures::AddValidationLoss(int64_t step, double loss) {
  validation_loss_.Add(static_cast<double>(step), loss);
}

std::string RunPictures::LossSvg() const {
  if (loss_.series.points.empty()) return "";
  std::vector<ChartSeries> series = {loss_.series};
  if (!validation_loss_.series.points.empty()) series.push_back(validation_loss_.series);
  return LineChart(series,
                   {.title = job_name_ + " · loss", .x_label = "step", .y_label = "loss (nats)"});
}

std::string RunPictures::ScheduleSvg() const {
  if (steps_.step() == 0) return "";
  const Timeline& measured = steps_.timeline();
  const auto& [schedule, policy, ascending] = steps_.order();
  std::vector<Panel> panels;
  panels.push_back(
      {"planned, by operations, its work as long as the measured", AtScaleOf(measured, planned_)});
  if (auto replayed =
          Simulate(schedule, MeasuredCosts(measured, schedule.num_stages), {.policy = policy});
      replayed.ok()) {
    panels.push_back({"replayed with this step's times, each rank on a core of its own",
                      std::move(replayed->timeline)});
  }
  panels.push_back({fmt::format("measured, step {}, of median time among {} steps", steps_.step(),
                                steps_.num_whole()),
                    measured});
  return DrawSvg(
      panels, {.title = fmt::format("{} · {} · {} rank{} × {} microbatch{}", job_name_,
                                    schedule.name, schedule.num_ranks,
                                    schedule.num_ranks == 1 ? "" : "s", schedule.num_microbatches,
                                    schedule.num_microbatches == 1 ? "" : "es")});
}

std::string RunPictures::CostsJson() const {
  if (steps_.step() == 0) return "";
  constexpr double kNsPerMs = 1e6;
  const Schedule& schedule = steps_.order().schedule;
  const CostModel measured = MeasuredCosts(steps_.timeline(), schedule.num_stages);
  CostsFile file{.unit = "ms", .step = steps_.step()};
  const int chain = schedule.StagesPerDirection();
  for (int stage = 0; stage < chain; ++stage) {
    // Both directions run the same layers.
    const auto ms = [&](int64_t StageCost::*time_ns) {
      double sum_ns = 0;
      for (int s = stage; s < schedule.num_stages; s += chain) {
        sum_ns += static_cast<double>(measured.stages[static_cast<size_t>(s)].*time_ns);
      }
      return sum_ns / schedule.num_directions / kNsPerMs;
    };
    StageTimes& times = file.stages.emplace_back();
    times.forward = ms(&StageCost::forward_ns);
    const double backward = ms(&StageCost::backward_ns);
    const double input = ms(&StageCost::backward_input_ns);
    if (backward > 0) times.backward = backward;
    // A schedule of whole backwards never shows the halves.
    if (backward <= 0 || input > 0) {
      times.backward_input = input;
      times.backward_weight = ms(&StageCost::backward_weight_ns);
    }
  }
  return CostsFileJson(file);
}

std::string RunPictures::ScheduleCsv() const {
  return steps_.step() == 0 ? "" : ToCsv(steps_.AsRun());
}

Timeline AtScaleOf(const Timeline& measured, Timeline planned) {
  const double scale = static_cast<double>(IdleOf(measured).work_ns) /
                       std::max(1.0, static_cast<double>(IdleOf(planned).work_ns));
  const auto scaled = [scale](int64_t time_ns) {
    return std::llround(scale * static_cast<double>(time_ns));
  };
  for (Bar& bar : planned.bars) {
    bar.start_ns = scaled(bar.start_ns);
    bar.end_ns = scaled(bar.end_ns);
    bar.cpu_ns = bar.end_ns - bar.start_ns;
  }
  return planned;
}

CostModel MeasuredCosts(const Timeline& measured, int num_stages) {
  struct Sum {
    int64_t cpu_ns = 0;
    int64_t count = 0;
    int64_t Mean() const { return count == 0 ? 0 : cpu_ns / count; }
  };
  std::vector<std::array<Sum, kNumActionKinds>> sums(static_cast<size_t>(num_stages));
  for (const Bar& bar : measured.bars) {
    Sum& sum =
        sums[static_cast<size_t>(bar.action.stage.value)][static_cast<size_t>(bar.action.kind)];
    sum.cpu_ns += bar.cpu_ns;
    ++sum.count;
  }
  CostModel costs;
  for (const auto& of : sums) {
    const auto mean = [&of](ActionKind kind) { return of[static_cast<size_t>(kind)].Mean(); };
    StageCost cost{.forward_ns = mean(ActionKind::kForward),
                   .backward_input_ns = mean(ActionKind::kBackwardInput),
                   .backward_weight_ns = mean(ActionKind::kBackwardWeight)};
    // Its parts tell a span each; there are as many whole ones as input gradients.
    const int64_t num_weights = of[static_cast<size_t>(ActionKind::kBackwardInput)].count;
    if (num_weights > 0) {
      cost.backward_weight_ns =
          of[static_cast<size_t>(ActionKind::kBackwardWeight)].cpu_ns / num_weights;
    }
    if (of[static_cast<size_t>(ActionKind::kBackward)].count > 0) {
      cost.backward_ns = mean(ActionKind::kBackward);
    }
    costs.stages.push_back(cost);
  }
  return costs;
}

}  // namespace troupe
