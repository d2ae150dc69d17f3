#include "actors/plan/job_orders.h"

#include <algorithm>
#include <utility>

#include "actors/plan/job_shape.h"
#include "actors/schedule/schedule_choice.h"

namespace troupe {
namespace {

proto::Parallelism InKeys(const proto::Parallelism& asked, const ScheduleOrder& order,
                          const std::vector<StageLayout>& stages) {
  proto::Parallelism keys = asked;
  keys.set_schedule(order.spec.name);
  keys.clear_activation_limit();
  if (order.spec.chunks_per_rank > 1) keys.set_virtual_stages(order.spec.chunks_per_rank);
  const ExecutionSettings& settings = order.settings;
  if (settings.executor) keys.set_executor(*settings.executor);
  if (settings.activation_slack) keys.set_activation_slack(*settings.activation_slack);
  if (settings.activation_limit) keys.set_activation_limit(*settings.activation_limit);
  if (settings.weight_parts) keys.set_weight_parts(*settings.weight_parts);
  for (const StageLayout& stage : stages) keys.add_stage_layers(stage.num_layers);
  return keys;
}

}  // namespace

void CheckChoice(const proto::Parallelism& p, int num_ranks, int num_microbatches,
                 std::vector<Error>& errors) {
  if (!ChoosesSchedule(p)) return;
  const auto refuse = [&]<typename... Args>(fmt::format_string<Args...> format, Args&&... args) {
    errors.push_back(MakeError(ErrorCode::kInvalidSpec, format, std::forward<Args>(args)...));
  };
  const std::pair<bool, const char*> keys[] = {
      {p.has_virtual_stages(), "virtual_stages"},     {p.has_executor(), "executor"},
      {p.has_activation_slack(), "activation_slack"}, {p.has_weight_parts(), "weight_parts"},
      {p.has_backward_output(), "backward_output"},   {p.stage_layers_size() > 0, "stage_layers"}};
  for (const auto& [given, key] : keys) {
    if (!given) continue;
    refuse(
        "parallelism.schedule = auto chooses parallelism.{} itself: leave that out, or name a "
        "schedule",
        key);
  }
  if (int64_t{num_ranks} * num_microbatches > kChoiceMax) {
    refuse(
        "parallelism.schedule = auto: {} ranks x {} microbatches are more than it simulates ({}): "
        "name a schedule, or take fewer microbatches",
        num_ranks, num_microbatches, kChoiceMax);
  }
  if (p.has_activation_limit() && !(p.activation_limit() > 0 && p.activation_limit() <= 1e6)) {
    refuse("parallelism.activation_limit = {}: use 1 or more microbatches", p.activation_limit());
  }
  if (p.has_pairs() && !ParsePairMode(p.pairs()).ok()) {
    refuse("parallelism.pairs = {}: use eager or fused", p.pairs());
  }
}

bool ChoosesSchedule(const proto::Parallelism& parallelism) {
  return parallelism.schedule() == kAutoSchedule && !parallelism.has_schedule_actions();
}

bool MeasuresCosts(const proto::JobSpec& spec) {
  return ChoosesSchedule(spec.parallelism()) || spec.parallelism().rebalance();
}

Result<JobOrders> DecideOrders(const proto::JobSpec& spec, std::span<const ModelCosts> of_ranks) {
  const proto::Parallelism& asked = spec.parallelism();
  if (!ChoosesSchedule(asked)) return JobOrders{.orders = {asked}};
  ASSIGN_OR_RETURN(const JobShape shape, JobShapeOf(spec));
  const int ranks = shape.mesh.extent(Axis::kPp);
  const std::vector<ModelCosts> costs = CostsAlongPipeline(shape.mesh, of_ranks);
  std::vector<Error> errors;
  CheckChoice(asked, ranks, shape.batch.num_microbatches, errors);
  if (!errors.empty()) return std::move(errors.front());
  const auto partition = [&](const Schedule& schedule) {
    return PartitionStages(shape.model, WeightsOf(schedule, shape.model, costs),
                           schedule.StagesPerDirection() / ranks);
  };
  ChoiceOptions options{
      .num_ranks = ranks,
      .num_microbatches = shape.batch.num_microbatches,
      .activation_limit =
          asked.has_activation_limit() ? asked.activation_limit() : DefaultActivationLimit(ranks),
      .replicas = shape.mesh.num_replicas() == 1 && spec.batch().gradient_groups() == 2,
      .strict = ReducesEachMicrobatch(asked)};
  if (asked.has_pairs()) {
    ASSIGN_OR_RETURN(options.pairs, ParsePairMode(asked.pairs()));
  }
  options.costs = [&](const Schedule& schedule) -> Result<CostModel> {
    ASSIGN_OR_RETURN(const std::vector<StageLayout> stages, partition(schedule));
    return StageCostsOf(schedule, shape.model, stages, costs);
  };
  ASSIGN_OR_RETURN(const ScheduleChoice choice, ChooseSchedule(options));
  const Schedule& taken = choice.ranked.front().executable.schedule;
  ASSIGN_OR_RETURN(const std::vector<StageLayout> stages, partition(taken));
  JobOrders decided{.reason = ReasonFor(choice, options)};
  for (const ScheduleOrder& order : choice.ranked) {
    const Schedule& schedule = order.executable.schedule;
    const bool alike =
        schedule.placement == taken.placement && schedule.num_directions == taken.num_directions;
    if (alike && decided.orders.size() < kOrdersMax) {
      decided.orders.push_back(InKeys(asked, order, stages));
    }
  }
  return decided;
}

Result<JobOrders> DecideOrders(const proto::JobSpec& spec) {
  ASSIGN_OR_RETURN(const JobShape shape, JobShapeOf(spec));
  const ModelCosts costs = CostsByFlops(shape.model, shape.batch);
  return DecideOrders(spec, {&costs, 1});
}

}  // namespace troupe
