// Where every byte of a stage lies, and so what a rank needs by tag. The model allocates by these
// layouts and the plan predicts by them: one formula, so that predicted and measured agree. Which
// tensors there are, the specs of the units say, and the job (unit_tensors.h). Pure.
//
// Offsets are bytes, 64-byte aligned.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/layer_spec.h"
#include "actors/plan/parameter_shard.h"
#include "actors/plan/recompute.h"
#include "actors/plan/stage_partition.h"
#include "runtime/base/memory_tag.h"
#include "runtime/base/vector_isa.h"

namespace troupe {

// How wide numbers are: activations and products in `compute`, statistics, weights' masters and
// optimizer in `master`, what a step adds up of gradients and sums over ranks in `grad`.
struct NumberWidths {
  int64_t compute_bytes = 4;          // float32 4, bfloat16 2, float64 8
  int64_t master_bytes = 4;           // float32 4, float64 8
  int64_t grad_bytes = master_bytes;  // bfloat16 2, or the master's
  bool has_compute_copy() const { return compute_bytes < master_bytes; }
  // A microbatch's gradient is computed as wide as the master, and rounded before it is added.
  bool rounds_gradients() const { return grad_bytes < master_bytes; }
};
// train.dtype; refuses unknown names.
Result<NumberWidths> WidthsOf(std::string_view dtype);

// Of what travels between two stages: the hidden states of a microbatch.
int64_t BoundaryBytes(const BatchArithmetic& batch, int64_t hidden_size,
                      const NumberWidths& widths);

// Where a tensor lies in a stash or in the workspace.
struct TensorPlace {
  std::string_view name{};
  TensorWidth width = TensorWidth::kCompute;
  int64_t offset = 0;
  int64_t rows = 0;
  int64_t columns = 0;  // 0: one-dimensional
};

// Of one unit, by name. A tensor that is not there is a broken invariant.
class UnitPlaces {
 public:
  void Add(const TensorPlace& place) { places_.push_back(place); }
  bool Has(std::string_view name) const;
  const TensorPlace& Of(std::string_view name) const;

 private:
  std::vector<TensorPlace> places_;
};

// What is kept of a microbatch from Forward to the end of its backward: what it brought (kBatch),
// the units' kStash, and where backward comes in halves their kHalf.
struct StashLayout {
  UnitPlaces batch{};               // of the whole stage
  std::vector<UnitPlaces> units{};  // as UnitsOf
  int64_t num_bytes = 0;
};

// What a stage works in: for each open action a workspace of its own (kHalf of the unit at work in
// a whole Backward, and kWorkspace); for all of them together kConstant, and the kernels' own
// scratch, which one kernel at a time uses and none across a wait.
struct WorkspaceLayout {
  std::vector<UnitPlaces> units{};      // as UnitsOf, in an action's workspace
  std::vector<UnitPlaces> constants{};  // as UnitsOf, in the shared part
  int64_t kernels = 0;                  // in the shared part, to its end
  int64_t action_bytes = 0;
  int64_t shared_bytes = 0;
  int64_t num_bytes(int open_actions) const { return shared_bytes + open_actions * action_bytes; }
};

struct StageShape {
  ModelSpec model{};
  StageLayout layout{};
  BatchArithmetic batch{};
  NumberWidths widths{};
  bool halves = false;        // the schedule runs BackwardInput and BackwardWeight apart
  bool weight_parts = false;  // it runs a BackwardWeight in several
  Recompute recompute = Recompute::kNone;
  int num_threads = 1;                  // math threads of the worker
  int open_actions = 1;                 // most that are open at once (ExecutionPolicy)
  ZeroSharding zero{};                  // among several owners; else its stage is 0
  bool unshards = false;                // all its units are gathered at some time (UNSHARD)
  int64_t bucket_bytes = kBucketBytes;  // of gradients that are whole and added up once a step
  bool gathers_units() const { return zero.stage == 3; }
  // A microbatch's gradient is computed in a bucket of its own (gradient_piece.h) before it is
  // added to a sum.
  bool has_buckets() const {
    return batch.grad_reduce == GradReduce::kMicrobatch || widths.rounds_gradients();
  }
};

StashLayout StashLayoutOf(const StageShape& shape);
// `kernel_bytes`: scratch of the kernels (KernelScratchBytes).
WorkspaceLayout WorkspaceLayoutOf(const StageShape& shape, int64_t kernel_bytes);

// Elements of the gradient buffer: of every unit's parameters what the place owns, so that a tied
// weight with both uses on the stage counts twice.
int64_t GradientElements(const ParameterTable& table, const StageLayout& layout,
                         const ShardPlace& place = {});

// Output buffers of a channel: one on its way while the next is computed. The executor starts no
// action whose output would need a third.
inline constexpr int kOutputBuffers = 2;

// Predicted peak by tag, in bytes. Parameters, gradients, optimizer and activations are exact, the
// workspace as far as kernel_memory.h is, comm is the most: an output buffer lives only from its
// action to the end of its sending, buckets come when they are first needed.
using MemoryPrediction = std::array<int64_t, kNumMemoryTags>;

struct PredictionInputs {
  StageShape shape{};
  ShardPlace shards{};
  int peak_microbatches = 1;         // most that are kept at once: the schedule's peak activations
  int receive_slots = 0;             // posted for activations and gradients, all channels together
  int outputs_in_flight = 0;         // computed or being sent
  int64_t shared_bytes = 0;          // blocks of gradients and shards, whole pages
  VectorIsa isa = VectorIsa::kAvx2;  // of the rank's CPU
};
// Without the units whose weights come and go.
MemoryPrediction PredictMemory(const ParameterTable& table, const PredictionInputs& inputs);

// What the units of a rank's stages take at most whose weights come and go (gathers_units): whole
// weights in the dtype that products read (comm), and packed copies of them (workspace). Each of
// the rank's open actions has prefetch + 1 units, of its stage or of that of the next action;
// without resharding, and of a stage that unshards, all units are there. A tied head's unit counts
// the embedding's weight, too.
MemoryPrediction PredictGatheredUnits(const ParameterTable& table,
                                      std::span<const StageShape> stages, VectorIsa isa);

}  // namespace troupe
