// StageModel: the arithmetic of one pipeline stage: its units in a row (some decoder layers, on the
// first stage the embedding before them, on the last the head after them), the residual steps
// between them, and what each microbatch leaves from Forward to its backward. Knows microbatches,
// not messages, and no tensor inside a unit.
//
// Passes are tasks of the compute stream: straight through, but for what a unit awaits of another
// rank. What a task is given lives until it has ended.
//
// Thread: one at a time, the compute stream's; a task that waits may be destroyed on the
// scheduler's. Sums over ranks begin there too (BeginSums, PublishRows): they read what no other
// task writes, and count in sums_begun_, which AwaitRanksSums reads when all passes have ended.
//   M1. float32: the stages of any partition compute bit for bit what one stage with all layers
//       does: same products, same shapes, same order.
//   M2. Forward(m) keeps a stash until its backward is complete. Backward = BackwardInput, then
//       BackwardWeight, with the same bits.
//   M3. Within a step each of Forward, BackwardInput and each part of BackwardWeight sees ascending
//       microbatches.
//   M4. Gradients are sums over tokens; the commit's factor makes them a mean (ApplyUpdate).
//   M5. As many passes are open at once as shape.open_actions says, each in a workspace of its own,
//       and no two of one kind.
//
// Boundary tensors (input, output and their gradients) are (tokens_per_microbatch, hidden_size) in
// the compute dtype, dense.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "actors/model/embedding.h"
#include "actors/model/gathered_memory.h"
#include "actors/model/gradient_sum.h"
#include "actors/model/head.h"
#include "actors/model/kv_ring.h"
#include "actors/model/layer.h"
#include "actors/model/microbatch_gradients.h"
#include "actors/model/row_source.h"
#include "actors/model/sibling_sums.h"
#include "actors/model/stage_parameters.h"
#include "actors/model/unit_residency.h"
#include "actors/model/unit_weights.h"
#include "actors/model/workspaces.h"
#include "actors/plan/gradient_reduction.h"
#include "actors/plan/memory_model.h"
#include "actors/plan/microbatch.h"
#include "proto/training.pb.h"
#include "runtime/actor/task.h"
#include "runtime/collective/group.h"

namespace troupe {

struct StageModelOptions {
  StageShape shape{};
  DType dtype = DType::kFloat32;  // of activations: float32, bfloat16 or float64
  bool specification = false;     // run the plain loops of the kernels
  bool exporter = true;           // of the weights
  ShardPlace shards{};            // among the ranks that have the stage
  int32_t first_microbatch = 0;   // of its own, as actions number them
  bool listed_reduction = false;  // ReduceGradients begins the sums, else each last gradient
  // Of all stages of the rank, where weights are gathered; null: one of its own.
  std::shared_ptr<GatheredMemory> gathered_memory{};
  LayerFactory new_layer = NewLayer;
  AxisGroups groups{};
};

// The ranks that have the same stage, as it meets them. All of it outlives the model's passes.
struct StageSiblings {
  SiblingGroups groups{};
  RowSource* rows = nullptr;  // of weights that are gathered; null where they are here
  // Runs a task on the stage's stream beside the passes, then `done` on the scheduler's thread,
  // whose thread it is called on.
  std::function<void(Task<Status>, std::function<void()> done)> launch{};
};

// The ranks that share the stage's sequences (ContextParallel), as it meets them. All of it
// outlives the model's passes.
struct ContextPeers {
  KvRing* ring = nullptr;                    // ContextMethod::kRing
  std::array<Group*, kNumKvLanes> groups{};  // of the other methods: of each lane one
  AttentionWork* work = nullptr;             // counts; null: nobody asks
};

class StageModel {
 public:
  // The table and the ledger outlive the model.
  StageModel(const StageModelOptions& options, const ParameterTable& table, MemoryLedger& ledger);

  // Before the first pass, on the scheduler's thread: publishes what others gather.
  void Meet(StageSiblings siblings);
  // Before the first pass, where sequences are shared.
  void Join(const ContextPeers& peers) { peers_ = peers; }

  // ---- weights ----
  // After Initialize, or after the caller has filled the views (loading): WeightsChanged.
  StageParameters& parameters() { return parameters_; }
  void WeightsChanged();
  // Of unit `unit` (ModelSpec): what its products read goes, and is made again of the masters.
  void DropUnit(int unit);
  void ReadyUnit(int unit);

  // Of the passes that follow, for what is said of their waits.
  void AtStep(int64_t step) { step_ = step; }
  // A pass over weights on a stage of this rank whose units are gathered.
  struct NextPass {
    StageModel* stage = nullptr;  // null: unknown, or none before the weights change
    WeightPass pass{};
  };
  // Of the pass over weights that follows: its microbatch as actions number it, and what the rank
  // runs after it. That has its first weights gathered ahead.
  void AtPass(int32_t microbatch, const NextPass& next);

  // ---- arithmetic; microbatch is in [0, num_microbatches) ----
  struct ForwardResult {
    Buffer output{};                // empty on the last stage
    std::optional<LossSum> loss{};  // last stage; of no label, perhaps
  };
  // `input` is empty on the first stage; `data` has what the stage reads (FieldsOf).
  Task<Result<ForwardResult>> Forward(int32_t microbatch, std::span<const std::byte> input,
                                      const Microbatch& data);
  // `gradient` of the output (empty on the last stage). Returns the input's (empty on the first).
  Task<Result<Buffer>> Backward(int32_t microbatch, std::span<const std::byte> gradient);
  Task<Result<Buffer>> BackwardInput(int32_t microbatch, std::span<const std::byte> gradient);
  // Part `part` of `num_parts`: whole products each.
  Task<Status> BackwardWeight(int32_t microbatch, int32_t part = 0, int32_t num_parts = 1);

  // Forward only; keeps nothing.
  Task<Result<ForwardResult>> Evaluate(std::span<const std::byte> input, const Microbatch& data);
  // Returns the output, or on the last stage the logits after token `last_token` of the microbatch:
  // (vocab_size) master dtype. Tokens behind it cannot reach back to it. -1: it is in the part of
  // another rank that shares the sequence, and there are no logits here.
  Task<Result<Buffer>> GenerateForward(std::span<const std::byte> input, const Microbatch& data,
                                       int64_t last_token);
  // Draws from softmax(logits / temperature) by (seed, counter); temperature 0 takes the largest,
  // the lowest index among equals.
  int32_t DrawToken(const Buffer& logits, double temperature, uint64_t seed,
                    uint64_t counter) const;

  // ---- weights between passes: nothing where they are here ----
  // Begins to gather those of all units, and keeps them until Reshard: passes in between gather
  // nothing. Within a step, in pairs, and Reshard when no pass of the stage is open.
  Task<Status> Unshard();
  Task<Status> Reshard();

  // ---- the end of a step ----
  // Sums the groups; what follows needs it and calls it.
  void FinishGradients();
  // Begins the sums of gradients over the stage's siblings, after the last gradient: where the list
  // says when (options.listed_reduction); else they begin with each unit's last gradient. Nothing
  // where they add up every microbatch.
  Task<Status> ReduceGradients();
  // Until those sums are there: of everything, or of this rank's shards and of what persists; of
  // each use of a weight by itself.
  Task<Status> AwaitRanksSums();
  // The gradient of weights that another stage holds too: of all parameters in table order, or of
  // the tied embedding's use here, of which this rank's shard. (elements) the dtype of gradients,
  // until ApplyUpdate; whoever has the sum over the copies writes it there.
  TensorView SharedGradient(SharedWeights weights);
  void AddSharedGradient(SharedWeights weights, ConstTensorView other);
  // Squared norms of the owned parameters' gradients: one root each, not finite where an element is
  // not.
  std::vector<proto::NormNode> NormNodes();
  ConstTensorView Gradient(const StageParameter& parameter);
  // AdamW on every shard (or nothing, where the step is dropped); zeroes the gradients.
  void ApplyUpdate(const AdamWOptions& options, bool apply);
  // After an update of shards: every owner's, so that products read them; or this rank's for those
  // who will gather them. Nothing where weights are whole.
  Task<Status> ShareWeights(GroupPurpose purpose);

  const StageModelOptions& options() const { return options_; }
  int64_t boundary_bytes() const;

 private:
  struct Stash {
    Buffer memory{};
    int32_t microbatch = -1;
    int32_t parts_done = 0;
  };

  bool is_sharded() const { return options_.shards.num_owners > 1; }
  bool gathers() const { return is_sharded() && options_.shape.zero.stage == 3; }
  // With siblings, each microbatch, or else once a step.
  bool reduces_pieces() const {
    return sums_.has_siblings() && options_.shape.batch.grad_reduce == GradReduce::kMicrobatch;
  }
  bool reduces_once() const { return sums_.has_siblings() && !reduces_pieces(); }
  void BuildGradients();
  void BuildUnits();
  void BuildResidency();
  // Without its gradients' elements. `position`: of the unit on this stage.
  UnitSite SiteOf(size_t position, int unit);
  void BuildUnit(int unit, const UnitSite& site);
  void WriteConstants();
  UnitWeights& WeightsOf(int unit);

  Stash TakeStash(int32_t microbatch);
  void ReturnStash(Stash stash);
  Stash& StashOf(int32_t microbatch);
  // `lane`: of the exchanges with the ranks that share the sequences.
  Pass PassOf(Stash& stash, const Workspaces::Lease& workspace, int lane, bool whole = false);
  // (T, h) in an output.
  TensorView Boundary(Buffer& output) const;
  // Counts a unit's weight gradients of a step: whether this was the last one, after which its sums
  // over the siblings begin.
  bool HasLastGradient(size_t position);
  // Begins them; they go on beside the pass.
  Task<void> ReduceUnit(size_t position);
  void BeginSums(int unit);
  void BeginRows(int unit);
  void BeginRun(int unit);
  void BeginSum(TensorView gradients, std::span<const int64_t> counts);
  // `counts`: of the owners' runs; none: everyone's. The first error is kept.
  Task<Status> Sum(TensorView gradients, std::span<const int64_t> counts, int microbatch = -1);
  void PublishRows();

  // ---- a pass over one unit, by position (nothing where gradients are summed as they come, and
  // where weights are here) ----
  Task<Status> OpenPiece(size_t position, GradientMoment moment, int32_t microbatch);
  // The pieces are complete: their reductions go on beside the pass.
  Task<Status> ClosePiece(size_t position, GradientMoment moment, int32_t microbatch);
  Task<Status> ReducePiece(std::shared_ptr<MicrobatchGradients::Bucket> bucket, size_t part);
  // Its weights; with them it begins to gather what is read next, as far as prefetch goes.
  Task<Status> HaveUnit(size_t position, PassDirection direction);
  Task<void> GatherUnits(size_t position, PassDirection direction);
  // At most so many units of the rank's next pass, from its first one on.
  Task<void> GatherForNext(int most);
  // Of the pass: none is at work after it, so that one more may be ahead.
  Task<void> ReleaseLast(size_t position, UnitResidency::After after);
  // Units that a pass reads after `position`, in its order.
  std::vector<int> ReadAfter(int position, PassDirection direction, int most) const;
  WeightPass ThisPass(PassDirection direction) const;
  UnitResidency::After AfterBackward() const {
    return options_.shape.zero.reshard_after_forward ? UnitResidency::After::kDrop
                                                     : UnitResidency::After::kKeptDrop;
  }
  // Of one-dimensional parameters; of the others it is kWeight.
  GradientMoment InputMoment() const {
    return options_.shape.halves ? GradientMoment::kInput : GradientMoment::kWeight;
  }
  Task<Status> LayerBackwardInput(const Pass& pass, size_t layer, ConstTensorView dy,
                                  TensorView dx);
  Task<Status> LayerBackwardWeight(const Pass& pass, size_t layer, WeightParts parts,
                                   ConstTensorView dy);
  // What a Forward has kept and its backward does not read.
  void EndKeepingUnread();
  Task<Status> EmbeddingBackward(const Pass& pass, ConstTensorView dy);
  size_t first_layer() const { return embedding_ ? 1 : 0; }
  size_t head_position() const { return first_layer() + layers_.size(); }

  Buffer NewBoundary() { return Buffer::Unfilled(ledger_, MemoryTag::kComm, boundary_bytes()); }

  // What the stage reads of the microbatch, into its stash.
  void TakeData(const Pass& pass, const Microbatch& data);
  // Through the embedding or from `input`, and all layers: to the head's normed input, or to the
  // output, which is returned.
  Task<Result<Buffer>> RunLayers(const Pass& pass, std::span<const std::byte> input,
                                 UnitResidency::After after);
  Task<Result<ForwardResult>> RunForward(const Pass& pass, std::span<const std::byte> input,
                                         const Microbatch& data, bool with_gradients);
  // The gradient of the last layer's output: the head's, or the next stage's.
  Task<Status> EnterBackward(const Pass& pass, std::span<const std::byte> gradient, TensorView dy);

  const StageModelOptions options_;
  const ParameterTable& table_;
  MemoryLedger& ledger_;
  const int64_t num_tokens_;  // T
  const StashLayout stash_layout_;
  const WorkspaceLayout work_layout_;
  const DType master_;
  const DType gradient_;          // of the step's sums
  const std::vector<int> units_;  // by position, as ModelSpec numbers them
  StageParameters parameters_;
  std::shared_ptr<GatheredMemory> gathered_memory_{};  // where weights are gathered
  std::unique_ptr<Gradients> gradients_{};
  MicrobatchGradients* pieces_ = nullptr;  // the same, where each microbatch's are apart
  std::vector<std::unique_ptr<UnitWeights>> unit_weights_{};  // as UnitsOf
  std::optional<UnitResidency> residency_{};                  // where weights are gathered
  std::optional<Embedding> embedding_{};
  std::vector<std::unique_ptr<Layer>> layers_{};
  std::optional<Head> head_{};
  std::vector<HalfSlot> layer_gradients_{};  // dy of each layer
  HalfSlot embedding_gradient_{};
  TensorSlot spare_gradient_{};  // dx of a whole Backward, the next layer's dy
  // Where a unit reads them.
  const std::optional<TensorSlot> tokens_, labels_, positions_, document_starts_;
  int num_weight_parts_ = 0;         // of all units
  int64_t tied_first_element_ = -1;  // of the tied head's own use, where both uses are here
  Workspaces workspaces_;
  Buffer shared_;  // constants, and the kernels' scratch
  Exec exec_{};
  std::vector<Stash> free_stashes_{};
  std::map<int32_t, Stash> stashes_{};
  bool tied_added_ = false;
  StageSiblings siblings_{};
  ContextPeers peers_{};
  SiblingSums sums_{};
  StreamSemaphore buckets_{kGradientBuckets};
  std::vector<int32_t> weight_passes_{};          // of each unit in the step, by position
  const std::vector<GradientRun> gradient_runs_;  // where gradients are whole, once a step
  int sums_begun_ = 0;
  StreamSemaphore sums_listed_{0};  // that ReduceGradients has begun them
  StreamSemaphore sums_done_{0};
  Status reduced_{};  // the first error of a reduction
  int64_t weights_version_ = 0;
  int64_t step_ = -1;
  int32_t pass_microbatch_ = -1;
  NextPass next_{};
};

}  // namespace troupe
