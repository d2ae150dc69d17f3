#include "actors/plan/batch_arithmetic.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace troupe {
namespace {

constexpr int64_t kSequencesMax = int64_t{1} << 24;

int64_t Positive(std::string_view field, bool given, int64_t value, std::vector<Error>& errors) {
  if (given && value >= 1 && value <= kSequencesMax) return value;
  errors.push_back(given
                       ? MakeError(ErrorCode::kInvalidSpec, "batch.{} = {}: use 1 to {}", field,
                                   value, kSequencesMax)
                       : MakeError(ErrorCode::kInvalidSpec, "batch.{} is missing: give it", field));
  return 0;
}

}  // namespace

std::string WithThousands(int64_t value) {
  std::string digits = fmt::format("{}", value);
  for (int64_t at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<size_t>(at), 1, ',');
  }
  return digits;
}

std::string_view GradReduceName(GradReduce reduce) {
  return reduce == GradReduce::kStep ? "step" : "microbatch";
}

Result<GradReduce> GradReduceOf(const proto::Parallelism& parallelism) {
  if (!parallelism.has_grad_reduce()) {
    return parallelism.zero_stage() >= 2 ? GradReduce::kMicrobatch : GradReduce::kStep;
  }
  for (const GradReduce reduce : {GradReduce::kStep, GradReduce::kMicrobatch}) {
    if (parallelism.grad_reduce() == GradReduceName(reduce)) return reduce;
  }
  constexpr size_t kShownBytes = 60;
  return MakeError(ErrorCode::kInvalidSpec,
                   "parallelism.grad_reduce = {}: use step (once, at the end of a step) or "
                   "microbatch (after each)",
                   parallelism.grad_reduce().substr(0, kShownBytes));
}

int64_t WeightReplicasOf(const proto::Parallelism& parallelism) {
  return int64_t{std::max(1, parallelism.dp())} * std::max(1, parallelism.cp());
}

bool ReducesEachMicrobatch(const proto::Parallelism& parallelism) {
  const auto reduce = GradReduceOf(parallelism);
  return WeightReplicasOf(parallelism) > 1 && reduce.ok() && *reduce == GradReduce::kMicrobatch;
}

BatchReading ReadBatch(const proto::Batch& spec, int data_parallel, GradReduce grad_reduce) {
  CHECK(data_parallel >= 0, "a mesh has {} data-parallel ranks", data_parallel);
  BatchReading reading;
  auto& errors = reading.errors;
  BatchArithmetic& batch = reading.batch;
  batch.micro_batch_size =
      Positive("micro_batch_size", spec.has_micro_batch_size(), spec.micro_batch_size(), errors);
  batch.global_batch_size =
      Positive("global_batch_size", spec.has_global_batch_size(), spec.global_batch_size(), errors);
  batch.seq_len = Positive("seq_len", spec.has_seq_len(), spec.seq_len(), errors);
  batch.num_microbatches = 0;
  batch.data_parallel = std::max(1, data_parallel);
  batch.grad_reduce = grad_reduce;
  const int64_t at_once = batch.micro_batch_size * std::max(1, data_parallel);
  if (at_once > 0 && batch.global_batch_size % at_once != 0) {
    const int64_t below = batch.global_batch_size / at_once * at_once;
    const std::string nearest =
        below > 0 ? fmt::format("{} or {}", below, below + at_once) : fmt::format("{}", at_once);
    errors.push_back(MakeError(
        ErrorCode::kInvalidSpec,
        "batch.global_batch_size = {} is not a multiple of batch.micro_batch_size{}: a "
        "step is whole microbatches; use {}",
        batch.global_batch_size,
        data_parallel == 0
            ? fmt::format(" = {}", batch.micro_batch_size)
            : fmt::format(" x parallelism.dp = {} x {}", batch.micro_batch_size, data_parallel),
        nearest));
  } else if (at_once > 0 && data_parallel > 0) {
    batch.num_microbatches = static_cast<int32_t>(batch.global_batch_size / at_once);
  }
  const int groups_default =
      grad_reduce == GradReduce::kStep ? data_parallel : batch.num_microbatches;
  batch.gradient_groups = spec.has_gradient_groups() ? spec.gradient_groups() : groups_default;
  const int64_t microbatches = int64_t{batch.num_microbatches} * data_parallel;
  if (spec.has_gradient_groups() && batch.gradient_groups < 1) {
    errors.push_back(MakeError(ErrorCode::kInvalidSpec, "batch.gradient_groups = {}: use 1 or more",
                               batch.gradient_groups));
  } else if (microbatches > 0 && microbatches % batch.gradient_groups != 0) {
    errors.push_back(MakeError(ErrorCode::kInvalidSpec,
                               "batch.gradient_groups = {} does not divide the {} microbatches of "
                               "a step: use 1 or {}",
                               batch.gradient_groups, microbatches, microbatches));
  }
  return reading;
}

Result<BatchArithmetic> BatchOf(const proto::Batch& spec, int data_parallel,
                                GradReduce grad_reduce) {
  BatchReading reading = ReadBatch(spec, data_parallel, grad_reduce);
  if (!reading.errors.empty()) return std::move(reading.errors.front());
  return reading.batch;
}

std::string Describe(const BatchArithmetic& batch) {
  const std::string ranks =
      batch.data_parallel == 1 ? "" : fmt::format(" x {} data-parallel ranks", batch.data_parallel);
  const std::string shared =
      batch.context.shared() ? fmt::format(", each sequence over {} ranks", batch.context.num_ranks)
                             : "";
  return fmt::format("{} sequence{} x {} microbatch{}{} = {} sequences = {} tokens a step{}",
                     batch.micro_batch_size, batch.micro_batch_size == 1 ? "" : "s",
                     batch.num_microbatches, batch.num_microbatches == 1 ? "" : "es", ranks,
                     batch.global_batch_size, WithThousands(batch.tokens_per_step()), shared);
}

}  // namespace troupe
