// What a step's votes add up to, and whether it commits. Pure: the same sums in every layout.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "proto/training.pb.h"
#include "runtime/base/result.h"

namespace troupe {

struct StepSums {
  double loss_sum = 0;     // over labels that count, microbatches ascending
  int64_t num_tokens = 0;  // labels that count
  bool finite = true;
  // The mean; nothing where no label counts.
  std::optional<double> Loss() const {
    if (num_tokens == 0) return std::nullopt;
    return loss_sum / static_cast<double>(num_tokens);
  }
};

// Losses of the votes by ascending microbatch, and of one by ascending rank. Every microbatch
// 0..num_microbatches-1 must have those of `ranks_each` ranks, who share its sequences: a lost or
// doubled one is an error, never a slightly different mean.
Result<StepSums> AddLosses(std::span<const proto::Vote> votes, int num_microbatches,
                           int ranks_each = 1);

// Square root of the sum of the parameters' roots in table order. Nodes of one parameter are merged
// along the fixed tree of kernels/squared_norm.h; every parameter
// 0..num_parameters-1 must be covered exactly once.
Result<double> GradientNorm(std::span<const proto::Vote> votes, int num_parameters);

// min(1, clip / (norm + 1e-6)) / tokens, where `norm` is of the token mean. clip = 0: no clipping.
// There is a token: without one there is no mean.
double GradientFactor(double mean_norm, double clip, int64_t num_tokens);

// Makespan bubble of the round: 1 - work / (ranks · (last end - first start)).
// Ranks on one machine share a clock; across hosts the error is the clocks' offset.
double MeasuredBubble(std::span<const proto::Vote> votes);

}  // namespace troupe
