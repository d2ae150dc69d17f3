#include "actors/model/stage_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "actors/plan/kernel_memory.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/squared_norm.h"
#include "kernels/swiglu.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

DType MasterOf(DType dtype) { return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32; }

}  // namespace

StageModel::StageModel(const StageModelOptions& options, const ParameterTable& table,
                       MemoryLedger& ledger)
    : options_(options),
      table_(table),
      ledger_(ledger),
      num_tokens_(options.shape.batch.tokens_per_microbatch()),
      stash_layout_(StashLayoutOf(options.shape)),
      master_(MasterOf(options.dtype)),
      parameters_({.compute = options.dtype,
                   .master = master_,
                   .initializer_range = options.shape.config.initializer_range,
                   .owner = options.owner},
                  table, options.shape.layout, ledger),
      gradients_({.num_elements = GradientElements(table, options.shape.layout),
                  .dtype = master_,
                  .num_microbatches = options.shape.batch.num_microbatches,
                  .groups = options.shape.batch.gradient_groups},
                 ledger) {
  CHECK(options.shape.widths.compute_bytes == DTypeBytes(options.dtype));
  exec_.specification = options.specification;
  exec_.num_threads = options.shape.num_threads;
  const StageLayout& layout = options.shape.layout;
  if (layout.has_embedding()) embedding_accumulator_ = NewAccumulator(table.embedding_index());
  for (int i = 0; i < layout.num_layers; ++i) {
    const auto at = [&](ParameterRole role) {
      return table.layer_index(layout.first_layer + i, role);
    };
    Layer layer;
    layer.norm1 = at(ParameterRole::kInputNorm);
    layer.norm2 = at(ParameterRole::kPostAttentionNorm);
    layer.norm1_accumulator = NewAccumulator(layer.norm1);
    layer.norm2_accumulator = NewAccumulator(layer.norm2);
    layer.qkv = NewLinear(at(ParameterRole::kQuery), 3);
    layer.out = NewLinear(at(ParameterRole::kAttentionOutput), 1);
    layer.gate_up = NewLinear(at(ParameterRole::kGate), 2);
    layer.down = NewLinear(at(ParameterRole::kDown), 1);
    layers_.push_back(std::move(layer));
  }
  if (layout.has_head()) {
    final_norm_accumulator_ = NewAccumulator(table.final_norm_index());
    if (table.tied() && layout.has_embedding()) tied_first_element_ = parameters_.num_elements();
    head_ = NewLinear(table.head_index(), 1);
    head_.shape.tokens = HeadChunkTokens(options.shape.config, num_tokens_);
  }
  const int threads = exec_.num_threads;
  int64_t kernel_bytes = std::max(KernelScratchBytes(options.shape, ThisVectorIsa()),
                                  AttentionWorkspaceBytes(AttentionOf(), threads));
  for (const Layer& layer : layers_) {
    for (const Linear* l : {&layer.qkv, &layer.out, &layer.gate_up, &layer.down}) {
      kernel_bytes = std::max(kernel_bytes, MatmulWorkspaceBytes(l->shape, threads));
    }
  }
  if (layout.has_head()) {
    kernel_bytes = std::max(kernel_bytes, MatmulWorkspaceBytes(head_.shape, threads));
  }
  work_layout_ = WorkspaceLayoutOf(options.shape, kernel_bytes);
  workspace_ = Buffer(ledger, MemoryTag::kWorkspace, work_layout_.num_bytes);
  exec_.workspace = workspace_.bytes().subspan(static_cast<size_t>(work_layout_.kernels));
  FillConstants();
}

StageModel::Linear StageModel::NewLinear(int table_index, int num_parameters) {
  Linear linear{.table_index = table_index, .num_parameters = num_parameters};
  const ConstTensorView weight = parameters_.Compute(table_index, num_parameters);
  linear.shape = {num_tokens_, weight.row_elements(), weight.rows(), options_.dtype};
  linear.accumulator = NewAccumulator(table_index, num_parameters);
  return linear;
}

// A tied head on the embedding's own stage sums into elements of its own, beyond the parameters'.
int StageModel::NewAccumulator(int table_index, int num_parameters) {
  int64_t elements = 0;
  for (int i = 0; i < num_parameters; ++i) elements += table_[table_index + i].num_elements();
  const bool tied_head = tied_first_element_ >= 0 && table_index == table_.head_index();
  const int64_t first = tied_head ? tied_first_element_ : parameters_.Of(table_index).first_element;
  return gradients_.AddAccumulator(first, elements);
}

void StageModel::FillConstants() {
  const ModelConfig& c = options_.shape.config;
  int32_t* positions = Tokens(work(), work_layout_.positions).as<int32_t>();
  for (int64_t t = 0; t < num_tokens_; ++t) {
    positions[t] = static_cast<int32_t>(t % options_.shape.batch.seq_len);
  }
  RotaryConfig rotary{.head_dim = c.head_dim, .theta = c.rope_theta};
  if (c.rope_scaling) {
    rotary.has_llama3_scaling = true;
    rotary.llama3 = {.factor = c.rope_scaling->factor,
                     .low_freq_factor = c.rope_scaling->low_freq_factor,
                     .high_freq_factor = c.rope_scaling->high_freq_factor,
                     .original_max_position_embeddings =
                         static_cast<double>(c.rope_scaling->original_max_position_embeddings)};
  }
  BuildRotaryTable(
      TensorView(work() + work_layout_.rotary, master_, {options_.shape.batch.seq_len, c.head_dim}),
      rotary);
}

void StageModel::Pack(Linear& linear) {
  const ConstTensorView weight = parameters_.Compute(linear.table_index, linear.num_parameters);
  const auto pack = [&](WeightUse use, Buffer& memory, PackedWeight& packed) {
    const int64_t num_bytes = PackedWeightBytes(linear.shape, use);
    if (num_bytes == 0 || options_.specification) {
      packed = weight;
      packed.use = use;
      return;
    }
    if (memory.empty()) memory = Buffer(ledger_, MemoryTag::kWorkspace, num_bytes);
    packed = PackWeight(exec_, linear.shape, use, weight, memory.bytes());
  };
  pack(WeightUse::kForward, linear.forward_memory, linear.forward);
  pack(WeightUse::kInputGrad, linear.input_grad_memory, linear.input_grad);
}

void StageModel::WeightsChanged() {
  parameters_.RoundMasters(exec_);
  PackAll();
}

void StageModel::PackAll() {
  for (Layer& layer : layers_) {
    Pack(layer.qkv);
    Pack(layer.out);
    Pack(layer.gate_up);
    Pack(layer.down);
  }
  if (options_.shape.layout.has_head()) Pack(head_);
}

// ---- where tensors lie ----------------------------------------------------------------------

int64_t StageModel::boundary_bytes() const {
  return num_tokens_ * options_.shape.config.hidden_size * DTypeBytes(options_.dtype);
}

TensorView StageModel::Hidden(std::byte* base, int64_t offset) const {
  return Wide(base, offset, options_.shape.config.hidden_size);
}

TensorView StageModel::Wide(std::byte* base, int64_t offset, int64_t columns) const {
  return {base + offset, options_.dtype, {num_tokens_, columns}};
}

TensorView StageModel::Statistic(std::byte* base, int64_t offset, int64_t elements) const {
  return {base + offset, master_, {elements}};
}

TensorView StageModel::Tokens(std::byte* base, int64_t offset) const {
  return {base + offset, DType::kInt32, {num_tokens_}};
}

StageModel::LayerGradients StageModel::GradientsIn(std::byte* base,
                                                   const LayerGradientStash& offsets) const {
  const ModelConfig& c = options_.shape.config;
  return {.dy = Hidden(base, offsets.dy),
          .dgate_up = Wide(base, offsets.dgate_up, 2 * c.intermediate_size),
          .dmid = Hidden(base, offsets.dmid),
          .dqkv = Wide(base, offsets.dqkv, c.query_size() + 2 * c.key_value_size())};
}

ConstTensorView StageModel::Positions() { return Tokens(work(), work_layout_.positions); }

ConstTensorView StageModel::Rotary() {
  return {work() + work_layout_.rotary,
          master_,
          {options_.shape.batch.seq_len, options_.shape.config.head_dim}};
}

AttentionShape StageModel::AttentionOf() const {
  const ModelConfig& c = options_.shape.config;
  return {.num_sequences = options_.shape.batch.micro_batch_size,
          .query_len = options_.shape.batch.seq_len,
          .key_len = options_.shape.batch.seq_len,
          .num_heads = c.num_attention_heads,
          .num_kv_heads = c.num_key_value_heads,
          .head_dim = c.head_dim};
}

// ---- forward --------------------------------------------------------------------------------

StageModel::Stash StageModel::TakeStash(int32_t microbatch) {
  Stash stash;
  if (free_stashes_.empty()) {
    stash.memory = Buffer(ledger_, MemoryTag::kActivations, stash_layout_.num_bytes);
  } else {
    stash = std::move(free_stashes_.back());
    free_stashes_.pop_back();
  }
  stash.microbatch = microbatch;
  stash.parts_done = 0;
  return stash;
}

void StageModel::ReturnStash(Stash stash) { free_stashes_.push_back(std::move(stash)); }

void StageModel::EnterStage(Stash& stash, std::span<const std::byte> input,
                            std::span<const int32_t> tokens) {
  std::byte* base = stash.memory.data();
  const StageLayout& layout = options_.shape.layout;
  const int64_t seq_len = options_.shape.batch.seq_len;
  const int64_t sequences = options_.shape.batch.micro_batch_size;
  if (layout.has_embedding() || layout.has_head()) {
    CHECK(static_cast<int64_t>(tokens.size()) == sequences * (seq_len + 1),
          "a microbatch has {} tokens instead of {} rows of {}", tokens.size(), sequences,
          seq_len + 1);
  }
  for (int64_t s = 0; s < sequences; ++s) {
    const size_t row_bytes = static_cast<size_t>(seq_len) * sizeof(int32_t);
    const int32_t* row = tokens.data() + s * (seq_len + 1);
    if (layout.has_embedding()) {
      std::memcpy(Tokens(base, stash_layout_.inputs).as<int32_t>() + s * seq_len, row, row_bytes);
    }
    if (layout.has_head()) {
      std::memcpy(Tokens(base, stash_layout_.labels).as<int32_t>() + s * seq_len, row + 1,
                  row_bytes);
    }
  }
  const LayerStash& first = stash_layout_.layers.front();
  if (layout.has_embedding()) {
    EmbeddingForward(exec_, Hidden(base, first.x), Tokens(base, stash_layout_.inputs),
                     Weight(table_.embedding_index()));
  } else {
    CHECK(static_cast<int64_t>(input.size()) == boundary_bytes());
    std::memcpy(base + first.x, input.data(), input.size());
  }
  RmsNormForward(exec_, Hidden(base, first.n1), Statistic(base, first.rstd1, num_tokens_),
                 Hidden(base, first.x), Weight(layers_.front().norm1),
                 options_.shape.config.rms_norm_eps);
}

// From normed input n1 to the block's delta, which LeaveLayer adds to mid.
void StageModel::ForwardLayer(Stash& stash, int index) {
  const ModelConfig& c = options_.shape.config;
  const Layer& layer = layers_[static_cast<size_t>(index)];
  const LayerStash& at = stash_layout_.layers[static_cast<size_t>(index)];
  std::byte* base = stash.memory.data();
  const int64_t q = c.query_size();
  const int64_t k = c.key_value_size();

  const TensorView qkv = Wide(base, at.qkv, q + 2 * k);
  MatmulForward(exec_, qkv, Hidden(base, at.n1), layer.qkv.forward);
  const TensorView query = qkv.Columns(0, q).SplitRows({c.num_attention_heads, c.head_dim});
  const TensorView key = qkv.Columns(q, k).SplitRows({c.num_key_value_heads, c.head_dim});
  const TensorView value = qkv.Columns(q + k, k).SplitRows({c.num_key_value_heads, c.head_dim});
  RotaryForward(exec_, query, Positions(), Rotary());
  RotaryForward(exec_, key, Positions(), Rotary());
  const AttentionShape attention = AttentionOf();
  const TensorView out = Wide(base, at.out, q);
  const TensorView lse(base + at.lse, master_,
                       {attention.num_sequences, c.num_attention_heads, attention.query_len});
  AttentionForward(exec_, attention,
                   {.out = out.SplitRows({c.num_attention_heads, c.head_dim}),
                    .lse = lse,
                    .q = query,
                    .k = key,
                    .v = value});

  const TensorView delta = Hidden(work(), work_layout_.delta);
  MatmulForward(exec_, delta, out, layer.out.forward);
  AddRmsNormForward(exec_, {.y = Hidden(base, at.n2),
                            .rstd = Statistic(base, at.rstd2, num_tokens_),
                            .sum = Hidden(base, at.mid),
                            .x = Hidden(base, at.x),
                            .delta = delta,
                            .weight = Weight(layer.norm2),
                            .eps = c.rms_norm_eps});
  const int64_t f = c.intermediate_size;
  const TensorView gate_up = Wide(base, at.gate_up, 2 * f);
  MatmulForward(exec_, gate_up, Hidden(base, at.n2), layer.gate_up.forward);
  const TensorView product = Wide(work(), work_layout_.product, f);
  SwigluForward(exec_, product, gate_up.Columns(0, f), gate_up.Columns(f, f));
  MatmulForward(exec_, delta, product, layer.down.forward);
}

void StageModel::LeaveLayer(Stash& stash, int index, Buffer& output) {
  std::byte* base = stash.memory.data();
  const auto next = static_cast<size_t>(index) + 1;
  const TensorView mid = Hidden(base, stash_layout_.layers[next - 1].mid);
  const TensorView delta = Hidden(work(), work_layout_.delta);
  const double eps = options_.shape.config.rms_norm_eps;
  if (next < layers_.size()) {
    const LayerStash& at = stash_layout_.layers[next];
    AddRmsNormForward(exec_, {.y = Hidden(base, at.n1),
                              .rstd = Statistic(base, at.rstd1, num_tokens_),
                              .sum = Hidden(base, at.x),
                              .x = mid,
                              .delta = delta,
                              .weight = Weight(layers_[next].norm1),
                              .eps = eps});
  } else if (options_.shape.layout.has_head()) {
    AddRmsNormForward(exec_, {.y = Hidden(base, stash_layout_.final_n),
                              .rstd = Statistic(base, stash_layout_.final_rstd, num_tokens_),
                              .sum = Hidden(base, stash_layout_.final_x),
                              .x = mid,
                              .delta = delta,
                              .weight = Weight(table_.final_norm_index()),
                              .eps = eps});
  } else {
    output = Buffer(ledger_, MemoryTag::kComm, boundary_bytes());
    Add(exec_, Hidden(output.data(), 0), mid, delta);
  }
}

// Walks the head's chunks in ascending order; with gradients, each chunk's logits turn into their
// own gradient and at once into the head's two products.
LossSum StageModel::HeadLoss(Stash& stash, bool with_gradients) {
  std::byte* base = stash.memory.data();
  const TensorView normed = Hidden(base, stash_layout_.final_n);
  const TensorView dn = Hidden(base, stash_layout_.final_dn);
  const TensorView labels = Tokens(base, stash_layout_.labels);
  const int64_t vocab = options_.shape.config.vocab_size;
  LossSum sum;
  for (int64_t first = 0; first < num_tokens_; first += head_.shape.tokens) {
    const int64_t count = std::min(head_.shape.tokens, num_tokens_ - first);
    const TensorView logits(work() + work_layout_.logits, master_, {count, vocab});
    MatmulForward(exec_, logits, normed.Rows(first, count), head_.forward);
    if (!with_gradients) {
      CrossEntropy(exec_, {}, logits, labels.Rows(first, count), sum);
      continue;
    }
    const TensorView dlogits =
        options_.shape.widths.has_compute_copy()
            ? TensorView(work() + work_layout_.dlogits, options_.dtype, {count, vocab})
            : logits;
    CrossEntropy(exec_, dlogits, logits, labels.Rows(first, count), sum);
    MatmulInputGrad(exec_, dn.Rows(first, count), dlogits, head_.input_grad);
    Weigh(head_, stash.microbatch, dlogits, normed.Rows(first, count));
  }
  return sum;
}

StageModel::ForwardResult StageModel::RunForward(Stash& stash, std::span<const std::byte> input,
                                                 std::span<const int32_t> tokens,
                                                 bool with_gradients) {
  ForwardResult result;
  EnterStage(stash, input, tokens);
  for (int layer = 0; layer < static_cast<int>(layers_.size()); ++layer) {
    ForwardLayer(stash, layer);
    LeaveLayer(stash, layer, result.output);
  }
  if (options_.shape.layout.has_head()) {
    const LossSum loss = HeadLoss(stash, with_gradients);
    result.loss_sum = loss.nll;
    result.num_tokens = loss.num_tokens;
  }
  return result;
}

StageModel::ForwardResult StageModel::Forward(int32_t microbatch, std::span<const std::byte> input,
                                              std::span<const int32_t> tokens) {
  CHECK(!stashes_.contains(microbatch), "microbatch {} is already under way", microbatch);
  Stash& stash = stashes_[microbatch] = TakeStash(microbatch);
  return RunForward(stash, input, tokens, /*with_gradients=*/true);
}

StageModel::ForwardResult StageModel::Evaluate(std::span<const std::byte> input,
                                               std::span<const int32_t> tokens) {
  Stash stash = TakeStash(-1);
  ForwardResult result = RunForward(stash, input, tokens, /*with_gradients=*/false);
  ReturnStash(std::move(stash));
  return result;
}

}  // namespace troupe
