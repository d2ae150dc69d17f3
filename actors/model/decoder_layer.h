// DecoderLayer: one layer of Llama: RMSNorm, rotary grouped-query attention, RMSNorm, SwiGLU. Its
// spec: DecoderLayerSpec (actors/plan/layer_spec.h).
//
// Thread: the compute stream's.
#pragma once

#include "actors/model/layer.h"
#include "actors/model/linear.h"

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
  // Query, key and value heads of rows (T, q + 2k).
  struct Heads {
    TensorView q, k, v;
  };
  Heads HeadsOf(const TensorView& rows) const;
  TensorView Lse(const Pass& pass) const;  // (sequences, heads, S)
  ConstTensorView Rotary(const Pass& pass) const { return rotary_.In(pass.shared); }
  void ForwardAttention(const Pass& pass, TensorView out) const;
  void BackwardAttention(const Pass& pass, ConstTensorView dout, TensorView dqkv) const;
  void WeightGrad(const Pass& pass, int part, ConstTensorView dy) const;

  ModelConfig config_;
  AttentionShape attention_;
  int64_t inner_;  // f
  VectorWeight norm1_, norm2_;
  Linear qkv_product_, out_product_, gate_up_product_, down_product_;
  // Named and shaped by the spec.
  TensorSlot x_, n1_, rstd1_, qkv_, out_, lse_, mid_, n2_, rstd2_, gate_up_;
  HalfSlot dgate_up_, dmid_, dqkv_;
  TensorSlot delta_, product_, dproduct_, dout_, rotary_;
};

}  // namespace troupe
