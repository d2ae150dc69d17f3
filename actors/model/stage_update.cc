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
  gradients_->Finish(exec_);
  // On one stage both uses of a tied weight are here: the embedding's, then the head's, as across
  // stages (AddSharedGradient on the first).
  if (tied_first_element_ < 0 || tied_added_) return;
  tied_added_ = true;
  const StageParameter& p = parameters_.Of(table_.embedding_index());
  Accumulate(exec_, gradients_->Sum(p.first_element + p.shard.first_element, p.shard.num_elements),
             gradients_->Sum(tied_first_element_ + p.shard.first_element, p.shard.num_elements));
}

ConstTensorView StageModel::Gradient(const StageParameter& p) {
  FinishGradients();
  return gradients_->Sum(p.first_element + p.shard.first_element, p.shard.num_elements);
}

TensorView StageModel::SharedGradient(SharedWeights weights) {
  FinishGradients();
  if (weights == SharedWeights::kReplica) {
    CHECK(!is_sharded(), "replicas of a stage whose gradients are sharded");
    return gradients_->Sum(0, parameters_.num_elements());
  }
  CHECK(weights == SharedWeights::kTied && table_.tied(), "no weight is tied");
  const StageParameter& p = parameters_.Of(table_.embedding_index());
  return gradients_->Sum(p.first_element + p.shard.first_element, p.shard.num_elements);
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
  gradients_->Reset(exec_);
  tied_added_ = false;
}

Task<Result<Buffer>> StageModel::GenerateForward(std::span<const std::byte> input,
                                                 const Microbatch& data, int64_t last_token) {
  const bool elsewhere = last_token < 0 && options_.shape.batch.context.shared();
  CHECK(elsewhere || (last_token >= 0 && last_token < num_tokens_), "token {} of {}", last_token,
        num_tokens_);
  Stash stash = TakeStash(-1);
  const Workspaces::Lease workspace = workspaces_.Take();
  const Pass pass = PassOf(stash, workspace, LaneOf(KvPhase::kForward));
  TakeData(pass, data);
  CO_ASSIGN_OR_RETURN(Buffer output, co_await RunLayers(pass, input, UnitResidency::After::kDrop));
  if (head_ && !elsewhere) {
    CO_ASSIGN_OR_RETURN(const TensorView logits, co_await head_->Logits(pass, last_token));
    output = Buffer(ledger_, MemoryTag::kWorkspace, logits.num_bytes());
    std::memcpy(output.data(), logits.data(), static_cast<size_t>(logits.num_bytes()));
  }
  if (head_ && residency_) co_await ReleaseLast(head_position(), UnitResidency::After::kDrop);
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
