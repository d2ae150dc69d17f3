#include "actors/plan/memory_model.h"

#include <algorithm>
#include <string>

#include "actors/plan/kernel_memory.h"
#include "runtime/base/slot_stride.h"

namespace troupe {
namespace {

constexpr int64_t kAlignmentBytes = 64;
constexpr int64_t kLogitsBytesMax = int64_t{4} << 20;
constexpr int64_t kRowBlock = 16;

int64_t Aligned(int64_t num_bytes) {
  return (num_bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
}

// Lays tensors one behind the other.
struct Cursor {
  int64_t end = 0;
  int64_t Place(int64_t num_bytes) {
    const int64_t begin = end;
    end += Aligned(num_bytes);
    return begin;
  }
};

LayerGradientStash PlaceGradients(const StageShape& s, Cursor& cursor) {
  const int64_t tokens = s.batch.tokens_per_microbatch();
  const int64_t w = s.widths.compute_bytes;
  const ModelConfig& c = s.config;
  LayerGradientStash g;
  g.dy = cursor.Place(tokens * c.hidden_size * w);
  g.dgate_up = cursor.Place(tokens * 2 * c.intermediate_size * w);
  g.dmid = cursor.Place(tokens * c.hidden_size * w);
  g.dqkv = cursor.Place(tokens * (c.query_size() + 2 * c.key_value_size()) * w);
  return g;
}

LayerStash PlaceLayer(const StageShape& s, Cursor& cursor) {
  const int64_t tokens = s.batch.tokens_per_microbatch();
  const int64_t w = s.widths.compute_bytes;
  const int64_t m = s.widths.master_bytes;
  const ModelConfig& c = s.config;
  LayerStash layer;
  layer.x = cursor.Place(tokens * c.hidden_size * w);
  layer.n1 = cursor.Place(tokens * c.hidden_size * w);
  layer.rstd1 = cursor.Place(tokens * m);
  layer.qkv = cursor.Place(tokens * (c.query_size() + 2 * c.key_value_size()) * w);
  layer.out = cursor.Place(tokens * c.query_size() * w);
  layer.lse = cursor.Place(tokens * c.num_attention_heads * m);
  layer.mid = cursor.Place(tokens * c.hidden_size * w);
  layer.n2 = cursor.Place(tokens * c.hidden_size * w);
  layer.rstd2 = cursor.Place(tokens * m);
  layer.gate_up = cursor.Place(tokens * 2 * c.intermediate_size * w);
  return layer;
}

}  // namespace

Result<NumberWidths> WidthsOf(std::string_view dtype) {
  if (dtype == "float32") return NumberWidths{4, 4};
  if (dtype == "bfloat16") return NumberWidths{2, 4};
  return MakeError(ErrorCode::kInvalidSpec, "train.dtype = {}: use float32 or bfloat16",
                   std::string(dtype));
}

StashLayout StashLayoutOf(const StageShape& s) {
  const int64_t tokens = s.batch.tokens_per_microbatch();
  const int64_t hidden_bytes = tokens * s.config.hidden_size * s.widths.compute_bytes;
  Cursor cursor;
  StashLayout stash;
  for (int i = 0; i < s.layout.num_layers; ++i) stash.layers.push_back(PlaceLayer(s, cursor));
  if (s.halves) {
    for (int i = 0; i < s.layout.num_layers; ++i) {
      stash.gradients.push_back(PlaceGradients(s, cursor));
    }
  }
  if (s.layout.has_embedding()) {
    stash.inputs = cursor.Place(tokens * 4);
    if (s.halves) stash.embedding_dy = cursor.Place(hidden_bytes);
  }
  if (s.layout.has_head()) {
    stash.labels = cursor.Place(tokens * 4);
    stash.final_x = cursor.Place(hidden_bytes);
    stash.final_n = cursor.Place(hidden_bytes);
    stash.final_rstd = cursor.Place(tokens * s.widths.master_bytes);
    stash.final_dn = cursor.Place(hidden_bytes);
  }
  stash.num_bytes = cursor.end;
  return stash;
}

int64_t HeadChunkTokens(const ModelConfig& config, int64_t num_tokens) {
  const int64_t fitting = kLogitsBytesMax / (4 * config.vocab_size) / kRowBlock * kRowBlock;
  return std::min(num_tokens, std::max(fitting, kRowBlock));
}

WorkspaceLayout WorkspaceLayoutOf(const StageShape& s, int64_t kernel_bytes) {
  const ModelConfig& c = s.config;
  const int64_t tokens = s.batch.tokens_per_microbatch();
  const int64_t w = s.widths.compute_bytes;
  Cursor cursor;
  WorkspaceLayout work;
  work.delta = cursor.Place(tokens * c.hidden_size * w);
  work.product = cursor.Place(tokens * c.intermediate_size * w);
  work.dproduct = cursor.Place(tokens * c.intermediate_size * w);
  work.dout = cursor.Place(tokens * c.query_size() * w);
  work.dx = cursor.Place(tokens * c.hidden_size * w);
  work.gradients = PlaceGradients(s, cursor);
  work.rotary = cursor.Place(s.batch.seq_len * c.head_dim * s.widths.master_bytes);
  work.positions = cursor.Place(tokens * 4);
  if (s.layout.has_head()) {
    const int64_t logits = HeadChunkTokens(c, tokens) * c.vocab_size;
    work.logits = cursor.Place(logits * s.widths.master_bytes);
    if (s.widths.has_compute_copy()) work.dlogits = cursor.Place(logits * w);
  }
  work.kernels = cursor.Place(kernel_bytes);
  work.num_bytes = cursor.end;
  return work;
}

int64_t GradientElements(const ParameterTable& table, const StageLayout& layout) {
  int64_t elements = 0;
  for (const int index : ParametersOf(table, layout)) elements += table[index].num_elements();
  if (table.tied() && layout.has_embedding() && layout.has_head()) {
    elements += table[table.embedding_index()].num_elements();
  }
  return elements;
}

std::string_view MemoryKindName(MemoryKind kind) {
  static constexpr std::array<std::string_view, kNumMemoryKinds> kNames = {
      "params", "grads", "optimizer", "activations", "comm", "workspace"};
  return kNames[static_cast<size_t>(kind)];
}

MemoryPrediction PredictMemory(const ParameterTable& table, const PredictionInputs& in) {
  const StageShape& s = in.shape;
  int64_t elements = 0;
  for (const int index : ParametersOf(table, s.layout)) elements += table[index].num_elements();
  const int64_t boundary =
      s.batch.tokens_per_microbatch() * s.config.hidden_size * s.widths.compute_bytes;
  MemoryPrediction bytes{};
  const auto at = [&bytes](MemoryKind kind) -> int64_t& {
    return bytes[static_cast<size_t>(kind)];
  };
  at(MemoryKind::kParams) = elements * (s.widths.master_bytes +
                                        (s.widths.has_compute_copy() ? s.widths.compute_bytes : 0));
  at(MemoryKind::kGrads) = GradientElements(table, s.layout) * s.widths.master_bytes *
                           (s.batch.gradient_groups > 1 ? 2 : 1);
  at(MemoryKind::kOptimizer) = elements * 2 * s.widths.master_bytes;
  at(MemoryKind::kActivations) = StashLayoutOf(s).num_bytes * in.peak_microbatches;
  at(MemoryKind::kComm) = SlotStrideBytes(boundary) * in.receive_slots +
                          boundary * in.outputs_in_flight + in.shared_bytes;
  at(MemoryKind::kWorkspace) =
      WorkspaceLayoutOf(s, KernelScratchBytes(s, in.isa)).num_bytes + PackedWeightsBytes(s, in.isa);
  return bytes;
}

}  // namespace troupe
