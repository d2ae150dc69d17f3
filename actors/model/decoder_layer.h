// DecoderLayer: one layer of Llama: RMSNorm, rotary grouped-query attention, RMSNorm, SwiGLU. Its
// spec: DecoderLayerSpec (actors/plan/layer_spec.h). How queries meet the keys of other ranks is
// its attention's (sequence_attention.h).
//
// Where Forward keeps less (Recompute), BackwardInput begins by running it again from what there
// is: the same operations on the same bytes.
//
// Thread: the compute stream's.
#pragma once

#include <memory>

#include "actors/model/layer.h"
#include "actors/model/linear.h"
#include "actors/model/sequence_attention.h"

namespace troupe {

class DecoderLayer final : public Layer {
 public:
  explicit DecoderLayer(const UnitSite& site);

  void WriteConstants(std::byte* shared) const override;  // the rotary table
  ResidualStart Input(const Pass& pass) const override;
  Task<Status> Forward(const Pass& pass) const override;
  ResidualEnd Output(const Pass& pass) const override;
  Task<Status> BackwardInput(const Pass& pass, ConstTensorView dy, TensorView dx) const override;
  // Products from the last to the first.
  int num_weight_parts() const override { return 4; }
  Task<Status> BackwardWeight(const Pass& pass, WeightParts parts,
                              ConstTensorView dy) const override;

 private:
  ConstTensorView Rotary(const Pass& pass) const { return rotary_.In(pass.shared); }
  // From the normed input to the attention's output.
  Task<Status> Attend(const Pass& pass, KvPhase phase) const;
  // From there to gate and up.
  void EnterMlp(const Pass& pass) const;
  // What Forward did not keep, from what it did.
  Task<Status> ComputeAgain(const Pass& pass) const;
  // From dy to the gradient of the stream after the attention.
  void BackwardMlp(const Pass& pass, ConstTensorView dy) const;
  void WeightGrad(const Pass& pass, int part, ConstTensorView dy) const;

  ModelConfig config_;
  LayerAttention heads_;
  int64_t inner_;  // f
  Recompute recompute_;
  VectorWeight norm1_, norm2_;
  Linear qkv_product_, out_product_, gate_up_product_, down_product_;
  std::unique_ptr<SequenceAttention> attention_;
  // Named and shaped by the spec.
  TensorSlot x_;
  HalfSlot n1_, rstd1_, qkv_, out_, mid_, n2_, rstd2_, gate_up_;
  HalfSlot dgate_up_, dmid_, dqkv_;
  TensorSlot delta_, product_, dproduct_, dout_, rotary_;
};

}  // namespace troupe
