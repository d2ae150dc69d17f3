#include "actors/plan/layer_spec.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace troupe {
namespace {

constexpr std::string_view kEmbeddingName = "model.embed_tokens.weight";

ParameterSpec Matrix(std::string name, int64_t rows, int64_t columns, int shard_axis) {
  return {.name = std::move(name), .rows = rows, .columns = columns, .shard_axis = shard_axis};
}

ParameterSpec Norm(std::string name, int64_t channels) {
  return {.name = std::move(name),
          .rows = channels,
          .columns = 1,
          .one_dimensional = true,
          .decay = false,
          .init = ParameterInit::kOnes,
          .shard_axis = -1};
}

LayerTensor OfBatch(std::string_view name) {
  return {.name = name, .width = TensorWidth::kInt32, .life = TensorLife::kBatch};
}

template <typename Named>
const Named& ByName(const std::vector<Named>& list, std::string_view name) {
  const auto found = std::ranges::find(list, name, &Named::name);
  CHECK(found != list.end(), "the unit has no {}", name);
  return *found;
}

}  // namespace

std::vector<int64_t> ParameterSpec::shape() const {
  if (one_dimensional) return {rows};
  return {rows, columns};
}

int64_t ChunkTokens(int64_t out, int64_t num_tokens) {
  constexpr int64_t kBytesMax = int64_t{4} << 20;
  constexpr int64_t kRowBlock = 16;
  const int64_t fitting = kBytesMax / (4 * out) / kRowBlock * kRowBlock;
  return std::min(num_tokens, std::max(fitting, kRowBlock));
}

int64_t RowsOf(const LayerProduct& product, int64_t num_tokens) {
  return product.chunked ? ChunkTokens(product.out, num_tokens) : num_tokens;
}

TokenFlops& TokenFlops::operator+=(const TokenFlops& other) {
  forward += other.forward;
  backward_input += other.backward_input;
  backward_weight += other.backward_weight;
  return *this;
}

const LayerTensor& LayerSpec::Tensor(std::string_view name) const { return ByName(tensors, name); }

const LayerProduct& LayerSpec::Product(std::string_view name) const {
  return ByName(products, name);
}

ProductCut LayerSpec::CutOf(const LayerProduct& product) const {
  switch (parameters[static_cast<size_t>(product.first_parameter)].shard_axis) {
    case 0:
      return ProductCut::kColumn;
    case 1:
      return ProductCut::kRow;
    default:
      return ProductCut::kNone;
  }
}

LayerSpec EmbeddingSpec(const ModelConfig& c) {
  LayerSpec spec;
  spec.parameters = {Matrix(std::string(kEmbeddingName), c.vocab_size, c.hidden_size, 0)};
  spec.tensors = {OfBatch(kTokensTensor),
                  {.name = "dy", .columns = c.hidden_size, .life = TensorLife::kHalf}};
  // Its gradient's scatter, as one addition a channel.
  spec.other_flops = {0, 0, static_cast<double>(c.hidden_size)};
  return spec;
}

LayerSpec DecoderLayerSpec(const ModelConfig& c) {
  const int64_t h = c.hidden_size, f = c.intermediate_size;
  const int64_t q = c.query_size(), k = c.key_value_size();
  constexpr auto kMaster = TensorWidth::kMaster;
  constexpr auto kHalf = TensorLife::kHalf;
  constexpr auto kWorkspace = TensorLife::kWorkspace;
  constexpr auto kFull = Recompute::kFull;
  constexpr auto kAttention = Recompute::kAttention;
  LayerSpec spec{.kind = kDecoderKind};
  spec.parameters = {
      Norm("input_layernorm.weight", h),          Matrix("self_attn.q_proj.weight", q, h, 0),
      Matrix("self_attn.k_proj.weight", k, h, 0), Matrix("self_attn.v_proj.weight", k, h, 0),
      Matrix("self_attn.o_proj.weight", h, q, 1), Norm("post_attention_layernorm.weight", h),
      Matrix("mlp.gate_proj.weight", f, h, 0),    Matrix("mlp.up_proj.weight", f, h, 0),
      Matrix("mlp.down_proj.weight", h, f, 1)};
  spec.products = {{"qkv", h, q + 2 * k, 1, 3},
                   {"out", q, h, 4, 1},
                   {"gate_up", h, 2 * f, 6, 2},
                   {"down", f, h, 8, 1}};
  spec.tensors = {
      {.name = "x", .columns = h},                   // the layer's input
      {.name = "n1", .columns = h, .again = kFull},  // normed
      {.name = "rstd1", .width = kMaster, .again = kFull},
      {.name = "qkv", .columns = q + 2 * k, .again = kAttention},  // rotated
      {.name = "out", .columns = q, .again = kAttention},          // attention's output
      {.name = "lse", .columns = c.num_attention_heads, .width = kMaster, .again = kAttention},
      {.name = "mid", .columns = h, .again = kFull},  // after attention
      {.name = "n2", .columns = h, .again = kFull},
      {.name = "rstd2", .width = kMaster, .again = kFull},
      {.name = "gate_up", .columns = 2 * f, .again = kFull},
      // Gradients, from one half of backward to the other.
      {.name = "dy", .columns = h, .life = kHalf},  // of the layer's output
      {.name = "dgate_up", .columns = 2 * f, .life = kHalf},
      {.name = "dmid", .columns = h, .life = kHalf},
      {.name = "dqkv", .columns = q + 2 * k, .life = kHalf},
      // What a block adds to the residual; gradients of norms' outputs.
      {.name = "delta", .columns = h, .life = kWorkspace},
      {.name = "product", .columns = f, .life = kWorkspace},  // SwiGLU's output
      {.name = "dproduct", .columns = f, .life = kWorkspace},
      {.name = "dout", .columns = q, .life = kWorkspace},
      {.name = "dx", .columns = h, .life = kWorkspace},  // the next layer's dy
      {.name = "rotary",
       .rows = TensorRows::kPosition,
       .columns = c.head_dim,
       .width = kMaster,
       .life = TensorLife::kConstant},
      OfBatch(kPositionsTensor),
      OfBatch(kDocumentStartsTensor)};
  spec.attention = {c.num_attention_heads, c.num_key_value_heads, c.head_dim};
  return spec;
}

LayerSpec HeadSpec(const ModelConfig& c) {
  const int64_t h = c.hidden_size, v = c.vocab_size;
  LayerSpec spec;
  spec.parameters = {
      Norm("model.norm.weight", h),
      Matrix(c.tie_word_embeddings ? std::string(kEmbeddingName) : "lm_head.weight", v, h, 0)};
  spec.products = {{"logits", h, v, 1, 1, /*chunked=*/true}};
  spec.tensors = {OfBatch(kLabelsTensor),
                  {.name = "x", .columns = h},
                  {.name = "n", .columns = h},
                  {.name = "rstd", .width = TensorWidth::kMaster},
                  // The norm's, for the backward, which then reads no weights of the unit.
                  {.name = "weight", .rows = TensorRows::kOne, .columns = h},
                  {.name = "dn", .columns = h},  // the loss's gradient
                  {.name = "logits",
                   .rows = TensorRows::kChunk,
                   .columns = v,
                   .width = TensorWidth::kMaster,
                   .life = TensorLife::kWorkspace},
                  {.name = "dlogits",  // else they take the logits' place
                   .rows = TensorRows::kChunk,
                   .columns = v,
                   .width = TensorWidth::kNarrow,
                   .life = TensorLife::kWorkspace}};
  return spec;
}

ModelSpec::ModelSpec(const ModelConfig& c)
    : config(c),
      embedding(EmbeddingSpec(c)),
      head(HeadSpec(c)),
      layer_kinds({DecoderLayerSpec(c)}),
      layers(static_cast<size_t>(c.num_hidden_layers), 0) {}

int ModelSpec::LayerOf(int unit) const {
  return unit == embedding_unit() || unit == head_unit() ? -1 : unit - 1;
}

const LayerSpec& ModelSpec::unit(int unit) const {
  if (unit == embedding_unit()) return embedding;
  if (unit == head_unit()) return head;
  return layer_kinds[static_cast<size_t>(layers[static_cast<size_t>(LayerOf(unit))])];
}

}  // namespace troupe
