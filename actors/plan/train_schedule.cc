#include "actors/plan/train_schedule.h"

#include <fmt/format.h>

#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/transforms.h"
#include "actors/schedule/validator.h"

namespace troupe {
namespace {

constexpr int kPartsMax = 64;
// Free-run's measured best in memory and time: one and a half times a rank's 1F1B activations, and
// weight gradients in four parts, so that a filler blocks at most a quarter of one.
constexpr double kDynamicLimit = 1.5;
constexpr int kDynamicParts = 4;

Result<Schedule> ListsOf(const proto::Parallelism& spec, int num_ranks, int num_microbatches) {
  if (!spec.has_schedule_actions()) {
    auto lists = Generate({.name = spec.has_schedule() ? spec.schedule() : "1f1b",
                           .num_ranks = num_ranks,
                           .num_microbatches = num_microbatches,
                           .chunks_per_rank = spec.virtual_stages()});
    if (!lists.ok()) return Context("parallelism.schedule", std::move(lists).error());
    return lists;
  }
  auto read = ParseCsv(spec.schedule_actions(), "csv");
  if (!read.ok()) return Context("parallelism.schedule_csv", std::move(read).error());
  if (read->num_ranks != num_ranks || read->num_microbatches != num_microbatches) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.schedule_csv is for {} ranks and {} microbatches, the job has "
                     "parallelism.pp = {} and {} microbatches a step: change the one or the other",
                     read->num_ranks, read->num_microbatches, num_ranks, num_microbatches);
  }
  return read;
}

Result<ExecutionPolicy> PolicyOf(const proto::Parallelism& spec, const Schedule& lists) {
  ExecutionPolicy policy;
  if (lists.name == "dynamic") policy.mode = ExecutorMode::kFreeRun;
  if (spec.has_executor()) {
    auto mode = ParseExecutorMode(spec.executor());
    if (!mode.ok()) return Context("parallelism", std::move(mode).error());
    policy.mode = *mode;
  }
  if (spec.has_pairs()) {
    auto pairs = ParsePairMode(spec.pairs());
    if (!pairs.ok()) return Context("parallelism", std::move(pairs).error());
    policy.pairs = *pairs;
  }
  if (!(spec.activation_slack() >= 0) || spec.activation_slack() > 1e6) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.activation_slack = {}: use 0 (only weight gradients jump the "
                     "queue) or more microbatches",
                     spec.activation_slack());
  }
  if (spec.activation_slack() > 0 && policy.mode != ExecutorMode::kGuided) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.activation_slack = {} is for executor: guided, not {}",
                     spec.activation_slack(), ExecutorModeName(policy.mode));
  }
  policy.activation_slack = spec.activation_slack();
  if (policy.mode == ExecutorMode::kFreeRun) {
    policy.activation_limit =
        spec.has_activation_limit() ? spec.activation_limit() : kDynamicLimit * lists.num_ranks;
    if (!(policy.activation_limit >= 1) || policy.activation_limit > 1e6) {
      return MakeError(ErrorCode::kInvalidSpec,
                       "parallelism.activation_limit = {}: a rank must hold 1 microbatch or more",
                       policy.activation_limit);
    }
  } else if (spec.has_activation_limit()) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.activation_limit = {} is for executor: free-run, not {}",
                     spec.activation_limit(), ExecutorModeName(policy.mode));
  }
  return policy;
}

Result<int> WeightPartsOf(const proto::Parallelism& spec, const ExecutionPolicy& policy) {
  const int parts = spec.has_weight_parts()                 ? spec.weight_parts()
                    : policy.mode == ExecutorMode::kFreeRun ? kDynamicParts
                                                            : 1;
  if (parts >= 1 && parts <= kPartsMax) return parts;
  return MakeError(ErrorCode::kInvalidSpec, "parallelism.weight_parts = {}: use 1 to {}", parts,
                   kPartsMax);
}

}  // namespace

Result<TrainSchedule> TrainScheduleOf(const proto::Parallelism& spec, int num_ranks,
                                      int num_microbatches) {
  TrainSchedule train;
  ASSIGN_OR_RETURN(train.schedule, ListsOf(spec, num_ranks, num_microbatches));
  ASSIGN_OR_RETURN(train.policy, PolicyOf(spec, train.schedule));
  ASSIGN_OR_RETURN(const int parts, WeightPartsOf(spec, train.policy));
  if (spec.has_backward_output() && spec.backward_output() != "end" &&
      spec.backward_output() != "input") {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.backward_output = {}: use end (with the whole backward) or input "
                     "(after its input half)",
                     spec.backward_output());
  }
  if (spec.backward_output() == "input") train.schedule = WithSplitBackward(train.schedule);
  if (parts > 1) train.schedule = WithWeightParts(train.schedule, parts);
  auto report = Validate(train.schedule, {.pairs = train.policy.pairs});
  if (!report.ok()) {
    return Context(
        spec.has_schedule_actions() ? "parallelism.schedule_csv" : "parallelism.schedule",
        std::move(report).error());
  }
  train.ascending = report->ascending;
  if (!train.ascending && train.policy.mode != ExecutorMode::kStrict) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "parallelism.executor = {}: schedule {} does not run every stage's "
                     "microbatches in ascending order; use executor: strict",
                     ExecutorModeName(train.policy.mode), train.schedule.name);
  }
  return train;
}

}  // namespace troupe
