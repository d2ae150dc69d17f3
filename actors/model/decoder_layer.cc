#include "actors/model/decoder_layer.h"

#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "runtime/base/check.h"

namespace troupe {

DecoderLayer::DecoderLayer(const UnitSite& site)
    : config_(site.config),
      heads_(*site.spec.attention),
      inner_(site.spec.Product("down").in),
      recompute_(site.recompute),
      norm1_(site, "input_layernorm.weight"),
      norm2_(site, "post_attention_layernorm.weight"),
      qkv_product_(site, site.spec.Product("qkv")),
      out_product_(site, site.spec.Product("out")),
      gate_up_product_(site, site.spec.Product("gate_up")),
      down_product_(site, site.spec.Product("down")),
      attention_(NewSequenceAttention(site)),
      x_(site.Stash("x")),
      n1_(site.Half("n1")),
      rstd1_(site.Half("rstd1")),
      qkv_(site.Half("qkv")),
      out_(site.Half("out")),
      mid_(site.Half("mid")),
      n2_(site.Half("n2")),
      rstd2_(site.Half("rstd2")),
      gate_up_(site.Half("gate_up")),
      dgate_up_(site.Half("dgate_up")),
      dmid_(site.Half("dmid")),
      dqkv_(site.Half("dqkv")),
      delta_(site.Workspace("delta")),
      product_(site.Workspace("product")),
      dproduct_(site.Workspace("dproduct")),
      dout_(site.Workspace("dout")),
      rotary_(site.Constant("rotary")) {}

void DecoderLayer::WriteConstants(std::byte* shared) const {
  RotaryConfig rotary{.head_dim = heads_.head_dim, .theta = config_.rope_theta};
  if (config_.rope_scaling) {
    const RopeScaling& scaling = *config_.rope_scaling;
    rotary.has_llama3_scaling = true;
    rotary.llama3 = {.factor = scaling.factor,
                     .low_freq_factor = scaling.low_freq_factor,
                     .high_freq_factor = scaling.high_freq_factor,
                     .original_max_position_embeddings =
                         static_cast<double>(scaling.original_max_position_embeddings)};
  }
  BuildRotaryTable(rotary_.In(shared), rotary);
  attention_->WriteConstants(shared);
}

// ---- forward --------------------------------------------------------------------------------

ResidualStart DecoderLayer::Input(const Pass& pass) const {
  return {.x = x_.In(pass.stash),
          .y = n1_.In(pass),
          .rstd = rstd1_.In(pass),
          .weight = norm1_.weight(),
          .eps = config_.rms_norm_eps};
}

ResidualEnd DecoderLayer::Output(const Pass& pass) const {
  return {.x = mid_.In(pass), .delta = delta_.In(pass.workspace)};
}

Task<Status> DecoderLayer::Forward(const Pass& pass) const {
  CO_RETURN_IF_ERROR(co_await Attend(pass, KvPhase::kForward));
  EnterMlp(pass);
  const TensorView gate_up = gate_up_.In(pass);
  const TensorView product = product_.In(pass.workspace);
  SwigluForward(pass.exec, product, gate_up.Columns(0, inner_), gate_up.Columns(inner_, inner_));
  down_product_.Forward(pass, delta_.In(pass.workspace), product);
  co_return Status{};
}

Task<Status> DecoderLayer::Attend(const Pass& pass, KvPhase phase) const {
  const TensorView qkv = qkv_.In(pass);
  qkv_product_.Forward(pass, qkv, n1_.In(pass));
  const auto rows = HeadsOf(heads_, qkv);
  RotaryForward(pass.exec, rows.q, pass.positions, Rotary(pass));
  RotaryForward(pass.exec, rows.k, pass.positions, Rotary(pass));
  return attention_->Forward(pass, phase, qkv, out_.In(pass));
}

void DecoderLayer::EnterMlp(const Pass& pass) const {
  const TensorView delta = delta_.In(pass.workspace);
  out_product_.Forward(pass, delta, out_.In(pass));
  const TensorView n2 = n2_.In(pass);
  PassResidual(pass.exec, {.x = x_.In(pass.stash), .delta = delta},
               {.x = mid_.In(pass),
                .y = n2,
                .rstd = rstd2_.In(pass),
                .weight = norm2_.weight(),
                .eps = config_.rms_norm_eps});
  gate_up_product_.Forward(pass, gate_up_.In(pass), n2);
}

Task<Status> DecoderLayer::ComputeAgain(const Pass& pass) const {
  if (recompute_ == Recompute::kNone) co_return Status{};
  if (recompute_ == Recompute::kFull) EnterResidual(pass.exec, Input(pass));
  CO_RETURN_IF_ERROR(co_await Attend(pass, KvPhase::kRecompute));
  if (recompute_ == Recompute::kFull) EnterMlp(pass);
  co_return Status{};
}

// ---- backward -------------------------------------------------------------------------------

Task<Status> DecoderLayer::BackwardInput(const Pass& pass, ConstTensorView dy,
                                         TensorView dx) const {
  CO_RETURN_IF_ERROR(co_await ComputeAgain(pass));
  BackwardMlp(pass, dy);
  const TensorView dmid = dmid_.In(pass);
  const TensorView dout = dout_.In(pass.workspace);
  out_product_.InputGrad(pass, dout, dmid);
  const TensorView dqkv = dqkv_.In(pass);
  CO_RETURN_IF_ERROR(co_await attention_->Backward(
      pass, {.qkv = qkv_.In(pass), .out = out_.In(pass), .dout = dout, .dqkv = dqkv}));
  const auto gradients = HeadsOf(heads_, dqkv);
  RotaryBackward(pass.exec, gradients.q, pass.positions, Rotary(pass));
  RotaryBackward(pass.exec, gradients.k, pass.positions, Rotary(pass));
  const TensorView dn = delta_.In(pass.workspace);
  qkv_product_.InputGrad(pass, dn, dqkv);
  RmsNormBackward(pass.exec, {.dx = dx,
                              .dweight = norm1_.GradientTarget(pass),
                              .dy = dn,
                              .x = x_.In(pass.stash),
                              .rstd = rstd1_.In(pass),
                              .weight = norm1_.weight(),
                              .residual = dmid});
  co_return Status{};
}

void DecoderLayer::BackwardMlp(const Pass& pass, ConstTensorView dy) const {
  const TensorView dproduct = dproduct_.In(pass.workspace);
  down_product_.InputGrad(pass, dproduct, dy);
  const TensorView gate_up = gate_up_.In(pass);
  const TensorView dgate_up = dgate_up_.In(pass);
  SwigluBackward(pass.exec, {.dgate = dgate_up.Columns(0, inner_),
                             .dup = dgate_up.Columns(inner_, inner_),
                             .dout = dproduct,
                             .gate = gate_up.Columns(0, inner_),
                             .up = gate_up.Columns(inner_, inner_),
                             .out = pass.whole ? product_.In(pass.workspace) : TensorView()});
  const TensorView dn = delta_.In(pass.workspace);
  gate_up_product_.InputGrad(pass, dn, dgate_up);
  RmsNormBackward(pass.exec, {.dx = dmid_.In(pass),
                              .dweight = norm2_.GradientTarget(pass),
                              .dy = dn,
                              .x = mid_.In(pass),
                              .rstd = rstd2_.In(pass),
                              .weight = norm2_.weight(),
                              .residual = dy});
}

Task<Status> DecoderLayer::BackwardWeight(const Pass& pass, WeightParts parts,
                                          ConstTensorView dy) const {
  for (int part = parts.first; part < parts.end; ++part) WeightGrad(pass, part, dy);
  co_return Status{};
}

void DecoderLayer::WeightGrad(const Pass& pass, int part, ConstTensorView dy) const {
  switch (part) {
    case 0: {
      const TensorView product = product_.In(pass.workspace);
      if (!pass.whole) {
        // SwiGLU's output is not kept: it is one pass over gate and up.
        const TensorView gate_up = gate_up_.In(pass);
        SwigluForward(pass.exec, product, gate_up.Columns(0, inner_),
                      gate_up.Columns(inner_, inner_));
      }
      return down_product_.WeightGrad(pass, dy, product);
    }
    case 1:
      return gate_up_product_.WeightGrad(pass, dgate_up_.In(pass), n2_.In(pass));
    case 2:
      return out_product_.WeightGrad(pass, dmid_.In(pass), out_.In(pass));
    case 3:
      return qkv_product_.WeightGrad(pass, dqkv_.In(pass), n1_.In(pass));
    default:
      CHECK(false, "part {} of {}", part, num_weight_parts());
  }
}

}  // namespace troupe
