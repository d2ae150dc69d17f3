#include "actors/model/decoder_layer.h"

#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "runtime/base/check.h"

namespace troupe {

DecoderLayer::DecoderLayer(const UnitSite& site)
    : config_(site.config),
      attention_(ShapeOf(*site.spec.attention, site.batch)),
      inner_(site.spec.Product("down").in),
      norm1_(site, "input_layernorm.weight"),
      norm2_(site, "post_attention_layernorm.weight"),
      qkv_product_(site, site.spec.Product("qkv")),
      out_product_(site, site.spec.Product("out")),
      gate_up_product_(site, site.spec.Product("gate_up")),
      down_product_(site, site.spec.Product("down")),
      x_(site.Stash("x")),
      n1_(site.Stash("n1")),
      rstd1_(site.Stash("rstd1")),
      qkv_(site.Stash("qkv")),
      out_(site.Stash("out")),
      lse_(site.Stash("lse")),
      mid_(site.Stash("mid")),
      n2_(site.Stash("n2")),
      rstd2_(site.Stash("rstd2")),
      gate_up_(site.Stash("gate_up")),
      dgate_up_(site.Half("dgate_up")),
      dmid_(site.Half("dmid")),
      dqkv_(site.Half("dqkv")),
      delta_(site.Workspace("delta")),
      product_(site.Workspace("product")),
      dproduct_(site.Workspace("dproduct")),
      dout_(site.Workspace("dout")),
      rotary_(site.Constant("rotary")) {}

void DecoderLayer::WriteConstants(std::byte* shared) const {
  RotaryConfig rotary{.head_dim = attention_.head_dim, .theta = config_.rope_theta};
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
}

DecoderLayer::Heads DecoderLayer::HeadsOf(const TensorView& rows) const {
  const AttentionShape& a = attention_;
  const int64_t q = a.num_heads * a.head_dim, k = a.num_kv_heads * a.head_dim;
  return {.q = rows.Columns(0, q).SplitRows({a.num_heads, a.head_dim}),
          .k = rows.Columns(q, k).SplitRows({a.num_kv_heads, a.head_dim}),
          .v = rows.Columns(q + k, k).SplitRows({a.num_kv_heads, a.head_dim})};
}

TensorView DecoderLayer::Lse(const Pass& pass) const {
  const TensorView lse = lse_.In(pass.stash);
  return {lse.data(),
          lse.dtype(),
          {attention_.num_sequences, attention_.num_heads, attention_.query_len}};
}

// ---- forward --------------------------------------------------------------------------------

ResidualStart DecoderLayer::Input(const Pass& pass) const {
  return {.x = x_.In(pass.stash),
          .y = n1_.In(pass.stash),
          .rstd = rstd1_.In(pass.stash),
          .weight = norm1_.weight(),
          .eps = config_.rms_norm_eps};
}

ResidualEnd DecoderLayer::Output(const Pass& pass) const {
  return {.x = mid_.In(pass.stash), .delta = delta_.In(pass.workspace)};
}

Task<Status> DecoderLayer::Forward(const Pass& pass) const {
  const TensorView out = out_.In(pass.stash);
  ForwardAttention(pass, out);
  const TensorView delta = delta_.In(pass.workspace);
  out_product_.Forward(pass, delta, out);
  const TensorView n2 = n2_.In(pass.stash);
  PassResidual(pass.exec, {.x = x_.In(pass.stash), .delta = delta},
               {.x = mid_.In(pass.stash),
                .y = n2,
                .rstd = rstd2_.In(pass.stash),
                .weight = norm2_.weight(),
                .eps = config_.rms_norm_eps});
  const TensorView gate_up = gate_up_.In(pass.stash);
  gate_up_product_.Forward(pass, gate_up, n2);
  const TensorView product = product_.In(pass.workspace);
  SwigluForward(pass.exec, product, gate_up.Columns(0, inner_), gate_up.Columns(inner_, inner_));
  down_product_.Forward(pass, delta, product);
  co_return Status{};
}

void DecoderLayer::ForwardAttention(const Pass& pass, TensorView out) const {
  const TensorView qkv = qkv_.In(pass.stash);
  qkv_product_.Forward(pass, qkv, n1_.In(pass.stash));
  const Heads heads = HeadsOf(qkv);
  RotaryForward(pass.exec, heads.q, pass.positions, Rotary(pass));
  RotaryForward(pass.exec, heads.k, pass.positions, Rotary(pass));
  AttentionForward(pass.exec, attention_,
                   {.out = out.SplitRows({attention_.num_heads, attention_.head_dim}),
                    .lse = Lse(pass),
                    .q = heads.q,
                    .k = heads.k,
                    .v = heads.v});
}

// ---- backward -------------------------------------------------------------------------------

Task<Status> DecoderLayer::BackwardInput(const Pass& pass, ConstTensorView dy,
                                         TensorView dx) const {
  const TensorView dproduct = dproduct_.In(pass.workspace);
  down_product_.InputGrad(pass, dproduct, dy);
  const TensorView gate_up = gate_up_.In(pass.stash);
  const TensorView dgate_up = dgate_up_.In(pass);
  SwigluBackward(pass.exec, {.dgate = dgate_up.Columns(0, inner_),
                             .dup = dgate_up.Columns(inner_, inner_),
                             .dout = dproduct,
                             .gate = gate_up.Columns(0, inner_),
                             .up = gate_up.Columns(inner_, inner_),
                             .out = pass.whole ? product_.In(pass.workspace) : TensorView()});
  const TensorView dn = delta_.In(pass.workspace);
  gate_up_product_.InputGrad(pass, dn, dgate_up);
  const TensorView dmid = dmid_.In(pass);
  RmsNormBackward(pass.exec, {.dx = dmid,
                              .dweight = norm2_.GradientTarget(pass),
                              .dy = dn,
                              .x = mid_.In(pass.stash),
                              .rstd = rstd2_.In(pass.stash),
                              .weight = norm2_.weight(),
                              .residual = dy});
  const TensorView dout = dout_.In(pass.workspace);
  out_product_.InputGrad(pass, dout, dmid);
  const TensorView dqkv = dqkv_.In(pass);
  BackwardAttention(pass, dout, dqkv);
  qkv_product_.InputGrad(pass, dn, dqkv);
  RmsNormBackward(pass.exec, {.dx = dx,
                              .dweight = norm1_.GradientTarget(pass),
                              .dy = dn,
                              .x = x_.In(pass.stash),
                              .rstd = rstd1_.In(pass.stash),
                              .weight = norm1_.weight(),
                              .residual = dmid});
  co_return Status{};
}

void DecoderLayer::BackwardAttention(const Pass& pass, ConstTensorView dout,
                                     TensorView dqkv) const {
  const Heads heads = HeadsOf(qkv_.In(pass.stash));
  const Heads gradients = HeadsOf(dqkv);
  const auto by_head = [this](const auto& rows) {
    return rows.SplitRows({attention_.num_heads, attention_.head_dim});
  };
  AttentionBackward(pass.exec, attention_,
                    {.dq = gradients.q,
                     .dk = gradients.k,
                     .dv = gradients.v,
                     .dout = by_head(dout),
                     .q = heads.q,
                     .k = heads.k,
                     .v = heads.v,
                     .out = by_head(out_.In(pass.stash)),
                     .lse = Lse(pass),
                     .accumulate = false});
  RotaryBackward(pass.exec, gradients.q, pass.positions, Rotary(pass));
  RotaryBackward(pass.exec, gradients.k, pass.positions, Rotary(pass));
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
        const TensorView gate_up = gate_up_.In(pass.stash);
        SwigluForward(pass.exec, product, gate_up.Columns(0, inner_),
                      gate_up.Columns(inner_, inner_));
      }
      return down_product_.WeightGrad(pass, dy, product);
    }
    case 1:
      return gate_up_product_.WeightGrad(pass, dgate_up_.In(pass), n2_.In(pass.stash));
    case 2:
      return out_product_.WeightGrad(pass, dmid_.In(pass), out_.In(pass.stash));
    case 3:
      return qkv_product_.WeightGrad(pass, dqkv_.In(pass), n1_.In(pass.stash));
    default:
      CHECK(false, "part {} of {}", part, num_weight_parts());
  }
}

}  // namespace troupe
