// The backward halves of StageModel.
#include <cstring>

#include "actors/model/stage_model.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {
constexpr int kProductsPerLayer = 4;
}  // namespace

StageModel::Stash& StageModel::StashOf(int32_t microbatch) {
  const auto found = stashes_.find(microbatch);
  CHECK(found != stashes_.end(), "backward of microbatch {} before its forward", microbatch);
  return found->second;
}

TensorView StageModel::GradientTarget(int accumulator, int32_t microbatch, int64_t rows,
                                      int64_t columns) {
  const TensorView flat = gradients_.Target(exec_, accumulator, microbatch);
  if (columns == 1) return flat;
  return {flat.data(), flat.dtype(), {rows, columns}};
}

void StageModel::Weigh(const Linear& linear, int32_t microbatch, ConstTensorView dy,
                       ConstTensorView x) {
  MatmulWeightGrad(
      exec_, GradientTarget(linear.accumulator, microbatch, linear.shape.out, linear.shape.in), dy,
      x, /*accumulate=*/true);
}

// The gradient of the last layer's output: the loss's through the final norm, or the next stage's.
void StageModel::EnterBackward(Stash& stash, std::span<const std::byte> gradient, TensorView dy) {
  if (!options_.shape.layout.has_head()) {
    CHECK(static_cast<int64_t>(gradient.size()) == boundary_bytes());
    std::memcpy(dy.data(), gradient.data(), gradient.size());
    return;
  }
  std::byte* base = stash.memory.data();
  RmsNormBackward(exec_, {.dx = dy,
                          .dweight = GradientTarget(final_norm_accumulator_, stash.microbatch,
                                                    options_.shape.config.hidden_size, 1),
                          .dy = Hidden(base, stash_layout_.final_dn),
                          .x = Hidden(base, stash_layout_.final_x),
                          .rstd = Statistic(base, stash_layout_.final_rstd, num_tokens_),
                          .weight = Weight(table_.final_norm_index()),
                          .residual = {}});
}

// From dy of the layer's output to dx of its input; leaves in `g` what the weight half needs.
void StageModel::LayerInputHalf(Stash& stash, int index, const LayerGradients& g, TensorView dx,
                                TensorView product) {
  const ModelConfig& c = options_.shape.config;
  const Layer& layer = layers_[static_cast<size_t>(index)];
  const LayerStash& at = stash_layout_.layers[static_cast<size_t>(index)];
  std::byte* base = stash.memory.data();
  const int64_t f = c.intermediate_size;

  const TensorView dproduct = Wide(work(), work_layout_.dproduct, f);
  MatmulInputGrad(exec_, dproduct, g.dy, layer.down.input_grad);
  const TensorView gate_up = Wide(base, at.gate_up, 2 * f);
  SwigluBackward(exec_, {.dgate = g.dgate_up.Columns(0, f),
                         .dup = g.dgate_up.Columns(f, f),
                         .dout = dproduct,
                         .gate = gate_up.Columns(0, f),
                         .up = gate_up.Columns(f, f),
                         .out = product});
  const TensorView dn = Hidden(work(), work_layout_.delta);
  MatmulInputGrad(exec_, dn, g.dgate_up, layer.gate_up.input_grad);
  RmsNormBackward(exec_, {.dx = g.dmid,
                          .dweight = GradientTarget(layer.norm2_accumulator, stash.microbatch,
                                                    c.hidden_size, 1),
                          .dy = dn,
                          .x = Hidden(base, at.mid),
                          .rstd = Statistic(base, at.rstd2, num_tokens_),
                          .weight = Weight(layer.norm2),
                          .residual = g.dy});
  AttentionInputHalf(stash, index, g);
  MatmulInputGrad(exec_, dn, g.dqkv, layer.qkv.input_grad);
  RmsNormBackward(exec_, {.dx = dx,
                          .dweight = GradientTarget(layer.norm1_accumulator, stash.microbatch,
                                                    c.hidden_size, 1),
                          .dy = dn,
                          .x = Hidden(base, at.x),
                          .rstd = Statistic(base, at.rstd1, num_tokens_),
                          .weight = Weight(layer.norm1),
                          .residual = g.dmid});
}

void StageModel::AttentionInputHalf(Stash& stash, int index, const LayerGradients& g) {
  const ModelConfig& c = options_.shape.config;
  const LayerStash& at = stash_layout_.layers[static_cast<size_t>(index)];
  std::byte* base = stash.memory.data();
  const int64_t q = c.query_size();
  const int64_t k = c.key_value_size();
  const auto query_heads = [&](const TensorView& rows) {
    return rows.Columns(0, q).SplitRows({c.num_attention_heads, c.head_dim});
  };
  const auto kv_heads = [&](const TensorView& rows, int64_t first) {
    return rows.Columns(first, k).SplitRows({c.num_key_value_heads, c.head_dim});
  };

  const TensorView dout = Wide(work(), work_layout_.dout, q);
  MatmulInputGrad(exec_, dout, g.dmid, layers_[static_cast<size_t>(index)].out.input_grad);
  const TensorView qkv = Wide(base, at.qkv, q + 2 * k);
  const AttentionShape attention = AttentionOf();
  AttentionBackward(exec_, attention,
                    {.dq = query_heads(g.dqkv),
                     .dk = kv_heads(g.dqkv, q),
                     .dv = kv_heads(g.dqkv, q + k),
                     .dout = query_heads(dout),
                     .q = query_heads(qkv),
                     .k = kv_heads(qkv, q),
                     .v = kv_heads(qkv, q + k),
                     .out = query_heads(Wide(base, at.out, q)),
                     .lse = ConstTensorView(
                         base + at.lse, master_,
                         {attention.num_sequences, c.num_attention_heads, attention.query_len}),
                     .accumulate = false});
  RotaryBackward(exec_, query_heads(g.dqkv), Positions(), Rotary());
  RotaryBackward(exec_, kv_heads(g.dqkv, q), Positions(), Rotary());
}

void StageModel::LayerWeightHalf(Stash& stash, int index, int product, const LayerGradients& g,
                                 ConstTensorView swiglu) {
  const int64_t f = options_.shape.config.intermediate_size;
  const Layer& layer = layers_[static_cast<size_t>(index)];
  const LayerStash& at = stash_layout_.layers[static_cast<size_t>(index)];
  std::byte* base = stash.memory.data();
  switch (product) {
    case 0: {
      if (!swiglu.empty()) return Weigh(layer.down, stash.microbatch, g.dy, swiglu);
      // SwiGLU's output is not kept: it is one pass over gate and up.
      const TensorView gate_up = Wide(base, at.gate_up, 2 * f);
      const TensorView out = Wide(work(), work_layout_.product, f);
      SwigluForward(exec_, out, gate_up.Columns(0, f), gate_up.Columns(f, f));
      return Weigh(layer.down, stash.microbatch, g.dy, out);
    }
    case 1:
      return Weigh(layer.gate_up, stash.microbatch, g.dgate_up, Hidden(base, at.n2));
    case 2:
      return Weigh(layer.out, stash.microbatch, g.dmid,
                   Wide(base, at.out, options_.shape.config.query_size()));
    default:
      return Weigh(layer.qkv, stash.microbatch, g.dqkv, Hidden(base, at.n1));
  }
}

void StageModel::EmbeddingWeightHalf(Stash& stash, ConstTensorView dy) {
  EmbeddingBackward(
      exec_,
      GradientTarget(embedding_accumulator_, stash.microbatch, options_.shape.config.vocab_size,
                     options_.shape.config.hidden_size),
      Tokens(stash.memory.data(), stash_layout_.inputs), dy);
}

// Layer by layer, both halves while the layer's gradients are in cache.
Buffer StageModel::Backward(int32_t microbatch, std::span<const std::byte> gradient) {
  Stash& stash = StashOf(microbatch);
  LayerGradients g = GradientsIn(work(), work_layout_.gradients);
  TensorView dx = Hidden(work(), work_layout_.dx);
  const TensorView swiglu =
      Wide(work(), work_layout_.product, options_.shape.config.intermediate_size);
  Buffer output;
  const bool first_stage = options_.shape.layout.has_embedding();
  if (!first_stage) output = Buffer(ledger_, MemoryTag::kComm, boundary_bytes());
  EnterBackward(stash, gradient, g.dy);
  for (int layer = static_cast<int>(layers_.size()) - 1; layer >= 0; --layer) {
    const bool leaves = layer == 0 && !first_stage;
    LayerInputHalf(stash, layer, g, leaves ? Hidden(output.data(), 0) : dx, swiglu);
    for (int product = 0; product < kProductsPerLayer; ++product) {
      LayerWeightHalf(stash, layer, product, g, swiglu);
    }
    std::swap(g.dy, dx);
  }
  if (first_stage) EmbeddingWeightHalf(stash, g.dy);
  ReturnStash(std::move(stash));
  stashes_.erase(microbatch);
  return output;
}

Buffer StageModel::BackwardInput(int32_t microbatch, std::span<const std::byte> gradient) {
  CHECK(options_.shape.halves, "the stage was laid out for whole backwards");
  Stash& stash = StashOf(microbatch);
  std::byte* base = stash.memory.data();
  const bool first_stage = options_.shape.layout.has_embedding();
  Buffer output;
  if (!first_stage) output = Buffer(ledger_, MemoryTag::kComm, boundary_bytes());
  EnterBackward(stash, gradient, Hidden(base, stash_layout_.gradients.back().dy));
  for (int layer = static_cast<int>(layers_.size()) - 1; layer >= 0; --layer) {
    TensorView dx;
    if (layer > 0) {
      dx = Hidden(base, stash_layout_.gradients[static_cast<size_t>(layer) - 1].dy);
    } else {
      dx = first_stage ? Hidden(base, stash_layout_.embedding_dy) : Hidden(output.data(), 0);
    }
    LayerInputHalf(stash, layer,
                   GradientsIn(base, stash_layout_.gradients[static_cast<size_t>(layer)]), dx);
  }
  return output;
}

void StageModel::BackwardWeight(int32_t microbatch, int32_t part, int32_t num_parts) {
  CHECK(options_.shape.halves, "the stage was laid out for whole backwards");
  CHECK(part >= 0 && part < num_parts, "part {} of {}", part, num_parts);
  Stash& stash = StashOf(microbatch);
  std::byte* base = stash.memory.data();
  const int products = static_cast<int>(layers_.size()) * kProductsPerLayer;
  const int total = products + (options_.shape.layout.has_embedding() ? 1 : 0);
  for (int i = total * part / num_parts; i < total * (part + 1) / num_parts; ++i) {
    if (i == products) {
      EmbeddingWeightHalf(stash, Hidden(base, stash_layout_.embedding_dy));
      continue;
    }
    // As in Backward: the last layer first.
    const int layer = static_cast<int>(layers_.size()) - 1 - i / kProductsPerLayer;
    LayerWeightHalf(stash, layer, i % kProductsPerLayer,
                    GradientsIn(base, stash_layout_.gradients[static_cast<size_t>(layer)]));
  }
  if (++stash.parts_done < num_parts) return;
  ReturnStash(std::move(stash));
  stashes_.erase(microbatch);
}

}  // namespace troupe
