#include "actors/plan/data_parallel_keys.h"

#include <algorithm>
#include <string>

namespace troupe {
namespace {

constexpr size_t kShownBytes = 60;

template <typename... Args>
Error Refuse(fmt::format_string<Args...> format, Args&&... args) {
  return MakeError(ErrorCode::kInvalidSpec, format, std::forward<Args>(args)...);
}

// "parallelism.dp = 2", "parallelism.dp x parallelism.cp = 2 x 4"
std::string ReplicasInWords(const BatchArithmetic& batch) {
  const int cp = batch.context.num_ranks;
  if (cp == 1) return fmt::format("parallelism.dp = {}", batch.data_parallel);
  if (batch.data_parallel == 1) return fmt::format("parallelism.cp = {}", cp);
  return fmt::format("parallelism.dp x parallelism.cp = {} x {}", batch.data_parallel, cp);
}

// Reduced while the lists go on: all ranks start the same reductions in the same order, each of one
// whole gradient.
Status CheckMicrobatchReduction(const proto::Parallelism& keys, const TrainSchedule& train,
                                const BatchArithmetic& batch) {
  if (train.policy.mode != ExecutorMode::kStrict) {
    return Refuse(
        "parallelism.executor = {}: with {} and parallelism.grad_reduce = microbatch the ranks "
        "reduce gradients in the order of their lists; use strict, or grad_reduce: step",
        ExecutorModeName(train.policy.mode), ReplicasInWords(batch));
  }
  if (train.schedule.HasWeightParts()) {
    return Refuse(
        "parallelism.{}: weight gradients in parts cannot be reduced with {} and "
        "parallelism.grad_reduce = microbatch; use whole ones, or grad_reduce: step",
        keys.weight_parts() > 1 ? fmt::format("weight_parts = {}", keys.weight_parts())
                                : "schedule_csv",
        ReplicasInWords(batch));
  }
  if (batch.gradient_groups != batch.num_microbatches) {
    return Refuse(
        "batch.gradient_groups = {}: with {} and parallelism.grad_reduce = microbatch each of a "
        "rank's {} microbatches is part of a group of its own; use {}, or leave it out",
        batch.gradient_groups, ReplicasInWords(batch), batch.num_microbatches,
        batch.num_microbatches);
  }
  if (!train.ascending && batch.num_microbatches > 1) {
    return Refuse(
        "parallelism.grad_reduce = microbatch: schedule {} does not run microbatches in ascending "
        "order, so it cannot add up one group after another; use step",
        train.schedule.name);
  }
  return {};
}

// Two directions add up their gradients with all ranks of the same weights, each direction of a
// data-parallel rank as a group of its own.
Status CheckDirections(const TrainSchedule& train, const BatchArithmetic& batch) {
  const Schedule& schedule = train.schedule;
  const int chain = schedule.StagesPerDirection();
  for (int stage = 0; stage < chain; ++stage) {
    if (schedule.RankOf(StageId(stage)) != schedule.RankOf(StageId(stage + chain))) continue;
    return Refuse(
        "{}: schedule {} has both directions of stage {} on one rank; where others have the same "
        "weights they lie on two: use an even parallelism.pp, or another schedule",
        ReplicasInWords(batch), schedule.name, stage);
  }
  if (batch.grad_reduce == GradReduce::kMicrobatch) {
    return Refuse(
        "parallelism.grad_reduce = microbatch: with {} the two directions of schedule {} are added "
        "up once a step; use step",
        ReplicasInWords(batch), schedule.name);
  }
  const int groups = 2 * batch.data_parallel;
  if (batch.gradient_groups == groups) return {};
  return Refuse(
      "batch.gradient_groups = {}: with {} each direction of schedule {} sums one group on every "
      "rank; use {}, or leave it out",
      batch.gradient_groups, ReplicasInWords(batch), schedule.name, groups);
}

// "1, 2 or 4"
std::string DivisorsOf(int number) {
  constexpr int kShown = 8;
  std::vector<int> divisors;
  for (int d = 1; d <= number; ++d) {
    if (number % d == 0) divisors.push_back(d);
  }
  std::string text;
  for (size_t i = 0; i < divisors.size(); ++i) {
    if (i >= kShown && i + 1 < divisors.size()) continue;
    const bool last = i + 1 == divisors.size();
    text += i == 0 ? "" : last ? " or " : ", ";
    text += fmt::format("{}", divisors[i]);
  }
  return text;
}

int ReadZeroGroup(const proto::Parallelism& p, int weight_replicas, std::vector<Error>& errors) {
  if (!p.has_zero_group()) return 0;
  const int group = p.zero_group();
  const char* ranks = p.cp() > 1 ? "parallelism.dp x parallelism.cp" : "parallelism.dp";
  if (group < 1) {
    errors.push_back(Refuse(
        "parallelism.zero_group = {}: use the number of ranks that share shards, a divisor of {}; "
        "or leave it out, and all of them do",
        group, ranks));
    return 0;
  }
  if (weight_replicas > 0 && weight_replicas % group != 0) {
    errors.push_back(
        Refuse("parallelism.zero_group = {} does not divide {} = {}: shards are repeated in whole "
               "groups; use {}",
               group, ranks, weight_replicas, DivisorsOf(weight_replicas)));
    return 0;
  }
  return group;
}

// Where the word is in `words`, with underscores; -1: nowhere.
template <size_t N>
int IndexOf(const std::string_view (&words)[N], std::string word) {
  std::ranges::replace(word, '-', '_');
  const auto found = std::ranges::find(words, word);
  return found == std::end(words) ? -1 : static_cast<int>(found - std::begin(words));
}

}  // namespace

ZeroSharding ReadZero(const proto::Parallelism& p, int weight_replicas,
                      std::vector<Error>& errors) {
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
  zero.group = ReadZeroGroup(p, weight_replicas, errors);
  zero.persist_elements = p.persist_elements();
  if (zero.persist_elements < 0) {
    errors.push_back(
        Refuse("parallelism.persist_elements = {}: use 0 (everything is shared out) or the number "
               "of elements below which a parameter stays whole at every rank",
               zero.persist_elements));
    zero.persist_elements = 0;
  }
  return zero;
}

int64_t ReadBucketBytes(const proto::Parallelism& p, std::vector<Error>& errors) {
  if (!p.has_bucket_bytes()) return kBucketBytes;
  if (p.bucket_bytes() >= 1 && p.bucket_bytes() <= kBucketBytesMax) return p.bucket_bytes();
  errors.push_back(Refuse("parallelism.bucket_bytes = {}: use 1 to {} bytes", p.bucket_bytes(),
                          kBucketBytesMax));
  return kBucketBytes;
}

ReductionAlgorithm ReadReduction(const proto::JobSpec& spec, std::vector<Error>& errors) {
  static constexpr std::string_view kReductions[] = {kOrderedReduction, kRingReduction};
  static constexpr std::string_view kAlgorithms[] = {kAllReduce, kReduceBroadcast};
  const proto::Parallelism& p = spec.parallelism();
  const std::string& word = spec.data_parallel().algorithm();
  const int reduction = p.has_reduction() ? IndexOf(kReductions, p.reduction()) : 0;
  const int algorithm = spec.data_parallel().has_algorithm() ? IndexOf(kAlgorithms, word) : 0;
  if (reduction < 0) {
    errors.push_back(
        Refuse("parallelism.reduction = {}: use ordered (sums have the bits of one worker) or ring "
               "(each rank talks to its neighbours alone)",
               p.reduction().substr(0, kShownBytes)));
  }
  if (algorithm < 0) {
    errors.push_back(
        Refuse("data_parallel.algorithm = {}: use all_reduce, or reduce_broadcast (the sum goes "
               "from rank to rank and back)",
               word.substr(0, kShownBytes)));
  }
  const bool ring = reduction == 1;
  if (algorithm != 1) return ring ? ReductionAlgorithm::kRing : ReductionAlgorithm::kOrdered;
  if (p.zero_stage() > 0) {
    errors.push_back(
        Refuse("data_parallel.algorithm = reduce_broadcast brings whole gradients to every rank, "
               "and parallelism.zero_stage = {} shares them out: use all_reduce, or zero_stage: 0",
               p.zero_stage()));
  }
  if (ring) {
    errors.push_back(
        Refuse("data_parallel.algorithm = reduce_broadcast adds along a chain of ranks, and "
               "parallelism.reduction = ring along rings: use all_reduce, or reduction: ordered"));
  }
  return ReductionAlgorithm::kChain;
}

// The order follows from who the members are.
bool RingSumsDiffer(const proto::JobSpec& one, const proto::JobSpec& other) {
  std::vector<Error> told;  // by whoever read the jobs
  const auto goes_along_ring = [&told](const proto::JobSpec& spec) {
    return WeightReplicasOf(spec.parallelism()) > 1 &&
           ReadReduction(spec, told) == ReductionAlgorithm::kRing;
  };
  if (!goes_along_ring(one) && !goes_along_ring(other)) return false;
  return goes_along_ring(one) != goes_along_ring(other) ||
         WeightReplicasOf(one.parallelism()) != WeightReplicasOf(other.parallelism()) ||
         one.parallelism().zero_group() != other.parallelism().zero_group();
}

Status CheckGroups(const proto::Parallelism& keys, const TrainSchedule& train,
                   const BatchArithmetic& batch) {
  const int groups = batch.gradient_groups;
  if (batch.weight_replicas() > 1) {
    if (train.schedule.num_directions == 2) return CheckDirections(train, batch);
    if (batch.grad_reduce == GradReduce::kMicrobatch) {
      return CheckMicrobatchReduction(keys, train, batch);
    }
    if (groups == batch.data_parallel) return {};
    return Refuse(
        "batch.gradient_groups = {}: with {} every rank sums one group; use {}, or leave it out",
        groups, ReplicasInWords(batch), batch.data_parallel);
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
