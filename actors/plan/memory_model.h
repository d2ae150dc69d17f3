// Where every byte of a stage lies, and so what a rank needs by tag. The model allocates by these
// layouts and the plan predicts by them: one formula, so that predicted and measured agree. Pure.
//
// Shapes: T tokens of a microbatch, h hidden, q query channels, k key (and value) channels, f
// intermediate, S sequence, V vocabulary. Offsets are bytes, 64-byte aligned.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/model_config.h"
#include "actors/plan/stage_partition.h"
#include "runtime/base/vector_isa.h"

namespace troupe {

// How wide numbers are: activations and products in `compute`, statistics, weights' masters,
// gradients and optimizer in `master`.
struct NumberWidths {
  int64_t compute_bytes = 4;  // float32 4, bfloat16 2, float64 8
  int64_t master_bytes = 4;   // float32 4, float64 8
  bool has_compute_copy() const { return compute_bytes < master_bytes; }
};
// train.dtype; refuses unknown names.
Result<NumberWidths> WidthsOf(std::string_view dtype);

// Kept of one layer from Forward to backward.
struct LayerStash {
  int64_t x = 0;        // (T, h) the layer's input
  int64_t n1 = 0;       // (T, h) normed
  int64_t rstd1 = 0;    // (T)
  int64_t qkv = 0;      // (T, q + 2k) rotated
  int64_t out = 0;      // (T, q) attention's output
  int64_t lse = 0;      // (heads, T)
  int64_t mid = 0;      // (T, h) after attention
  int64_t n2 = 0;       // (T, h)
  int64_t rstd2 = 0;    // (T)
  int64_t gate_up = 0;  // (T, 2f)
};
// Kept of one layer from BackwardInput to BackwardWeight; with a whole Backward, one set in the
// workspace.
struct LayerGradientStash {
  int64_t dy = 0;        // (T, h) of the layer's output
  int64_t dgate_up = 0;  // (T, 2f)
  int64_t dmid = 0;      // (T, h)
  int64_t dqkv = 0;      // (T, q + 2k)
};

struct StashLayout {
  std::vector<LayerStash> layers{};
  std::vector<LayerGradientStash> gradients{};  // only where backward comes in halves
  int64_t inputs = 0;                           // (T) int32, first stage
  int64_t embedding_dy = 0;  // (T, h) first stage, where backward comes in halves
  int64_t labels = 0;        // (T) int32, last stage
  int64_t final_x = 0;       // (T, h) last stage
  int64_t final_n = 0;       // (T, h)
  int64_t final_rstd = 0;    // (T)
  int64_t final_dn = 0;      // (T, h) the loss's gradient
  int64_t num_bytes = 0;
};

struct WorkspaceLayout {
  int64_t delta = 0;               // (T, h) what a block adds; gradients of norms' outputs
  int64_t product = 0;             // (T, f) SwiGLU's output
  int64_t dproduct = 0;            // (T, f)
  int64_t dout = 0;                // (T, q)
  int64_t dx = 0;                  // (T, h) next layer's dy
  LayerGradientStash gradients{};  // of the layer at work
  int64_t rotary = 0;              // (S, head_dim) master
  int64_t positions = 0;           // (T) int32
  int64_t logits = 0;              // (chunk, V) master, last stage
  int64_t dlogits = 0;             // (chunk, V) compute, where narrower than master
  int64_t kernels = 0;             // the kernels' own scratch, to the end
  int64_t num_bytes = 0;
};

struct StageShape {
  ModelConfig config{};
  StageLayout layout{};
  BatchArithmetic batch{};
  NumberWidths widths{};
  bool halves = false;  // the schedule runs BackwardInput and BackwardWeight apart
  int num_threads = 1;  // math threads of the worker
};

StashLayout StashLayoutOf(const StageShape& shape);
// `kernel_bytes`: scratch of the kernels (KernelScratchBytes).
WorkspaceLayout WorkspaceLayoutOf(const StageShape& shape, int64_t kernel_bytes);

// Tokens of a chunk of the head: logits never exceed 4 MiB, chunks are multiples of 16 tokens.
int64_t HeadChunkTokens(const ModelConfig& config, int64_t num_tokens);

// Elements of the gradient buffer: every parameter once, a tied weight with both uses on the stage
// twice.
int64_t GradientElements(const ParameterTable& table, const StageLayout& layout);

inline constexpr int kNumMemoryKinds = 6;
enum class MemoryKind : uint8_t { kParams, kGrads, kOptimizer, kActivations, kComm, kWorkspace };
std::string_view MemoryKindName(MemoryKind kind);

// Output buffers of a channel: one on its way while the next is computed. The executor starts no
// action whose output would need a third.
inline constexpr int kOutputBuffers = 2;

// Predicted peak by tag, in bytes. Parameters, gradients, optimizer and activations are exact, the
// workspace as far as kernel_memory.h is, comm is the most: an output buffer lives only from its
// action to the end of its sending.
using MemoryPrediction = std::array<int64_t, kNumMemoryKinds>;

struct PredictionInputs {
  StageShape shape{};
  int peak_microbatches = 1;         // most that are kept at once: the schedule's peak activations
  int receive_slots = 0;             // posted for activations and gradients, all channels together
  int outputs_in_flight = 0;         // computed or being sent
  int64_t shared_bytes = 0;          // slots posted for gradients of shared weights, whole pages
  VectorIsa isa = VectorIsa::kAvx2;  // of the rank's CPU
};
MemoryPrediction PredictMemory(const ParameterTable& table, const PredictionInputs& inputs);

}  // namespace troupe
