// The backward passes of StageModel.
#include <algorithm>
#include <cstring>
#include <utility>

#include "actors/model/stage_model.h"
#include "runtime/base/check.h"

namespace troupe {

// One-dimensional gradients of the head come with its input gradient.
Task<Status> StageModel::EnterBackward(const Pass& pass, std::span<const std::byte> gradient,
                                       TensorView dy) {
  EndKeepingUnread();
  if (!head_) {
    CHECK(static_cast<int64_t>(gradient.size()) == boundary_bytes());
    std::memcpy(dy.data(), gradient.data(), gradient.size());
    co_return Status{};
  }
  const GradientMoment moment = InputMoment();
  if (pieces_) CO_RETURN_IF_ERROR(co_await OpenPiece(head_position(), moment, pass.microbatch));
  CO_RETURN_IF_ERROR(co_await head_->BackwardInput(pass, dy));
  if (pieces_) CO_RETURN_IF_ERROR(co_await ClosePiece(head_position(), moment, pass.microbatch));
  co_return Status{};
}

Task<Status> StageModel::LayerBackwardInput(const Pass& pass, size_t layer, ConstTensorView dy,
                                            TensorView dx) {
  const size_t position = first_layer() + layer;
  if (residency_) CO_RETURN_IF_ERROR(co_await HaveUnit(position, PassDirection::kBackward));
  if (pieces_) CO_RETURN_IF_ERROR(co_await OpenPiece(position, InputMoment(), pass.microbatch));
  CO_RETURN_IF_ERROR(co_await layers_[layer]->BackwardInput(pass, dy, dx));
  if (residency_ && layer > 0) residency_->Release(static_cast<int>(position), AfterBackward());
  if (residency_ && layer == 0) co_await ReleaseLast(position, AfterBackward());
  if (pieces_ && options_.shape.halves) {
    CO_RETURN_IF_ERROR(co_await ClosePiece(position, InputMoment(), pass.microbatch));
  }
  co_return Status{};
}

Task<Status> StageModel::LayerBackwardWeight(const Pass& pass, size_t layer, WeightParts parts,
                                             ConstTensorView dy) {
  const size_t position = first_layer() + layer;
  if (pieces_ && options_.shape.halves && parts.first == 0) {
    CO_RETURN_IF_ERROR(co_await OpenPiece(position, GradientMoment::kWeight, pass.microbatch));
  }
  CO_RETURN_IF_ERROR(co_await layers_[layer]->BackwardWeight(pass, parts, dy));
  if (parts.end < layers_[layer]->num_weight_parts()) co_return Status{};
  if (pieces_) {
    CO_RETURN_IF_ERROR(co_await ClosePiece(position, GradientMoment::kWeight, pass.microbatch));
  }
  if (HasLastGradient(position)) co_await ReduceUnit(position);
  co_return Status{};
}

Task<Status> StageModel::EmbeddingBackward(const Pass& pass, ConstTensorView dy) {
  constexpr GradientMoment kMoment = GradientMoment::kWeight;
  if (pieces_) CO_RETURN_IF_ERROR(co_await OpenPiece(0, kMoment, pass.microbatch));
  CO_RETURN_IF_ERROR(co_await embedding_->BackwardWeight(pass, dy));
  if (pieces_) CO_RETURN_IF_ERROR(co_await ClosePiece(0, kMoment, pass.microbatch));
  if (HasLastGradient(0)) co_await ReduceUnit(0);
  co_return Status{};
}

// A Forward keeps them for the next Forward.
void StageModel::EndKeepingUnread() {
  if (!residency_ || options_.shape.zero.reshard_after_forward) return;
  if (embedding_) residency_->EndKeeping(0);
  if (head_) residency_->EndKeeping(static_cast<int>(head_position()));
}

// Layer by layer, both halves while the layer's gradients are in cache.
Task<Result<Buffer>> StageModel::Backward(int32_t microbatch, std::span<const std::byte> gradient) {
  Stash& stash = StashOf(microbatch);
  const Workspaces::Lease workspace = workspaces_.Take();
  const Pass pass = PassOf(stash, workspace, LaneOf(KvPhase::kBackward), /*whole=*/true);
  Buffer output;
  if (!embedding_) output = NewBoundary();
  TensorView dy = layer_gradients_.back().In(pass);
  TensorView dx = spare_gradient_.In(pass.workspace);
  CO_RETURN_IF_ERROR(co_await EnterBackward(pass, gradient, dy));
  if (head_ && HasLastGradient(head_position())) co_await ReduceUnit(head_position());
  for (size_t i = layers_.size(); i-- > 0;) {
    const TensorView of_input = i == 0 && !embedding_ ? Boundary(output) : dx;
    CO_RETURN_IF_ERROR(co_await LayerBackwardInput(pass, i, dy, of_input));
    const WeightParts parts{0, layers_[i]->num_weight_parts()};
    CO_RETURN_IF_ERROR(co_await LayerBackwardWeight(pass, i, parts, dy));
    std::swap(dy, dx);
  }
  if (embedding_) CO_RETURN_IF_ERROR(co_await EmbeddingBackward(pass, dy));
  ReturnStash(std::move(stash));
  stashes_.erase(microbatch);
  co_return output;
}

Task<Result<Buffer>> StageModel::BackwardInput(int32_t microbatch,
                                               std::span<const std::byte> gradient) {
  CHECK(options_.shape.halves, "the stage was laid out for whole backwards");
  const Workspaces::Lease workspace = workspaces_.Take();
  const Pass pass = PassOf(StashOf(microbatch), workspace, LaneOf(KvPhase::kBackward));
  Buffer output;
  if (!embedding_) output = NewBoundary();
  CO_RETURN_IF_ERROR(co_await EnterBackward(pass, gradient, layer_gradients_.back().In(pass)));
  for (size_t i = layers_.size(); i-- > 0;) {
    const TensorView dx = i > 0        ? layer_gradients_[i - 1].In(pass)
                          : embedding_ ? embedding_gradient_.In(pass)
                                       : Boundary(output);
    CO_RETURN_IF_ERROR(co_await LayerBackwardInput(pass, i, layer_gradients_[i].In(pass), dx));
  }
  co_return output;
}

// The units' parts in a row, the last layer's first.
Task<Status> StageModel::BackwardWeight(int32_t microbatch, int32_t part, int32_t num_parts) {
  CHECK(options_.shape.halves, "the stage was laid out for whole backwards");
  CHECK(part >= 0 && part < num_parts, "part {} of {}", part, num_parts);
  Stash& stash = StashOf(microbatch);
  const Workspaces::Lease workspace = workspaces_.Take();
  const Pass pass = PassOf(stash, workspace, LaneOf(KvPhase::kBackward));
  // The head's gradients came with Forward and BackwardInput; here they are in one order
  // everywhere.
  if (head_ && part == 0 && HasLastGradient(head_position())) {
    co_await ReduceUnit(head_position());
  }
  const int begin = num_weight_parts_ * part / num_parts;
  const int end = num_weight_parts_ * (part + 1) / num_parts;
  int first = 0;  // of the layer in the row
  for (size_t i = layers_.size(); i-- > 0;) {
    const int count = layers_[i]->num_weight_parts();
    const WeightParts parts{std::clamp(begin - first, 0, count), std::clamp(end - first, 0, count)};
    first += count;
    if (parts.first == parts.end) continue;
    CO_RETURN_IF_ERROR(co_await LayerBackwardWeight(pass, i, parts, layer_gradients_[i].In(pass)));
  }
  if (embedding_ && begin <= first && first < end) {
    CO_RETURN_IF_ERROR(co_await EmbeddingBackward(pass, embedding_gradient_.In(pass)));
  }
  if (++stash.parts_done < num_parts) co_return Status{};
  ReturnStash(std::move(stash));
  stashes_.erase(microbatch);
  co_return Status{};
}

}  // namespace troupe
