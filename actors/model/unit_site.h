// What a unit of the model is built on: its spec, where the plan put its tensors, and the stage's
// weights and gradients.
//
// Thread: the compute stream's.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "actors/model/gradient_sum.h"
#include "actors/model/pass.h"
#include "actors/model/unit_weights.h"
#include "actors/plan/memory_model.h"
#include "kernels/attention.h"

namespace troupe {

// Of one call of a layer's attention: the microbatch's sequences, or this rank's part of them.
AttentionShape ShapeOf(const LayerAttention& attention, const BatchArithmetic& batch);

// A tensor of a unit, bound to its place once.
class TensorSlot {
 public:
  TensorSlot() = default;
  TensorSlot(const TensorPlace& place, DType dtype) : place_(place), dtype_(dtype) {}

  // In the memory that begins at `base`: (rows, columns), or (rows).
  TensorView In(std::byte* base) const;

 private:
  TensorPlace place_{};
  DType dtype_ = DType::kFloat32;
};

// A tensor that lies in the stash, or in the workspace of a pass that computes it for itself: what
// is between the halves of a whole Backward, and what a backward computes again. At least one.
class HalfSlot {
 public:
  HalfSlot() = default;
  HalfSlot(std::optional<TensorSlot> stash, std::optional<TensorSlot> workspace)
      : stash_(stash), workspace_(workspace) {}
  TensorView In(const Pass& pass) const {
    const bool own = workspace_ && (pass.whole || !stash_);
    return own ? workspace_->In(pass.workspace) : stash_->In(pass.stash);
  }

 private:
  std::optional<TensorSlot> stash_;
  std::optional<TensorSlot> workspace_;
};

// Everything outlives the unit, but for the struct itself and `gradient_elements`.
struct UnitSite {
  const LayerSpec& spec;
  const ModelConfig& config;
  const BatchArithmetic& batch;
  const UnitPlaces& stash;
  const UnitPlaces& workspace;
  const UnitPlaces& constants;
  DType dtype = DType::kFloat32;   // of activations
  DType master = DType::kFloat32;  // of statistics, weights' masters, gradients
  int layer = -1;                  // of the model; -1: no layer
  Recompute recompute = Recompute::kNone;
  std::vector<int64_t> gradient_elements{};  // where the gradient of each begins
  UnitWeights& weights;
  Gradients& gradients;

  TensorSlot Stash(std::string_view name) const { return SlotOf(stash.Of(name)); }
  TensorSlot Workspace(std::string_view name) const { return SlotOf(workspace.Of(name)); }
  // Of a tensor that not every unit has.
  std::optional<TensorSlot> WorkspaceIfAny(std::string_view name) const {
    return workspace.Has(name) ? std::optional(Workspace(name)) : std::nullopt;
  }
  // In Pass::shared.
  TensorSlot Constant(std::string_view name) const { return SlotOf(constants.Of(name)); }
  HalfSlot Half(std::string_view name) const;
  TensorSlot SlotOf(const TensorPlace& place) const;
  // For the gradients of neighbouring parameters of the spec, as one run.
  int NewAccumulator(int first_parameter, int num_parameters = 1) const;
};

// A one-dimensional parameter and the sum of its gradients.
class VectorWeight {
 public:
  // `name`: as in the spec.
  VectorWeight(const UnitSite& site, std::string_view name);

  ConstTensorView weight() const { return weights_->Compute(place_); }
  TensorView GradientTarget(const Pass& pass) const {
    return gradients_->Target(pass.exec, accumulator_, pass.microbatch);
  }

 private:
  UnitWeights* weights_;
  Gradients* gradients_;
  int place_ = 0;  // among the unit's parameters
  int accumulator_ = 0;
};

}  // namespace troupe
