#include "actors/step_decision.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/squared_norm.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

using NodeMap = std::map<std::pair<int64_t, int64_t>, double>;  // (first leaf, leaves) -> sum

// Sum of leaves [first, first + count) along the fixed tree, from whichever nodes cover it.
Result<double> SumOf(const NodeMap& nodes, int64_t first, int64_t count, size_t* used) {
  if (const auto node = nodes.find({first, count}); node != nodes.end()) {
    ++*used;
    return node->second;
  }
  if (count <= 1) {
    return MakeError(ErrorCode::kCorrupt, "votes miss leaf {} of a parameter's gradient", first);
  }
  const int64_t left = LeftNormLeaves(count);
  ASSIGN_OR_RETURN(const double a, SumOf(nodes, first, left, used));
  ASSIGN_OR_RETURN(const double b, SumOf(nodes, first + left, count - left, used));
  return a + b;
}

}  // namespace

Result<StepSums> AddLosses(std::span<const proto::Vote> votes, int num_microbatches,
                           int ranks_each) {
  struct OfMicrobatch {
    double loss_sum = 0;
    int64_t num_tokens = 0;
    int num_ranks = 0;
    int last_rank = -1;
  };
  std::vector<OfMicrobatch> microbatches(static_cast<size_t>(num_microbatches));
  std::vector<const proto::Vote*> by_rank;
  for (const proto::Vote& vote : votes) by_rank.push_back(&vote);
  std::ranges::stable_sort(by_rank, {}, &proto::Vote::rank);
  StepSums sums;
  for (const proto::Vote* vote : by_rank) {
    sums.finite = sums.finite && vote->finite();
    for (const proto::MicrobatchLoss& loss : vote->losses()) {
      const int microbatch = loss.microbatch();
      const bool exists = microbatch >= 0 && microbatch < num_microbatches;
      OfMicrobatch* sum = exists ? &microbatches[static_cast<size_t>(microbatch)] : nullptr;
      if (sum == nullptr || sum->num_ranks == ranks_each || sum->last_rank == vote->rank()) {
        return MakeError(ErrorCode::kCorrupt,
                         "rank {} votes for microbatch {} of {}, which is not its or came twice",
                         vote->rank(), microbatch, num_microbatches);
      }
      sum->loss_sum += loss.loss_sum();
      sum->num_tokens += loss.num_tokens();
      sum->last_rank = vote->rank();
      ++sum->num_ranks;
    }
  }
  for (int microbatch = 0; microbatch < num_microbatches; ++microbatch) {
    const OfMicrobatch& sum = microbatches[static_cast<size_t>(microbatch)];
    if (sum.num_ranks == 0) {
      return MakeError(ErrorCode::kCorrupt, "no vote holds the loss of microbatch {}", microbatch);
    }
    if (sum.num_ranks < ranks_each) {
      return MakeError(ErrorCode::kCorrupt,
                       "{} of the {} ranks that share microbatch {} vote for its loss",
                       sum.num_ranks, ranks_each, microbatch);
    }
    sums.loss_sum += sum.loss_sum;
    sums.num_tokens += sum.num_tokens;
  }
  sums.finite = sums.finite && std::isfinite(sums.loss_sum);
  return sums;
}

Result<double> GradientNorm(std::span<const proto::Vote> votes, int num_parameters) {
  std::vector<NodeMap> parameters(static_cast<size_t>(num_parameters));
  for (const proto::Vote& vote : votes) {
    for (const proto::NormNode& node : vote.norm_nodes()) {
      if (node.parameter() < 0 || node.parameter() >= num_parameters || node.num_leaves() < 1 ||
          node.first_leaf() < 0 ||
          !parameters[static_cast<size_t>(node.parameter())]
               .emplace(std::pair{node.first_leaf(), node.num_leaves()}, node.sum())
               .second) {
        return MakeError(ErrorCode::kCorrupt, "rank {} votes for parameter {}, leaf {} twice",
                         vote.rank(), node.parameter(), node.first_leaf());
      }
    }
  }
  double sum = 0;
  for (int parameter = 0; parameter < num_parameters; ++parameter) {
    const NodeMap& nodes = parameters[static_cast<size_t>(parameter)];
    if (nodes.empty()) {
      return MakeError(ErrorCode::kCorrupt, "no vote holds parameter {}", parameter);
    }
    const auto& [last, last_sum] = *nodes.rbegin();
    size_t used = 0;
    ASSIGN_OR_RETURN(const double root, SumOf(nodes, 0, last.first + last.second, &used));
    if (used != nodes.size()) {
      return MakeError(ErrorCode::kCorrupt, "votes cover parameter {} more than once", parameter);
    }
    sum += root;
  }
  return std::sqrt(sum);
}

double GradientFactor(double mean_norm, double clip, int64_t num_tokens) {
  CHECK(num_tokens > 0, "a gradient's mean over {} tokens", num_tokens);
  const double coefficient = clip > 0 ? std::min(1.0, clip / (mean_norm + 1e-6)) : 1.0;
  return coefficient / static_cast<double>(num_tokens);
}

double MeasuredBubble(std::span<const proto::Vote> votes) {
  int64_t first = INT64_MAX;
  int64_t last = INT64_MIN;
  int64_t busy = 0;
  for (const proto::Vote& vote : votes) {
    first = std::min<int64_t>(first, vote.first_action_ns());
    last = std::max<int64_t>(last, vote.last_action_ns());
    busy += vote.busy_ns();
  }
  if (last <= first) return 0;
  return 1.0 - static_cast<double>(busy) /
                   (static_cast<double>(last - first) * static_cast<double>(votes.size()));
}

}  // namespace troupe
