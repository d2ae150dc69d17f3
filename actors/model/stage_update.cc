// The end of a step, and generation, of StageModel.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "actors/model/stage_model.h"
#include "kernels/elementwise.h"
#include "runtime/base/check.h"
#include "runtime/base/random.h"

namespace troupe {
namespace {

template <typename Real>
int32_t Draw(const Real* logits, int64_t vocab, double temperature, double uniform) {
  const Real* largest = std::max_element(logits, logits + vocab);
  if (temperature <= 0) return static_cast<int32_t>(largest - logits);
  std::vector<double> weights(static_cast<size_t>(vocab));
  double total = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    weights[static_cast<size_t>(i)] =
        std::exp((static_cast<double>(logits[i]) - static_cast<double>(*largest)) / temperature);
    total += weights[static_cast<size_t>(i)];
  }
  double left = uniform * total;
  for (int64_t i = 0; i < vocab; ++i) {
    left -= weights[static_cast<size_t>(i)];
    if (left < 0) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(largest - logits);  // rounding left a crumb
}

}  // namespace

void StageModel::FinishGradients() {
  gradients_.Finish(exec_);
  // On one stage both uses of a tied weight are here: the embedding's, then the head's, as across
  // stages (AddSharedGradient on the first).
  if (tied_first_element_ < 0 || tied_added_) return;
  tied_added_ = true;
  const StageParameter& p = parameters_.Of(table_.embedding_index());
  Accumulate(exec_, gradients_.Sum(p.first_element + p.shard.first_element, p.shard.num_elements),
             gradients_.Sum(tied_first_element_ + p.shard.first_element, p.shard.num_elements));
}

ConstTensorView StageModel::Gradient(const StageParameter& p) {
  FinishGradients();
  return gradients_.Sum(p.first_element + p.shard.first_element, p.shard.num_elements);
}

TensorView StageModel::SharedGradient(SharedWeights weights) {
  FinishGradients();
  if (weights == SharedWeights::kReplica) {
    CHECK(!is_sharded(), "replicas of a stage whose gradients are sharded");
    return gradients_.Sum(0, parameters_.num_elements());
  }
  CHECK(weights == SharedWeights::kTied && table_.tied(), "no weight is tied");
  const StageParameter& p = parameters_.Of(table_.embedding_index());
  return gradients_.Sum(p.first_element + p.shard.first_element, p.shard.num_elements);
}

// From the last row to the first, as backward ends.
Task<Status> StageModel::SumOverRanks(Group& group, GroupPurpose purpose) {
  CHECK(!tied_added_, "the two uses of a weight were added before the ranks' sums");
  gradients_.Finish(exec_);
  if (!is_sharded()) {
    const TensorView all = gradients_.All();
    co_return co_await group.AllReduce(
        {static_cast<uint8_t>(master_), all.data(), all.num_elements()}, purpose);
  }
  const auto rows = parameters_.rows();
  for (size_t i = rows.size(); i-- > 0;) {
    const ShardRow& row = rows[i];
    CO_RETURN_IF_ERROR(co_await ScatterRow(group, purpose, row, row.first_element));
    const bool tied =
        tied_first_element_ >= 0 && row.parameters.front() == table_.embedding_index();
    if (tied) CO_RETURN_IF_ERROR(co_await ScatterRow(group, purpose, row, tied_first_element_));
  }
  co_return Status{};
}

Task<Status> StageModel::ScatterRow(Group& group, GroupPurpose purpose, const ShardRow& row,
                                    int64_t first_element) {
  const auto dtype = static_cast<uint8_t>(master_);
  const TensorView whole = gradients_.Sum(first_element, row.num_elements);
  const TensorView own = gradients_.Sum(first_element + row.own_first, row.own_count);
  return group.ReduceScatter({dtype, whole.data(), whole.num_elements()},
                             {dtype, own.data(), own.num_elements()}, row.counts, purpose);
}

Task<Status> StageModel::GatherWeights(Group& group, GroupPurpose purpose) {
  for (const ShardRow& row : parameters_.rows()) {
    const TensorView first = parameters_.Of(row.parameters.front()).compute;
    const TensorView last = parameters_.Of(row.parameters.back()).compute;
    auto* data = static_cast<std::byte*>(first.data());
    const int64_t width = DTypeBytes(first.dtype());
    CHECK(
        static_cast<std::byte*>(last.data()) + last.num_bytes() == data + row.num_elements * width,
        "the copies of {} and its neighbours are no run", table_[row.parameters.front()].name);
    const auto dtype = static_cast<uint8_t>(first.dtype());
    CO_RETURN_IF_ERROR(
        co_await group.AllGather({dtype, data + row.own_first * width, row.own_count},
                                 {dtype, data, row.num_elements}, row.counts, purpose));
  }
  for (const auto& weights : unit_weights_) weights->Repack(exec_);
  co_return Status{};
}

void StageModel::AddSharedGradient(SharedWeights weights, ConstTensorView other) {
  Accumulate(exec_, SharedGradient(weights), other);
}

std::vector<proto::NormNode> StageModel::NormNodes() {
  std::vector<proto::NormNode> votes;
  for (const StageParameter& p : parameters_.all()) {
    if (p.owned) AddNormNodes(exec_, p, Gradient(p), votes);
  }
  return votes;
}

void StageModel::ApplyUpdate(const AdamWOptions& options, bool apply) {
  if (apply) {
    for (const StageParameter& p : parameters_.all()) {
      parameters_.Update(exec_, options, p, Gradient(p));
    }
    if (!is_sharded()) {
      for (const auto& weights : unit_weights_) weights->Repack(exec_);
    }
  }
  gradients_.Reset(exec_);
  tied_added_ = false;
}

Task<Result<Buffer>> StageModel::GenerateForward(std::span<const std::byte> input,
                                                 const Microbatch& data, int64_t last_token) {
  CHECK(last_token >= 0 && last_token < num_tokens_, "token {} of {}", last_token, num_tokens_);
  Stash stash = TakeStash(-1);
  const Workspaces::Lease workspace = workspaces_.Take();
  const Pass pass = PassOf(stash, workspace);
  TakeData(pass, data);
  CO_ASSIGN_OR_RETURN(Buffer output, co_await RunLayers(pass, input));
  if (head_) {
    CO_ASSIGN_OR_RETURN(const TensorView logits, co_await head_->Logits(pass, last_token));
    output = Buffer(ledger_, MemoryTag::kWorkspace, logits.num_bytes());
    std::memcpy(output.data(), logits.data(), static_cast<size_t>(logits.num_bytes()));
  }
  ReturnStash(std::move(stash));
  co_return output;
}

int32_t StageModel::DrawToken(const Buffer& logits, double temperature, uint64_t seed,
                              uint64_t counter) const {
  const int64_t vocab = options_.shape.model.config.vocab_size;
  CHECK(logits.num_bytes() == vocab * DTypeBytes(master_));
  const double uniform = UniformAt(RandomKey(seed, "sample"), counter);
  return master_ == DType::kFloat64
             ? Draw(reinterpret_cast<const double*>(logits.data()), vocab, temperature, uniform)
             : Draw(reinterpret_cast<const float*>(logits.data()), vocab, temperature, uniform);
}

}  // namespace troupe
