#include "coordinator/cli/schedule_costs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace troupe {
namespace {

Result<double> TimeOr(const std::optional<double>& given, std::string_view flag, double otherwise) {
  const double time = given.value_or(otherwise);
  if (time >= 0 && time <= kCostMax) return time;
  return MakeError(ErrorCode::kInvalidSpec, "--{} {}: use a time from 0 to {:g}", flag, time,
                   kCostMax);
}

Result<CostsFile> ReadFile(const std::string& path, FileSystem& files) {
  const bool is_run = files.List(path).ok();
  const std::string file = is_run ? JoinPath(path, "costs.json") : path;
  if (is_run && !files.Exists(file)) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "--costs {}: the folder has no costs.json; a run leaves it after its first "
                     "step, or give a file",
                     path);
  }
  ASSIGN_OR_RETURN(const std::string text, files.ReadFile(file, kCostsFileBytesMax));
  return ParseCostsFile(text, file);
}

double BackwardOf(const StageTimes& stage) {
  return stage.backward.value_or(stage.backward_input.value_or(0) +
                                 stage.backward_weight.value_or(0));
}

StageTimes Share(const StageTimes& stage, double share) {
  const auto part = [share](const std::optional<double>& whole) {
    return whole ? std::optional<double>(*whole * share) : std::nullopt;
  };
  return {.forward = stage.forward * share,
          .backward_input = part(stage.backward_input),
          .backward_weight = part(stage.backward_weight),
          .backward = part(stage.backward),
          .unshard = part(stage.unshard),
          .reduce_grad = part(stage.reduce_grad)};
}

StageTimes WithHalves(StageTimes stage) {
  if (!stage.backward_input) {
    stage.backward_input = BackwardOf(stage) / 2;
    stage.backward_weight = stage.backward_input;
  }
  return stage;
}

}  // namespace

Result<UserCosts> ReadUserCosts(const CostOptions& options, FileSystem& files) {
  UserCosts costs;
  ASSIGN_OR_RETURN(costs.whole_share.forward, TimeOr(options.forward, "cost-forward", 1));
  ASSIGN_OR_RETURN(costs.whole_share.backward_input,
                   TimeOr(options.backward_input, "cost-backward-input", 1));
  ASSIGN_OR_RETURN(costs.whole_share.backward_weight,
                   TimeOr(options.backward_weight, "cost-backward-weight", 1));
  if (options.unshard) {
    ASSIGN_OR_RETURN(costs.whole_share.unshard, TimeOr(options.unshard, "cost-unshard", 0));
  }
  if (options.reduce_grad) {
    ASSIGN_OR_RETURN(costs.whole_share.reduce_grad,
                     TimeOr(options.reduce_grad, "cost-reduce-grad", 0));
  }
  const double whole = costs.whole_share.forward + BackwardOf(costs.whole_share);
  if (!options.file.empty()) {
    if (options.forward || options.backward_input || options.backward_weight || options.unshard ||
        options.reduce_grad || options.pair) {
      return MakeError(ErrorCode::kInvalidSpec,
                       "--costs {} has the times of every stage; leave out --cost-forward, "
                       "--cost-backward-input, --cost-backward-weight, --cost-unshard, "
                       "--cost-reduce-grad and --cost-pair",
                       options.file);
    }
    ASSIGN_OR_RETURN(CostsFile file, ReadFile(options.file, files));
    costs.stages = std::move(file.stages);
    costs.file = options.file;
    costs.unit = std::move(file.unit);
    ASSIGN_OR_RETURN(costs.hop, TimeOr(options.hop, "comm", file.link_latency));
    return costs;
  }
  ASSIGN_OR_RETURN(costs.hop, TimeOr(options.hop, "comm", 0));
  if (!(whole > 0)) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "--cost-forward, --cost-backward-input and --cost-backward-weight are all 0; "
                     "one must be above");
  }
  if (options.pair) {
    ASSIGN_OR_RETURN(const double pair, TimeOr(options.pair, "cost-pair", whole));
    if (pair == 0) {
      return MakeError(ErrorCode::kInvalidSpec, "--cost-pair 0: use a time above 0");
    }
    costs.pair_factor = pair / whole;
  }
  return costs;
}

Result<std::vector<StageTimes>> StageTimesOf(const UserCosts& costs, const Schedule& schedule,
                                             std::vector<std::string>& remarks) {
  const auto remark = [&remarks](std::string text) {
    if (std::ranges::find(remarks, text) == remarks.end()) remarks.push_back(std::move(text));
  };
  std::vector<StageTimes> stages;
  const bool halves = schedule.HasHalves();
  const auto chain = static_cast<size_t>(schedule.StagesPerDirection());
  if (costs.stages.empty()) {
    for (const double share : schedule.StageShares()) {
      stages.push_back(Share(costs.whole_share, share));
    }
    return stages;
  }
  if (chain % costs.stages.size() != 0) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "--costs {} has {} stages, schedule {} runs {}; give it as many, or a part of "
                     "them that can be cut evenly",
                     costs.file, costs.stages.size(), schedule.name, chain);
  }
  const size_t cuts = chain / costs.stages.size();
  if (cuts > 1) {
    remark(fmt::format("{} has {} stages, {} runs {}: each is cut into {} equal ones", costs.file,
                       costs.stages.size(), schedule.name, chain, cuts));
  }
  for (int stage = 0; stage < schedule.num_stages; ++stage) {
    const StageTimes& of = costs.stages[static_cast<size_t>(stage) % chain / cuts];
    if (halves && !of.backward_input) {
      remark(fmt::format("{} has whole backwards: half of each is taken for the input gradient",
                         costs.file));
    }
    // The lower bound asks for halves of every schedule.
    stages.push_back(WithHalves(Share(of, 1.0 / static_cast<double>(cuts))));
  }
  return stages;
}

double TotalTime(const std::vector<StageTimes>& stages, const UserCosts& costs,
                 const Schedule& schedule) {
  double total = 0;
  for (const StageTimes& stage : stages) {
    const double halves = stage.backward_input.value_or(0) + stage.backward_weight.value_or(0);
    total += stage.forward + std::max(halves, BackwardOf(stage)) + 2 * costs.hop;
  }
  total *= schedule.MicrobatchesPerDirection() * std::max(1.0, costs.pair_factor);
  for (const std::vector<Action>& actions : schedule.ranks) {
    for (const Action& action : actions) {
      const StageTimes& stage = stages[static_cast<size_t>(action.stage.value)];
      if (action.kind == ActionKind::kUnshard) total += stage.unshard.value_or(0);
      if (action.kind == ActionKind::kReduceGrad) total += stage.reduce_grad.value_or(0);
    }
  }
  return total;
}

Result<double> TicksPerUnit(double total) {
  constexpr double kTicksMax = 0x1p54;
  double ticks = 720'720;  // the least common multiple of 1 to 16
  if (!(total * ticks <= kTicksMax)) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "the times of all actions add up to {:g}, too much to count; give them in a "
                     "larger unit",
                     total);
  }
  while (total * ticks * 10 <= kTicksMax) ticks *= 10;
  return ticks;
}

CostModel InTicks(const std::vector<StageTimes>& stages, const UserCosts& costs, double ticks) {
  const auto whole = [ticks](double units) { return std::llround(units * ticks); };
  CostModel model{.link_latency_ns = whole(costs.hop), .pair_factor = costs.pair_factor};
  for (const StageTimes& stage : stages) {
    model.stages.push_back({.forward_ns = whole(stage.forward),
                            .backward_input_ns = whole(stage.backward_input.value_or(0)),
                            .backward_weight_ns = whole(stage.backward_weight.value_or(0)),
                            .backward_ns = stage.backward ? whole(*stage.backward) : -1,
                            .unshard_ns = whole(stage.unshard.value_or(0)),
                            .reduce_grad_ns = whole(stage.reduce_grad.value_or(0))});
  }
  return model;
}

}  // namespace troupe
