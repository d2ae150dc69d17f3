// DecoderLayer: one layer of Llama: RMSNorm, rotary grouped-query attention, RMSNorm, SwiGLU. Its
// spec: DecoderLayerSpec (actors/plan/layer_spec.h).
//
// Thread: the compute stream's.
//   D1. Forward begins with the normed input (Input), and its last addition is the caller's
//       (Output): the residual steps stand between units.
//   D2. Norms' weight gradients are taken in the input half, which alone has the gradients of their
//       outputs.
//   D3. Layers of a stage share the workspace: what Output names is read before the next layer's
//       Forward ends.
#pragma once

#include "actors/model/linear.h"
#include "actors/model/residual.h"
#include "kernels/attention.h"

namespace troupe {

// Of the attention of a layer, on the sequences of a microbatch.
AttentionShape ShapeOf(const LayerAttention& attention, const BatchArithmetic& batch);

class DecoderLayer {
 public:
  static constexpr int kWeightParts = 4;  // one a product
  explicit DecoderLayer(const UnitSite& site);

  void Pack(const Exec& exec);
  // The rotary table of the workspace, which all layers of the stage share.
  void WriteRotary(std::byte* workspace) const;
  // Where the positions of the stage's tokens lie: Pass::positions.
  TensorView Positions(std::byte* workspace) const { return positions_.In(workspace); }

  ResidualStart Input(const Pass& pass) const;
  void Forward(const Pass& pass) const;
  ResidualEnd Output(const Pass& pass) const;

  // Where the gradient of the layer's output lies from BackwardInput to BackwardWeight. In a whole
  // Backward two layers that follow each other take turns with SpareGradient.
  TensorView OutputGradient(const Pass& pass) const { return dy_.In(pass); }
  TensorView SpareGradient(const Pass& pass) const { return dx_.In(pass.workspace); }
  // From dy of the layer's output to dx of its input, (T, h) both.
  void BackwardInput(const Pass& pass, ConstTensorView dy, TensorView dx) const;
  // Part `part` of kWeightParts: products from the last to the first.
  void BackwardWeight(const Pass& pass, int part, ConstTensorView dy) const;

 private:
  // Query, key and value heads of rows (T, q + 2k).
  struct Heads {
    TensorView q, k, v;
  };
  Heads HeadsOf(const TensorView& rows) const;
  TensorView Lse(const Pass& pass) const;  // (sequences, heads, S)
  ConstTensorView Rotary(const Pass& pass) const { return rotary_.In(pass.workspace); }
  void ForwardAttention(const Pass& pass, TensorView out) const;
  void BackwardAttention(const Pass& pass, ConstTensorView dout, TensorView dqkv) const;

  ModelConfig config_;
  AttentionShape attention_;
  int64_t inner_;  // f
  VectorWeight norm1_, norm2_;
  Linear qkv_product_, out_product_, gate_up_product_, down_product_;
  // Named and shaped by the spec.
  TensorSlot x_, n1_, rstd1_, qkv_, out_, lse_, mid_, n2_, rstd2_, gate_up_;
  HalfSlot dy_, dgate_up_, dmid_, dqkv_;
  TensorSlot delta_, product_, dproduct_, dout_, dx_, rotary_, positions_;
};

}  // namespace troupe
