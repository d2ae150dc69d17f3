#include "actors/plan/data_parallel_keys.h"

#include <algorithm>

namespace troupe {
namespace {

template <typename... Args>
Error Refuse(fmt::format_string<Args...> format, Args&&... args) {
  return MakeError(ErrorCode::kInvalidSpec, format, std::forward<Args>(args)...);
}

bool HasWeightParts(const Schedule& schedule) {
  return std::ranges::any_of(schedule.ranks, [](const std::vector<Action>& actions) {
    return std::ranges::any_of(actions, [](const Action& action) { return action.num_parts > 1; });
  });
}

// Reduced while the lists go on: all ranks start the same reductions in the same order, each of one
// whole gradient.
Status CheckMicrobatchReduction(const proto::Parallelism& keys, const TrainSchedule& train,
                                const BatchArithmetic& batch) {
  if (train.policy.mode != ExecutorMode::kStrict) {
    return Refuse(
        "parallelism.executor = {}: with parallelism.dp = {} and parallelism.grad_reduce = "
        "microbatch the ranks reduce gradients in the order of their lists; use strict, or "
        "grad_reduce: step",
        ExecutorModeName(train.policy.mode), batch.data_parallel);
  }
  if (HasWeightParts(train.schedule)) {
    return Refuse(
        "parallelism.{}: weight gradients in parts cannot be reduced with parallelism.dp = {} and "
        "parallelism.grad_reduce = microbatch; use whole ones, or grad_reduce: step",
        keys.weight_parts() > 1 ? fmt::format("weight_parts = {}", keys.weight_parts())
                                : "schedule_csv",
        batch.data_parallel);
  }
  if (batch.gradient_groups != batch.num_microbatches) {
    return Refuse(
        "batch.gradient_groups = {}: with parallelism.dp = {} and parallelism.grad_reduce = "
        "microbatch each of a rank's {} microbatches is part of a group of its own; use {}, or "
        "leave it out",
        batch.gradient_groups, batch.data_parallel, batch.num_microbatches, batch.num_microbatches);
  }
  if (!train.ascending && batch.num_microbatches > 1) {
    return Refuse(
        "parallelism.grad_reduce = microbatch: schedule {} does not run microbatches in ascending "
        "order, so it cannot add up one group after another; use step",
        train.schedule.name);
  }
  return {};
}

}  // namespace

ZeroSharding ReadZero(const proto::Parallelism& p, std::vector<Error>& errors) {
  ZeroSharding zero;
  if (p.zero_stage() >= 0 && p.zero_stage() <= kZeroStageMax) {
    zero.stage = p.zero_stage();
  } else {
    errors.push_back(
        Refuse("parallelism.zero_stage = {}: use 0 (every data-parallel rank has everything), 1 "
               "(each has the optimizer state of its shards), 2 (and their gradients) or 3 (and "
               "their weights)",
               p.zero_stage()));
  }
  if (p.has_zero_prefetch()) zero.prefetch = p.zero_prefetch();
  if (zero.prefetch < 0 || zero.prefetch > kZeroPrefetchMax) {
    errors.push_back(Refuse("parallelism.zero_prefetch = {}: use 0 to {} units", zero.prefetch,
                            kZeroPrefetchMax));
    zero.prefetch = 0;
  }
  if (p.has_reshard_after_forward()) zero.reshard_after_forward = p.reshard_after_forward();
  return zero;
}

Status CheckGroups(const proto::Parallelism& keys, const TrainSchedule& train,
                   const BatchArithmetic& batch) {
  const int groups = batch.gradient_groups;
  if (batch.data_parallel > 1) {
    if (train.schedule.num_directions == 2) {
      return Refuse(
          "parallelism.dp = {}: schedule {} sums its two directions, and data parallelism beside "
          "them is not built so far; use another schedule, or dp: 1",
          batch.data_parallel, train.schedule.name);
    }
    if (batch.grad_reduce == GradReduce::kMicrobatch) {
      return CheckMicrobatchReduction(keys, train, batch);
    }
    if (groups == batch.data_parallel) return {};
    return Refuse(
        "batch.gradient_groups = {}: with parallelism.dp = {} every rank sums one group; use {}, "
        "or leave it out",
        groups, batch.data_parallel, batch.data_parallel);
  }
  if (train.schedule.num_directions == 2 && groups != 2) {
    return Refuse(
        "batch.gradient_groups = {}: schedule {} sums each direction's microbatches by itself; use "
        "2, or leave it out",
        groups, train.schedule.name);
  }
  if (!train.ascending && groups != 1) {
    return Refuse(
        "batch.gradient_groups = {}: schedule {} does not run microbatches in ascending order, so "
        "it cannot close one group after another; use 1",
        groups, train.schedule.name);
  }
  return {};
}

}  // namespace troupe
