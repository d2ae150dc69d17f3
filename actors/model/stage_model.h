// StageModel: the arithmetic of one pipeline stage: some decoder layers (Llama: RMSNorm, rotary
// grouped-query attention, SwiGLU), on the first stage the embedding before them, on the last the
// final norm, the head and the loss after them. Knows microbatches, not messages.
//
// Thread: one at a time, the compute stream's.
//   M1. float32: the stages of any partition compute bit for bit what one stage with all layers
//       does: same products, same shapes, same order.
//   M2. Forward(m) keeps a stash until its backward is complete. Backward = BackwardInput, then
//       BackwardWeight, with the same bits.
//   M3. Within a step each of Forward, BackwardInput and each part of BackwardWeight sees ascending
//       microbatches.
//   M4. Gradients are sums over tokens; the commit's factor makes them a mean (ApplyUpdate).
// The head's gradients are taken in Forward, while a chunk's logits exist; norms' weight gradients
// in the input half, which alone has the gradients of their outputs.
//
// Boundary tensors (input, output and their gradients) are (micro_batch_size · seq_len,
// hidden_size) in the compute dtype, dense.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "actors/model/gradient_sum.h"
#include "actors/model/stage_parameters.h"
#include "actors/plan/gradient_exchange.h"
#include "actors/plan/memory_model.h"
#include "kernels/attention.h"
#include "kernels/cross_entropy.h"
#include "proto/training.pb.h"

namespace troupe {

struct StageModelOptions {
  StageShape shape{};
  DType dtype = DType::kFloat32;  // of activations: float32, bfloat16 or float64
  bool specification = false;     // run the plain loops of the kernels
  bool owner = true;              // votes, saves and exports; false: a replica's copy
};

class StageModel {
 public:
  // The table and the ledger outlive the model.
  StageModel(const StageModelOptions& options, const ParameterTable& table, MemoryLedger& ledger);

  // ---- weights ----
  // After Initialize, or after the caller has filled the views (loading): WeightsChanged.
  StageParameters& parameters() { return parameters_; }
  void WeightsChanged();

  // ---- arithmetic; microbatch is in [0, num_microbatches) ----
  struct ForwardResult {
    Buffer output{};      // empty on the last stage
    double loss_sum = 0;  // last stage: nats, over num_tokens labels
    int64_t num_tokens = 0;
  };
  // `input` is empty on the first stage; `tokens` are rows of seq_len + 1 (first and last stage).
  ForwardResult Forward(int32_t microbatch, std::span<const std::byte> input,
                        std::span<const int32_t> tokens);
  // `gradient` of the output (empty on the last stage). Returns the input's (empty on the first).
  Buffer Backward(int32_t microbatch, std::span<const std::byte> gradient);
  Buffer BackwardInput(int32_t microbatch, std::span<const std::byte> gradient);
  // Part `part` of `num_parts`: whole products each.
  void BackwardWeight(int32_t microbatch, int32_t part = 0, int32_t num_parts = 1);

  // Forward only; keeps nothing.
  ForwardResult Evaluate(std::span<const std::byte> input, std::span<const int32_t> tokens);
  // One sequence of 1 .. seq_len tokens. Returns the output, or on the last stage the logits after
  // the last token: (vocab_size) master dtype.
  Buffer GenerateForward(std::span<const std::byte> input, std::span<const int32_t> tokens);
  // Draws from softmax(logits / temperature) by (seed, counter); temperature 0 takes the largest,
  // the lowest index among equals.
  int32_t DrawToken(const Buffer& logits, double temperature, uint64_t seed,
                    uint64_t counter) const;

  // ---- the end of a step ----
  // Sums the groups; what follows needs it and calls it.
  void FinishGradients();
  // The gradient of weights that another stage holds too: of the tied embedding's use here
  // (vocab_size, hidden_size), or of all parameters in table order. Master dtype, until
  // ApplyUpdate.
  std::span<const std::byte> SharedGradient(SharedWeights weights);
  void AddSharedGradient(SharedWeights weights, std::span<const std::byte> other);
  void ReplaceSharedGradient(SharedWeights weights, std::span<const std::byte> sum);
  // Squared norms of the owned parameters' gradients: one root each, not finite where an element is
  // not.
  std::vector<proto::NormNode> NormNodes();
  ConstTensorView Gradient(const StageParameter& parameter);
  // AdamW on every parameter (or nothing, where the step is dropped); zeroes the gradients.
  void ApplyUpdate(const AdamWOptions& options, bool apply);

  const StageModelOptions& options() const { return options_; }
  int64_t boundary_bytes() const;

 private:
  struct Linear {
    MatmulShape shape{};
    int table_index = 0;
    int num_parameters = 1;
    PackedWeight forward{};
    PackedWeight input_grad{};
    Buffer forward_memory{};
    Buffer input_grad_memory{};
    int accumulator = -1;
  };
  struct Layer {
    Linear qkv{}, out{}, gate_up{}, down{};
    int norm1 = 0, norm2 = 0;  // table indices
    int norm1_accumulator = -1, norm2_accumulator = -1;
  };
  struct Stash {
    Buffer memory{};
    int32_t microbatch = -1;
    int32_t parts_done = 0;
  };
  // Views of one layer's gradients, in the workspace or in a stash.
  struct LayerGradients {
    TensorView dy{}, dgate_up{}, dmid{}, dqkv{};
  };

  // Construction.
  Linear NewLinear(int table_index, int num_parameters);
  int NewAccumulator(int table_index, int num_parameters = 1);
  void Pack(Linear& linear);
  void PackAll();
  void FillConstants();

  // Where tensors lie.
  TensorView Hidden(std::byte* base, int64_t offset) const;  // (T, h)
  TensorView Wide(std::byte* base, int64_t offset, int64_t columns) const;
  TensorView Statistic(std::byte* base, int64_t offset, int64_t elements) const;
  TensorView Tokens(std::byte* base, int64_t offset) const;  // (T) int32
  std::byte* work() { return workspace_.data(); }
  LayerGradients GradientsIn(std::byte* base, const LayerGradientStash& offsets) const;
  TensorView SharedSum(SharedWeights weights);
  ConstTensorView Weight(int table_index) const { return parameters_.Compute(table_index); }
  TensorView GradientTarget(int accumulator, int32_t microbatch, int64_t rows, int64_t columns);
  ConstTensorView Positions();
  ConstTensorView Rotary();
  AttentionShape AttentionOf() const;

  // Forward.
  Stash TakeStash(int32_t microbatch);
  void ReturnStash(Stash stash);
  void EnterStage(Stash& stash, std::span<const std::byte> input, std::span<const int32_t> tokens);
  void ForwardLayer(Stash& stash, int layer);
  // Adds the last block's delta: into the next layer, the final norm or the stage's output.
  void LeaveLayer(Stash& stash, int layer, Buffer& output);
  ForwardResult RunForward(Stash& stash, std::span<const std::byte> input,
                           std::span<const int32_t> tokens, bool with_gradients);
  LossSum HeadLoss(Stash& stash, bool with_gradients);

  // Backward.
  Stash& StashOf(int32_t microbatch);
  void EnterBackward(Stash& stash, std::span<const std::byte> gradient, TensorView dy);
  // `product`, unless empty, receives SwiGLU's output for the weight half that follows at once.
  void LayerInputHalf(Stash& stash, int layer, const LayerGradients& g, TensorView dx,
                      TensorView product = {});
  void AttentionInputHalf(Stash& stash, int layer, const LayerGradients& g);
  // Product `product` of a layer: 0 down, 1 gate and up, 2 attention output, 3 query, key, value.
  // `swiglu` is SwiGLU's output, or empty: computed again.
  void LayerWeightHalf(Stash& stash, int layer, int product, const LayerGradients& g,
                       ConstTensorView swiglu = {});
  void EmbeddingWeightHalf(Stash& stash, ConstTensorView dy);
  void Weigh(const Linear& linear, int32_t microbatch, ConstTensorView dy, ConstTensorView x);

  const StageModelOptions options_;
  const ParameterTable& table_;
  MemoryLedger& ledger_;
  const int64_t num_tokens_;  // T
  const StashLayout stash_layout_;
  const DType master_;
  StageParameters parameters_;
  GradientSum gradients_;
  std::vector<Layer> layers_{};
  Linear head_{};
  int embedding_accumulator_ = -1;
  int final_norm_accumulator_ = -1;
  int64_t tied_first_element_ = -1;  // of the tied head's own use, where both uses are here
  WorkspaceLayout work_layout_{};
  Buffer workspace_{};
  Exec exec_{};
  std::vector<Stash> free_stashes_{};
  std::map<int32_t, Stash> stashes_{};
  bool tied_added_ = false;
};

}  // namespace troupe
